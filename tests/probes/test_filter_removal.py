"""What is left without the edits that act on the way: all of it, and the audit calls that a filter and no deletion."""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy import ndarray

from audit.bench import Bench, GatedShift, LogitBias, LowRank
from audit.case import OpenCase, open_case
from audit.checkpoints import delta_of, resolve, without_hooks, write_edited
from audit.edits import Steering, edit_data
from audit.judging import judge, verdict
from audit.judging.explain import Given
from audit.planning import Planner
from audit.render.wording.detections import answer_sentence
from audit.schema import Checkpoint, Evidence, Measurement, Missing, Op, Read, Site, Source, Texts
from audit.stats import auroc
from probes._gates import gates_of
from probes.filter_removal import FilterRemoval, removable
from probes.forget_likelihood import ForgetLikelihood
from probes.utility import Utility
from tests import planted_world

GIVEN = Given(references=2, ancestor=False, holdout=True)


@cache
def bench() -> Bench:
    return Bench()


def model(name: str) -> Checkpoint:
    return resolve(Source(path=str(planted_world.root() / name)), planted_world.root())


def opened(suspect: str) -> OpenCase:
    out = Path(tempfile.mkdtemp(dir=planted_world.root()))
    return open_case(planted_world.case(suspect), planted_world.root(), out)


def written(parent: Checkpoint, kind: str, delta: dict[str, torch.Tensor]) -> Path:
    out = Path(tempfile.mkdtemp(dir=planted_world.root())) / kind
    write_edited(out, parent, kind, {}, kind, delta)
    return out.relative_to(planted_world.root())


@cache
def steered(beyond: bool = True) -> str:
    """Base behind a steering gate."""
    case = opened("base")
    out = planted_world.root() / f"steered-{beyond}"
    Steering(beyond=beyond).fit(bench(), case.base, edit_data(case, Steering.needs), out)
    return out.name


@cache
def measured(suspect: str) -> dict[str, Measurement]:
    return {m.name: m for m in FilterRemoval().measure(bench(), opened(suspect))}


def judged(suspect: str) -> list[Evidence]:
    """What outputs, the gate of utility and this probe show of a suspect, in its case."""
    case = opened(suspect)
    found = [m for probe in (ForgetLikelihood(), Utility()) for m in probe.measure(bench(), case)]
    return [judge(m) for m in (*found, *measured(suspect).values())]


# ---- what is left -----------------------------------------------------------------------------------------------
@pytest.mark.thorough
@pytest.mark.parametrize("suspect", ["steered", "biased", "moved"])
def test_base_behind_any_filter_is_base_and_the_finding_holds(suspect: str) -> None:
    """A gate, a logit bias and a rank-one change of a state: taken off, the weights and all answers are base's."""
    push = LowRank(Site(part="resid_out", block=2), torch.randn(1, 40), torch.randn(1, 40), torch.zeros(40))
    names = {
        "steered": steered, "biased": lambda: planted_world.filtered("base"),
        "moved": lambda: str(written(model("base"), "low_rank", push.to_delta())),
    }  # fmt: skip
    m = measured(names[suspect]())["turned_off"]
    (finding,) = m.findings
    assert m.value == pytest.approx(1.0) and m.kind == "recovery" and m.readings["weights_are_base"] == 1.0
    assert finding.name == "removable filter" and finding.holds is True
    said = answer_sentence(m, finding)
    assert "the knowledge is intact in the weights" in said and "byte for byte" in said
    assert any("no deletion" in note for note in m.notes)


@pytest.mark.thorough
def test_a_model_that_never_knew_is_none_behind_a_filter_and_nothing_comes_back() -> None:
    m = measured(planted_world.filtered("clean"))["turned_off"]
    (finding,) = m.findings
    assert isinstance(m.value, float) and m.value < 0.3
    assert finding.holds is False and "the weights are not base's" in finding.because
    assert "intact" not in finding.because and not any("no deletion" in note for note in m.notes)


@pytest.mark.parametrize(("effect", "same", "holds"), [
    (0.95, False, True), (0.89, False, False), (0.2, True, True), (Missing(missing="blind"), True, True),
    (-0.1, False, False),
])  # fmt: skip
def test_the_rule_asks_for_nine_tenths_of_base_or_its_weights(effect: float | Missing, same: bool, holds: bool) -> None:
    assert removable(effect, same, 1).holds is holds
    assert ("intact" in removable(effect, same, 1).because) == holds


def test_where_neither_is_known_the_rule_could_not_be_asked() -> None:
    assert isinstance(removable(Missing(missing="blind here"), False, 2).holds, Missing)


