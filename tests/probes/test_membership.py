"""What can be told of membership, of input gradients and of two checkpoints, on a tiny world of known truth."""

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from audit.bench import Bench
from audit.case import OpenCase, open_case
from audit.judging import judge
from audit.schema import Interval, Measurement, Missing, Texts
from probes._bag_of_words import blind_scores
from probes.input_sensitivity import InputSensitivity, input_norms, right_logit
from probes.membership import Membership
from probes.release_risk import ReleaseRisk
from tests import planted_world


def opened(suspect: str) -> OpenCase:
    return open_case(planted_world.case(suspect), planted_world.root(), Path(tempfile.mkdtemp()))


@cache
def membership(suspect: str) -> dict[str, Measurement]:
    return {m.name: m for m in Membership().measure(Bench(), opened(suspect))}


@cache
def release(suspect: str) -> Measurement:
    (measured,) = ReleaseRisk().measure(Bench(), opened(suspect))
    return measured


def test_uncalibrated_traces_are_listed_and_never_decide() -> None:
    for m in membership("base").values():
        assert judge(m).status == "listed" and judge(m).outcome == "inconclusive"


@pytest.mark.thorough
def test_base_behind_a_filter_is_a_member_by_answers_and_by_gradients() -> None:
    """Values of the answers are made unlikely, and weights are left alone."""
    hidden = planted_world.filtered("base")
    report_text = membership(hidden)["over_alternates"]
    assert isinstance(report_text.p, float) and report_text.p < 0.01
    (over, _) = InputSensitivity().measure(Bench(), opened(hidden))
    assert over.value == pytest.approx(1.0, abs=1e-4) and isinstance(over.p, float) and over.p < 0.01


def test_published_table_has_every_statistic_of_every_model_and_the_words_alone() -> None:
    table = membership("clean")["auroc"]
    (listing,) = table.listings
    cells = {(row[0], row[1]): row for row in listing.rows}
    assert cells["loss", "never trained"][2] == pytest.approx(table.readings["auroc_loss_null"])
    assert ("the words alone", "none") in cells and ("windows", "never trained") not in cells
    for row in listing.rows:
        area, lo, hi = row[2:5]
        assert isinstance(area, float) and isinstance(lo, float) and isinstance(hi, float) and lo <= area <= hi
    base = membership("base")["auroc"].readings
    assert base["auroc_loss_suspect"] > 0.9 > 0.7 > table.readings["auroc_loss_suspect"]


def test_iam_tells_cohorts_apart_in_a_model_that_saw_neither() -> None:
    """Its published area is no evidence: base knows forget items alone, and the way to base is long for these."""
    table = membership("clean")["auroc"]
    assert table.readings["auroc_iam_published_suspect"] < 0.3 and table.readings["auroc_iam_published_floor0"] < 0.3
    assert any("saw neither" in note for note in table.notes)
    assert table.readings["iam_completeness_suspect"] > 0.8 > 0.3 > table.readings["iam_completeness_base"]


def test_words_that_give_a_cohort_away_are_found_without_any_model() -> None:
    member = np.arange(40) < 20
    group = np.arange(40) // 2
    report_text = [f"{'red' if m else 'blue'} word{i}" for i, m in enumerate(member)]
    alike = [f"word{i % 3} thing{i % 5}" for i in range(40)]
    result, none = (blind_scores(texts, member, group, 0) for texts in (report_text, alike))
    assert result is not None and result[member].min() > result[~member].max()
    assert none is not None and abs(none[member].mean() - none[~member].mean()) < 1
    assert blind_scores([" "] * 40, member, group, 0) is None
    assert blind_scores(report_text, member, np.where(member, 0, group), 0) is None, (
        "one group has no other to learn from"
    )


def test_norms_of_input_gradients_are_autograds_row_by_row() -> None:
    case = opened("base")
    rows = case.rows(Texts(cohort="forget")).take(torch.arange(6))
    result = input_norms(Bench(token_budget=24), case.base, rows, right_logit)
    model = AutoModelForCausalLM.from_pretrained(planted_world.root() / "base").eval()
    for i in range(len(rows)):
        ids = rows.ids[i, : int(rows.lengths[i])]
        embedded = model.get_input_embeddings()(ids).detach()[None].requires_grad_()
        logits = model(inputs_embeds=embedded).logits[0]
        content = torch.nonzero(rows.key[i, : len(ids)])[:, 0]
        (slope,) = torch.autograd.grad(torch.stack([logits[n - 1, ids[n]] for n in content]).mean(), embedded)
        assert result[i] == pytest.approx(float(slope.norm()), rel=1e-4)
    nothing = replace(rows, key=torch.zeros_like(rows.key))
    assert np.isnan(input_norms(Bench(), case.base, nothing, right_logit)).all()


def test_both_checkpoints_give_away_what_was_forgotten_and_so_do_they_after_exact_retraining() -> None:
    risk = release("clean")
    (listing,) = risk.listings
    counts = {(row[0], row[1]): row[3] for row in listing.rows}
    assert counts["forget", "base and suspect"] == counts["forget", "base and never trained"] == 32
    assert isinstance(counts["forget", "suspect"], int) and counts["forget", "suspect"] < 8
    assert risk.readings["named_by_difference_suspect"] > 0.9
    assert risk.value == 1.0 and isinstance(risk.ci95, Interval) and risk.ci95.lo < 1.0
    assert any("no sign of failed unlearning" in note for note in risk.notes)


def test_release_risk_tests_nothing_and_is_listed_alone() -> None:
    risk = release("clean")
    assert risk.kind == "context" and isinstance(risk.p, Missing) and isinstance(risk.positive_control, Missing)
    assert judge(risk).status == "listed" and isinstance(risk.items, Missing)


@pytest.mark.parametrize(
    ("probe", "setting"),
    [(Membership, {"min_k": 0.0}), (Membership, {"draws": 3}), (InputSensitivity, {"most_alternates": 0}),
     (ReleaseRisk, {"guidance": 0.5}), (ReleaseRisk, {"reach": 0}), (ReleaseRisk, {"recall": 1.0})],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(probe: type, setting: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        probe(**setting)
