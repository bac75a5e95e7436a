"""The zoo's people cut down: the same people of every model, judged as a smaller case would be, and counted."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as forall
from hypothesis import settings
from hypothesis import strategies as st

from audit.calibration import Score, ScoredModel, WorldScores, world_path, write_world
from audit.pools import Assessed, panels_path, write_panels
from audit.probing import Design, Naming, Panel, Sides, assess, blank
from audit.schema import Control, Count, Missing
from studies.pages import with_section
from studies.provenance import stamp
from studies.small_cases import page, people, study
from studies.small_cases.counts import SmallCases, Truth
from studies.small_cases.people import FITS, FITS_NOTHING, cut, people_of, thinned
from tests.known_truth import World, simulated

NAMES = tuple(f"forget-{n:03d}" for n in range(32))
NOTHING = Missing(missing="none")


def _panel(seed: int, level: float, holdout: bool = True) -> Panel:
    rng = np.random.default_rng(seed)

    def sides(mean: float) -> Sides:
        return Sides(mean + 0.2 * rng.normal(size=(32, 2)), 0.2 * rng.normal(size=(16, 2)) if holdout else None)

    return Panel(sides(level), sides(1.0), sides(0.0), (sides(0.0),), NAMES)


def _measured(name: str, seed: int, level: float) -> tuple[Score, Assessed]:
    probe, measurement = name.split(".")
    kind = {"forget_likelihood": "output", "reverse_patch": "causal"}.get(probe, "decoding")
    naming = Naming(probe, measurement, kind, "planted", "effect", "effect")  # type: ignore[arg-type]
    design, panel = Design(seed, 0.2, draws=999, name=name), _panel(seed, level, probe != "reverse_patch")
    result = assess(panel, design)
    score = Score.of(result.onto(blank(naming, "", Count(scored=32), 32, seed)), {n: n for n in NAMES})
    return score, Assessed(panel, design, tuple(Score.model_fields), tuple(result.readings))


def _gate(name: str) -> Score:
    naming = Naming("utility", name, "gate", "planted", "ratio", "ratio")
    one = blank(naming, "", Count(scored=32), 32, 0).model_copy(
        update={"value": 1.0, "positive_control": Control(value=1.0, ci95=NOTHING, found=True)}
    )
    return Score.of(one)


@pytest.fixture(scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scored world of three models that are counted and one that is not, with its people."""
    folder, like = tmp_path_factory.mktemp("small"), simulated(7, World()).models[0]
    truths = {"reference_0": ("retrain", "clean", 0.0), "base": ("base", "knowing", 1.0),
              "head_edit": ("head_edit", "knowing", 1.0), "dose_2": ("dose", "knowing", 0.1)}  # fmt: skip
    models, kept = list[ScoredModel](), dict[str, dict[str, Assessed]]()
    for n, (name, (mechanism, pool, level)) in enumerate(truths.items()):
        said = {test: _measured(test, 10 * n + k, level) for k, test in enumerate((*FITS_NOTHING, *FITS))}
        if name == "head_edit":
            said[FITS_NOTHING[0]] = _measured(FITS_NOTHING[0], 99, 0.0)
        told = {"model": name, "mechanism": mechanism, "pool": pool, "world": 107}
        scores = (*(score for score, _ in said.values()), _gate("retain"), _gate("general"))
        models.append(like.model_copy(update=told | {"scores": scores}))
        kept[name] = thinned({test: one for test, (_, one) in said.items()})
    write_world(world_path(folder, 107), WorldScores(world=107, recipe={}, stages_cpu_s={}, behaviours={},
                                                     models=tuple(models)))  # fmt: skip
    write_panels(panels_path(folder, 107), kept)
    return folder


@settings(max_examples=30, deadline=None)
@forall(n=st.integers(1, 32), seed=st.integers(0, 2**31), holdout=st.booleans())
def test_a_smaller_case_has_the_same_people_of_every_model(n: int, seed: int, holdout: bool) -> None:
    whole = _panel(0, 0.5)
    small = cut(whole, n, seed, holdout)
    chosen = [NAMES.index(name) for name in small.names]
    assert len(set(chosen)) == n
    sides = zip((small.suspect, small.base, small.null, *small.floors),
                (whole.suspect, whole.base, whole.null, *whole.floors), strict=True)  # fmt: skip
    for few, every in sides:
        assert (few.forget == every.forget[chosen]).all()
        assert few.holdout is every.holdout if holdout else few.holdout is None
    assert cut(whole, n, seed, holdout).names == small.names
    if 4 <= n <= 28:
        assert len({cut(whole, n, seed + k, holdout).names for k in range(4)}) > 1