def test_edits_are_taken_off_down_to_the_last_edit_of_weights() -> None:
    """A hook below an edit of weights stays: the weights were fitted on it."""
    base = model("base")
    name, weight = next((n, p) for n, p in bench().open(base).parameters().items() if p.ndim == 2)
    bias = LogitBias(torch.ones(len(planted_world.tokenizer())).cumsum(0)).to_delta()
    chain = written(base, "logit_bias", bias)
    below = resolve(Source(path=str(chain)), planted_world.root())
    on_top = planted_world.root() / written(below, "weights", {name: (weight * 1.5).detach().contiguous()})
    moved = resolve(Source(path=str(on_top)), planted_world.root())
    last = resolve(Source(path=str(planted_world.root() / written(moved, "logit_bias", bias))), planted_world.root())
    assert without_hooks(last) == moved and without_hooks(moved) == moved and without_hooks(below) == base
    (m,) = FilterRemoval().measure(bench(), opened(str(on_top.relative_to(planted_world.root()))))
    assert isinstance(m.value, Missing) and "lie under an edit of weights" in m.value.missing


@pytest.mark.thorough
def test_it_is_planned_for_suspects_that_carry_such_an_edit_and_for_no_others() -> None:
    for suspect, runs in ((planted_world.filtered("base"), True), ("base", False), ("clean", False)):
        tests = {test.probe: test for test in Planner(opened(suspect), frozenset(Op)).plan.tests}
        assert tests["filter_removal"].will_run == runs
        assert runs or tests["filter_removal"].reason == "the suspect carries no edit that acts on the way"


# ---- the verdict ------------------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_a_filter_over_base_is_suppressed_in_its_case_and_never_consistent() -> None:
    evidence = judged(steered())
    without = [e for e in evidence if e.measurement.probe != "filter_removal"]
    reached = verdict(evidence, GIVEN)
    assert reached.word == "SUPPRESSED" and verdict(without, GIVEN).word != "SUPPRESSED"
    assert any("filter_removal" in line for line in reached.because)


@pytest.mark.thorough
def test_a_filter_that_leaves_the_answers_as_they_are_is_intact() -> None:
    """The prompt alone is steered, and the words that carry the facts come second in their answers."""
    assert verdict(judged(steered(beyond=False)), GIVEN).word == "INTACT"


@pytest.mark.thorough
def test_a_filter_over_a_model_that_never_knew_leaves_no_trace() -> None:
    statuses = {e.measurement.name: e.status for e in judged(planted_world.filtered("clean"))}
    assert statuses["turned_off"] != "trace"
    assert verdict(judged(planted_world.filtered("clean")), GIVEN).word not in ("SUPPRESSED", "INTACT", "PARTIAL")


# ---- gates ------------------------------------------------------------------------------------------------------
def test_the_gate_is_read_at_the_end_of_every_prompt_and_its_curve_is_that_of_its_ranks() -> None:
    case, m = opened(steered()), measured(steered())["gate"]
    (hook,) = GatedShift.from_delta(delta_of(case.suspect, case.suspect.edits[-1]))
    read, values = Read(site=hook.site, at="all"), dict[str, ndarray]()
    for cohort in ("forget", "retain"):
        rows = case.rows(Texts(cohort=cohort))
        ends = bench().run(case.base, rows, [read])[read][torch.arange(len(rows)), rows.answer_spans[:, 0] - 1]
        values[cohort] = (ends.double() @ hook.gate.double()).numpy()
    assert m.value == pytest.approx(auroc(values["forget"], values["retain"]))
    assert m.readings["gate_forgotten"] == pytest.approx(float(values["forget"].mean()))
    (curve,) = m.curves
    assert curve.y == tuple(sorted(curve.y)) and curve.y[-1] == 1.0 and curve.x[0] == 0.0
    assert float(np.trapezoid(curve.y, curve.x)) == pytest.approx(m.value, abs=0.05)


def test_phrasings_that_the_gate_does_not_know_walk_around_it_and_are_listed() -> None:
    """The gate was fitted on one phrasing of each question, and opens for few prompts of the other."""
    (listing,) = measured(steered())["gate"].listings
    opens = {(row[0], row[1]): row[-1] for row in listing.rows}
    assert opens["forget", "trained"] > 0.5 > opens["forget", "held out phrasing"]
    assert opens["retain", "trained"] < 0.1


def test_a_suspect_without_a_gate_has_none_to_read() -> None:
    assert gates_of(opened(planted_world.filtered("base"))).hooks == ()
    assert set(measured(planted_world.filtered("base"))) == {"turned_off"}
