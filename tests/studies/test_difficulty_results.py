"""The committed results of the difficulty study: the page shows them, and they bear out what it says."""

from audit.findings import Interval
from audit.forecasting import model
from audit.nouns import Missing
from studies.difficulty import page
from studies.difficulty.knockout import Results as Knockout
from studies.difficulty.results import CudRow, PredictorRow, Results, Value

FOUND = Results.model_validate_json((page.HERE / "results.json").read_bytes())
CUT = Knockout.model_validate_json((page.HERE / "knockout.json").read_bytes())
BY_NAME = {row.name: row for row in FOUND.predictors}
CUDS = {page.WORDS[row.circuits, row.mode, row.part]: row for row in FOUND.cud}


def holds(ci: Interval, x: float = 0.0) -> bool:
    return ci.lo <= x <= ci.hi


def added(row: PredictorRow | CudRow) -> Value:
    assert not isinstance(row.r2_gain, Missing)
    return row.r2_gain


def test_the_committed_tables_are_those_of_the_committed_results() -> None:
    text = (page.HERE / "README.md").read_text(encoding="utf-8")
    assert text.partition(page.BEGIN)[2].partition(page.END)[0].strip() == page.markdown(FOUND, CUT)


def test_the_committed_fit_is_the_study_s() -> None:
    fitted = model.load()
    for name, words in {
        "spearman": "forecast", "plain": "length and loss alone", "ceiling": "other methods (ceiling)",
        "with_pilot": "forecast with one pilot",
    }.items():  # fmt: skip
        assert round(getattr(fitted, name), 4) == round(FOUND.forecast[words].value, 4)
    assert fitted.cud_gain == CUDS["controlled (ours)"].r2_gain.value
    assert fitted.ties == {name: value.value for name, value in FOUND.entangled.items()}
    assert (fitted.worlds, fitted.items) == (FOUND.worlds, FOUND.items) and len(FOUND.worlds) == 6


def test_cud_adds_nothing_but_its_leak() -> None:
    clean = ("controlled (ours)", "cosine margin", "circuits of the logit margin", "published circuits, controlled")
    for name in clean:
        row = CUDS[name]
        assert holds(added(row).ci95) and abs(added(row).value) < 0.006 and row.other_methods.value < 0.1
        assert holds(row.own_shuffled.ci95)
    assert CUDS["controlled (ours)"].other_methods.value <= CUDS["controlled (ours)"].shuffled.value
    published = CUDS["as published"]
    assert added(published).ci95.lo > 0.04 and published.own_shuffled.ci95.lo > 0.15


def test_confidence_tells_and_places_of_circuits_do_not() -> None:
    strongest = sorted(FOUND.predictors, key=lambda row: -abs(row.spearman["all"].value))[:4]
    assert {row.name for row in strongest} == {"gradient_norm", "entropy", "loss", "first_step"}
    others = [row for row in FOUND.predictors if not isinstance(row.r2_gain, Missing)]
    assert {row.name for row in others if added(row).ci95.lo > 0} == {"gradient_norm", "first_step"}
    for name in ("circuit_depth", "circuit_spread", "circuit_source", "key_layer", "key_spread", "path_length"):
        assert added(BY_NAME[name]).value < 0.0015


def test_the_published_claims_fail_but_for_one_small_one() -> None:
    assert [claim.claim for claim in FOUND.claims if claim.holds] == [
        "hard items have more of their circuit in the last third"
    ]
    late = next(claim.value.value for claim in FOUND.claims if claim.holds)
    paths = next(claim.value.ci95 for claim in FOUND.claims if "paths" in claim.claim)
    assert late < 0.15 and paths.hi < 0


def test_facts_taught_more_often_are_harder() -> None:
    often = FOUND.frequency
    assert often["spearman"].ci95.lo > 0.2 and often["spearman"].agree == 6
    assert often["least often"].ci95.hi < 0 < often["most often"].ci95.lo


def test_the_forecast_beats_length_and_loss_falls_short_of_the_hope_and_covers() -> None:
    said = FOUND.forecast
    share = said["forecast"].value / said["other methods (ceiling)"].value
    assert 0.55 < share < 0.6 and said["forecast"].value > said["length and loss alone"].value + 0.04
    assert said["forecast with one pilot"].value > said["forecast"].value + 0.05
    assert holds(said["inside the 90 % interval"].ci95, 0.9)
    by = {name: value.value for name, value in FOUND.forecast_by_method.items()}
    assert min(by, key=lambda name: by[name]) == "rmu_shallow" and by["refusal"] < 0.3
    assert all(by[name] > 0.45 for name in by if name not in ("rmu_shallow", "refusal"))


def test_the_stability_gate_fails_and_ties_do_not_say_who_is_damaged() -> None:
    assert all(value.ci95.hi < 0.6 for value in FOUND.stability.values())
    ties = FOUND.entangled
    assert max(ties["circuit_cosine"].value, ties["gradient_cosine"].value) < 0.1 < ties["one_method"].ci95.lo
    assert ties["one_method"].value > 0.3
    assert FOUND.completeness_gap["partner_0"].ci95.hi < 0.03


def test_few_edges_carry_the_recall_of_the_small_world_and_more_that_of_the_story_model() -> None:
    world, stories = FOUND.faithful
    kept = dict(zip(world.edges, world.median, strict=True))
    assert world.edges[2] / world.all_edges <= 0.1 and kept[world.edges[2]] > 0.99
    kept = dict(zip(stories.edges, stories.median, strict=True))
    assert kept[340] < 0.55 and kept[1191] > 0.9
    assert all(abs(one.median[-1] - 1) < 1e-3 for one in FOUND.faithful)


def test_fakes_use_base_s_circuit_and_references_do_not() -> None:
    places = {(one.model, one.world): one for one in CUT.models}
    for world in CUT.worlds:
        for name in ("head_edit", "last_layer"):
            assert places[name, world].ci95.lo > 0.25 and places[name, world].place < 0.9
        assert places["refusal", world].ci95.lo > 0.25
        assert places["reference_0", world].place < 0.2
        assert places["reference_0", world].ci95.hi < 0.4
