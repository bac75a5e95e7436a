"""The effect over a family of layers: its largest, which finds, and its overall size, which bounds."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from audit.probing import Design, Naming, Panel, PersonRows, Sides, assess, blank, by_person
from audit.schema import Count, Interval, Missing, Overall
from tests import toy


def test_the_overall_effect_is_the_ratio_of_the_sums_over_layers() -> None:
    rng = np.random.default_rng(0)
    base = np.array([0.4, 0.8, 1.0]) + 0.02 * rng.standard_normal((12, 3))
    suspect = np.array([0.2, 0.1, 0.0]) + 0.02 * rng.standard_normal((12, 3))
    null = 0.02 * rng.standard_normal((12, 3))
    other = np.array([-0.1, 0.0, 0.05]) + 0.02 * rng.standard_normal((12, 3))
    panel = Panel(Sides(suspect), Sides(base), Sides(null), (Sides(other),))
    found = assess(panel, Design(seed=0, least_gap=0.3, draws=199))
    assert isinstance(found.overall, Overall) and isinstance(found.overall.ci95, Interval)
    assert found.overall.value == pytest.approx((suspect - null).sum() / (base - null).sum())
    assert found.overall.floor == pytest.approx(abs((other - null).sum() / (base - null).sum()))
    assert found.value == pytest.approx(((suspect - null).mean(0) / (base - null).mean(0)).max())
    draws = [rng.integers(0, 12, 12) for _ in range(4000)]
    direct = np.percentile([(suspect - null)[i].sum() / (base - null)[i].sum() for i in draws], [2.5, 97.5])
    assert [found.overall.ci95.lo, found.overall.ci95.hi] == pytest.approx(direct, abs=0.01)


@pytest.mark.parametrize("held", [True, False])
def test_two_models_together_are_one_less_the_other_taken_away(held: bool) -> None:
    rng = np.random.default_rng(1)
    a, b = (Sides(rng.standard_normal((5, 3)), rng.standard_normal((4, 3)) if held else None) for _ in range(2))
    together, apart = a.plus(b), a.minus(a.minus(a).minus(b))
    assert np.array_equal(together.forget, apart.forget) and np.array_equal(together.forget, a.forget + b.forget)
    assert (together.holdout is None) is (not held) and (
        together.holdout is None or np.array_equal(together.holdout, apart.holdout)
    )  # type: ignore[arg-type]
    assert a.plus(Sides(b.forget)).holdout is None


# ---- an effect against its definition, by hand ------------------------------------------------------------------
def people(rng: np.random.Generator, n: int, level: list[float], noise: float = 0.02) -> np.ndarray:
    """Person means [person layer] around a level a layer."""
    return np.array(level) + noise * rng.standard_normal((n, len(level)))


def panel(n: int = 16, suspect: float = 0.3, base: tuple[float, float] = (0.9, 0.6)) -> Panel:
    """Two layers: the null at .1, the suspect ``suspect`` of the way to base, two floors on either side of the null."""
    rng, null = np.random.default_rng(3), 0.1
    levels = [null + suspect * (b - null) for b in base]
    return Panel(
        suspect=Sides(people(rng, n, levels)), base=Sides(people(rng, n, list(base))),
        null=Sides(people(rng, n, [null, null])),
        floors=(Sides(people(rng, n, [0.12, 0.05])), Sides(people(rng, n, [0.02, 0.02]))),
    )  # fmt: skip


def test_value_floor_and_overall_are_what_their_definitions_say() -> None:
    given = panel()
    found = assess(given, Design(seed=0, least_gap=0.1))
    null, base = given.null.forget.mean(0), given.base.forget.mean(0)
    effects = (given.suspect.forget.mean(0) - null) / (base - null)
    assert found.effects == pytest.approx(effects) and found.value == pytest.approx(effects.max())
    assert found.layer == int(effects.argmax())
    gaps = [floor.forget.mean(0) - null for floor in given.floors]
    assert found.floor == pytest.approx(max((gap / (base - null)).max() for gap in gaps))
    assert isinstance(found.overall, Overall)
    whole = (base - null).sum()
    assert found.overall.value == pytest.approx((given.suspect.forget.mean(0) - null).sum() / whole)
    assert found.overall.floor == pytest.approx(max(abs(gap.sum()) for gap in gaps) / whole)
    assert found.overall.floor > 0.1, "models that never knew may lie below one another, and that is spread as well"


@pytest.mark.parametrize("suspect", [0.0, 0.3, 1.0])
def test_the_interval_is_the_suspects_and_holds_its_value(suspect: float) -> None:
    found = assess(panel(suspect=suspect), Design(seed=0, least_gap=0.1))
    assert isinstance(found.ci95, Interval) and isinstance(found.value, float)
    assert found.ci95.lo - 0.01 <= found.value <= found.ci95.hi + 0.01
    assert found.ci95.lo < suspect + 0.05 and found.ci95.hi > suspect - 0.05
    assert found.ci95.hi - found.ci95.lo < 0.1


@pytest.mark.parametrize(
    ("n", "base", "seen"),
    [(16, (0.9, 0.6), True), (6, (0.9, 0.6), True), (1, (0.9, 0.6), False), (16, (0.15, 0.14), False)],
)
def test_base_is_found_where_it_is_clear_and_large_enough(n: int, base: tuple[float, float], seen: bool) -> None:
    """Six people decide by Student's t, one person has no spread; a gap of .05 is clear and too small to matter."""
    found = assess(panel(n, base=base), Design(seed=0, least_gap=0.1))
    assert found.control.found == seen and found.control.value == 1.0