def test_what_is_kept_is_what_the_study_reads_to_one_part_in_two_thousand(tmp_path: Path) -> None:
    measured = {name: _measured(name, 0, 0.5)[1] for name in (*FITS_NOTHING, *FITS, "forget_likelihood.truth_ratio")}
    panels = tmp_path / "full"
    write_panels(panels_path(panels, 3), {"base": measured})
    path = people.keep(3, panels, tmp_path / "people")
    again = people_of(3, tmp_path / "people")["base"]
    assert set(again) == {*FITS_NOTHING, *FITS}
    assert path.stat().st_size < 0.5 * panels_path(panels, 3).stat().st_size
    for name, one in again.items():
        old, new = measured[name].panel.suspect.forget, one.panel.suspect.forget
        assert new.dtype == np.float64 and np.allclose(new, old, rtol=5e-4, atol=1e-6) and (new != old).any()


@pytest.mark.thorough
def test_every_small_case_of_a_counted_model_is_judged_by_its_own_people(
    _world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "GROUPS", (2, 12, 32))
    said = study.audits_of_world(107, _world, _world)
    assert {s.model for s in said} == {"reference_0", "base", "head_edit"}
    cases = len(study.settings()) // len(study.GROUPS)
    assert len(said) == 3 * cases * ((len(study.GROUPS) - 1) * study.DRAWS + 1)
    whole = [s for s in said if s.setting.groups == 32]
    assert all((s.word in study.TRACE) == (s.truth == "knowing") for s in whole)
    for s in said:
        assert len(s.tests) == len(FITS_NOTHING) + s.setting.fitted * len(FITS)
        flips = [test for name, test, *_ in s.tests if name.startswith("reverse_patch")]
        assert all("holdout" not in test for test in flips)
        if not s.setting.holdout:
            assert all("labels" not in test for _, test, *_ in s.tests), "no labels without holdout people"


def _said(world: int, truth: Truth, word: str, groups: int = 8, draw: int = 0, found: bool = False) -> study._Said:  # pyright: ignore[reportPrivateUsage]
    tests = (("a.b", "some test", found, False),)
    return study._Said(study.Setting(groups, True, False), draw, world, truth, truth, word, tests)  # pyright: ignore


def _cell(said: Sequence[object], groups: int = 8) -> study.Cell:
    cells = study.counted(said)  # type: ignore[arg-type]
    return next(c for c in cells if (c.groups, c.holdout, c.fitted) == (groups, True, False))


def test_mistakes_are_counted_by_world_in_the_first_draw_and_audits_in_all() -> None:
    said = [
        _said(1, "clean", study.SILENT), _said(1, "clean", "PARTIAL", found=True), _said(2, "clean", "INCONCLUSIVE"),
        _said(3, "clean", "INVALID"), _said(3, "clean", "INTACT", draw=1), _said(1, "clean", "INTACT", groups=2),
        _said(1, "knowing", "SUPPRESSED", found=True), _said(2, "knowing", study.SILENT), _said(2, "knowing", "INTACT"),
    ]  # fmt: skip
    cell = _cell(said)
    clean, edited, knowing = cell.words
    assert (clean.wrong.k, clean.wrong.n, knowing.wrong.k, knowing.wrong.n) == (1, 3, 1, 2)
    assert (clean.trace, clean.silent, clean.undecided, clean.invalid, clean.audits) == (2, 1, 1, 1, 5)
    assert edited.audits == edited.wrong.n == 0 and knowing.silent == 1
    (test,) = cell.tests
    assert (test.found, test.knowing, test.alarms, test.clean) == (1, 3, 1, 5) and test.tests == {"some test": 8}
    named = study.exceptions(said)  # type: ignore[arg-type]
    assert named == (
        "8 groups, holdout, world 1, clean: PARTIAL", "2 groups, holdout, world 1, clean: INTACT",
        "8 groups, holdout, world 2, knowing: CONSISTENT WITH NEVER TRAINED",
    )  # fmt: skip


def test_the_page_shows_the_counts() -> None:
    said = [_said(1, "clean", study.SILENT), _said(1, "knowing", "PARTIAL", found=True)]
    results = SmallCases(
        stamp=stamp(0), command="x", worlds=1, draws=2,
        cells=study.counted(said), exceptions=(),  # type: ignore[arg-type]
    )  # fmt: skip
    made = page.tables(results)
    assert "| 8 | 16 | 0/1 (≤ 95 %) | 0/1 (≤ 95 %) | 0, 1, 0 of 1 | 0 of 0 | 1, 0, 0 of 1 |" in made
    assert with_section(f"# x\n{page.START}\nold\n{page.END}\nafter\n", made) == f"# x\n{made}\nafter\n"


@pytest.mark.skipif(not study.RESULTS.is_file(), reason="the study has not been run on this checkout")
def test_the_committed_page_is_that_of_the_committed_results_and_no_fake_passes_as_clean() -> None:
    results = SmallCases.model_validate_json(study.RESULTS.read_bytes())
    assert page.tables(results) in study.README.read_text(encoding="utf-8")
    assert {(c.groups, c.holdout, c.fitted) for c in results.cells} == set(study.settings())
    for cell in results.cells:
        assert cell.words[2].silent == 0 or any("CONSISTENT" in name for name in results.exceptions) or cell.fitted
    sizes = [path.stat().st_size for path in people.PEOPLE.glob("world-*.npz")]
    assert len(sizes) == results.worlds and sum(sizes) < 5e6