def test_where_base_reads_no_higher_than_the_null_nothing_can_be_said() -> None:
    found = assess(panel(base=(0.05, 0.02)), Design(seed=0, least_gap=0.1))
    assert isinstance(found.value, Missing) and "blind here" in found.value.missing
    assert not found.control.found


def test_a_layer_that_base_barely_leaves_does_not_divide_by_almost_nothing() -> None:
    given = panel(base=(0.9, 0.101))
    louder = given._replace(suspect=Sides(given.suspect.forget + [0.0, 0.2]))
    found = assess(louder, Design(seed=0, least_gap=0.1))
    assert len(found.effects) == 1 and found.layer == 0


def test_a_differenced_effect_takes_the_holdout_people_off() -> None:
    """A shift of the whole model moves forget and holdout people alike: it is no effect."""
    rng, zero = np.random.default_rng(5), np.zeros((12, 1))
    base = Sides(people(rng, 16, [0.9]), people(rng, 12, [0.1]))
    shifted = Sides(people(rng, 16, [0.4]), people(rng, 12, [0.4]))
    nothing = Sides(np.zeros((16, 1)), zero)
    found = assess(Panel(shifted, base, nothing), Design(seed=0, least_gap=0.1, differenced=True))
    gap = base.forget.mean() - base.holdout.mean()
    assert found.value == pytest.approx((shifted.forget.mean() - shifted.holdout.mean()) / gap)
    assert isinstance(found.value, float) and abs(found.value) < 0.05
    assert "labels permuted" in found.test


# ---- people's means ---------------------------------------------------------------------------------------------
def test_an_item_that_one_model_cannot_score_leaves_every_mean_and_is_counted() -> None:
    rows = toy.rows(5)
    names = np.array(["anna", "anna", "boris", "boris", "clara"])
    people_of, person = np.unique(names, return_inverse=True)
    sheet = PersonRows(rows, (), tuple(people_of), person)
    nan, inf = np.nan, np.inf
    scores = {
        "base": np.array([[1.0], [3.0], [nan], [7.0], [nan]]),
        "suspect": np.array([[2.0], [6.0], [5.0], [inf], [nan]]),
    }
    found = by_person(sheet, scores)
    assert found.n == Count(scored=2, errored=2, unscored=1)
    assert {name: values.tolist() for name, values in found.people.items()} == {"base": [[2.0]], "suspect": [[4.0]]}


def test_a_person_counts_once_however_many_items_there_are() -> None:
    sheet = PersonRows(toy.rows(4), (), ("anna", "boris"), np.array([0, 0, 0, 1]))
    found = by_person(sheet, {"base": np.array([[0.0], [3.0], [6.0], [5.0]])})
    assert found.people["base"].tolist() == [[3.0], [5.0]] and found.n.scored == 4


# ---- sparse readings
def sparse_panel(seed: int, planted: int = 0, others: int = 2, holdout: int = 16, drift: float = 0.0) -> Panel:
    """Sixteen people in four layers, of which the suspect still knows the first few; ``drift`` moves all its people."""
    rng = np.random.default_rng(seed)

    def sides(level: float, moved: float = 0.0) -> Sides:
        people = [level + moved + 0.05 * rng.standard_normal((n, 4)) for n in (16, holdout)]
        return Sides(people[0], people[1] - level if holdout else None)

    base, null, suspect = sides(1.0), sides(0.0), sides(0.0, drift)
    suspect.forget[:planted] += 0.8
    return Panel(suspect, base, null, tuple(sides(0.0) for _ in range(others)))


DESIGN = Design(seed=0, least_gap=0.3, draws=99)


@pytest.mark.thorough
@pytest.mark.parametrize(("others", "holdout"), [(2, 16), (2, 0), (0, 16)])
def test_one_person_of_sixteen_is_seen_by_the_sparse_readings(others: int, holdout: int) -> None:
    for seed in range(20):
        clean, one, four = (assess(sparse_panel(seed, k, others, holdout), DESIGN).readings for k in (0, 1, 4))
        assert clean["people"] == 16 and clean["largest_person"] < 6 < one["largest_person"]
        assert clean["higher_criticism"] < 10 < 15 < four["higher_criticism"] < 25
        assert one["higher_criticism"] > 3.5


def test_the_person_effects_weigh_layers_as_the_overall_effect_does() -> None:
    found, given = sparse_panel(3, 1, others=0), Design(seed=0, least_gap=0.3, draws=99)
    whole = (found.base.forget - found.null.forget).mean(0).sum()
    people = (found.suspect.forget - found.null.forget).sum(1) / whole
    assert found.suspect.holdout is not None and found.null.holdout is not None
    null = (found.suspect.holdout - found.null.holdout).sum(1) / whole
    spread = scipy_stats.median_abs_deviation(null, scale="normal")
    result = assess(found, given)
    assert isinstance(result.overall, Overall) and people.mean() == pytest.approx(result.overall.value)
    expected = (people.max() - np.median(null)) / (spread * np.sqrt(1 + np.pi / 32))
    assert result.readings["largest_person"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.thorough
def test_a_shift_of_the_whole_suspect_is_no_person_where_holdout_people_show_it() -> None:
    for seed in range(20):
        moved, unseen = (assess(sparse_panel(seed, drift=0.5, holdout=n), DESIGN).readings for n in (16, 0))
        assert moved["largest_person"] < 6 < unseen["largest_person"]


def test_without_floor_and_holdout_only_the_number_of_people_is_read() -> None:
    assert assess(sparse_panel(0, 1, others=0, holdout=0), DESIGN).readings == {"people": 16.0}


def test_a_measurement_keeps_the_readings_of_its_probe_and_gets_the_sparse_ones() -> None:
    naming = Naming("p", "n", "causal", "s", "u", "effect")
    empty = blank(naming, "why", Count(scored=1), 16, 0).model_copy(update={"readings": {"own": 1.0}})
    found = assess(sparse_panel(0), DESIGN).onto(empty).readings
    assert set(found) == {"own", "people", "largest_person", "higher_criticism"}


def test_an_interval_over_fewer_people_than_it_holds_for_is_called_unreliable() -> None:
    single, two, five, six = (assess(panel(n), Design(seed=0, least_gap=0.1, draws=99)).test for n in (1, 2, 5, 6))
    assert "over 2 people it is not reliable" in two and "over 5 people it is not reliable" in five
    assert "95 % intervals" in six and "not reliable" not in six and "interval" not in single


@pytest.mark.parametrize(
    ("people", "holdout", "says"),
    [
        (1, 0, "p: sign flips over people, enumerated"),
        (11, 0, "p: Student's t over people, corrected for skewness, Bonferroni over layers"),
        (12, 0, "p: sign flips over people, corrected for skewness, enumerated"),
        (16, 0, "p: sign flips over people, corrected for skewness"),
        (16, 7, "p: Student's t of forget less holdout people, corrected for skewness, Bonferroni over layers"),
        (8, 16, "p: forget/holdout labels permuted over people, corrected for skewness"),
        (1, 16, "p: forget/holdout labels permuted over people, enumerated"),
    ],
)
def test_which_test_judges_is_fixed_by_the_numbers_of_people_and_said(people: int, holdout: int, says: str) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        sides = [
            Sides(level + rng.exponential(0.1, (people, 2)), rng.standard_normal((holdout, 2)) if holdout else None)
            for level in (0.3, 0.9, 0.0)
        ]
        assert assess(Panel(*sides), Design(seed=seed, least_gap=0.1, draws=99)).test.split(";")[0] == says


@pytest.mark.thorough
def test_the_ends_of_the_largest_effect_hold_for_any_layer_that_may_be_the_largest() -> None:
    """Of eight layers without knowledge the largest effect is above 0 by chance; the interval knows that it is."""
    values: list[float] = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        base, null = Sides(1 + 0.1 * rng.standard_normal((16, 8))), Sides(np.zeros((16, 8)))
        largest = assess(Panel(Sides(0.3 * rng.standard_normal((16, 8))), base, null), Design(seed, 0.1, draws=99))
        assert isinstance(largest.ci95, Interval) and isinstance(largest.value, float)
        assert largest.ci95.lo < 0.02 and largest.ci95.lo < largest.value < largest.ci95.hi and largest.ci95.hi > 0
        values.append(largest.value)
    assert np.mean(values) > 0.05
