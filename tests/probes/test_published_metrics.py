"""What goes by a published name is the published number: recomputed here from bare forwards, without the bench."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import ndarray
from scipy.stats import ks_2samp
from transformers import AutoModelForCausalLM, AutoTokenizer

from audit.bench import Bench
from audit.case import OpenCase, load_case, open_case
from audit.planning import Planner
from audit.plugins import discover
from audit.probing import Probe, case_models_of
from audit.probing.outputs import perturbed_answers, variant_losses, without_variants
from audit.schema import Item, Measurement, Missing, Op, Texts
from audit.storage import Store
from audit.zoo import Built
from probes import _aggregates
from tests import planted_world
from tests.conformance.test_probes import CountingBench

PROBES = discover("probes", Probe)
MOST = 7
"""As many other values as an attribute of the planted world has."""
ROLES = ("suspect", "base", "null")
PLACES = {"suspect": "clean", "base": "base", "null": "null"}


# ---- bare forwards ----------------------------------------------------------------------------------------------
class Asked(NamedTuple):
    """A question and one of its answers."""

    question: str
    answer: str


class Bare:
    """A checkpoint opened by transformers alone."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()

    def losses(self, asked: Sequence[Asked]) -> ndarray:
        """Mean negative log-likelihood (nats) of all answer tokens, after the question and a space; one row a pass."""
        losses: list[float] = []
        for question, answer in asked:
            before = len(self.tokenizer(question)["input_ids"])
            ids = self.tokenizer(f"{question} {answer}", return_tensors="pt")["input_ids"]
            with torch.no_grad():
                logprob = self.model(ids).logits[0].double().log_softmax(-1)
            losses.append(-float(logprob[range(before - 1, ids.shape[1] - 1), ids[0, before:]].mean()))
        return np.array(losses)

    def ratio(self, item: Item) -> float:
        """P(perturbed)/P(paraphrased): the mean loss of *all* perturbed answers, then the exponential."""
        assert item.paraphrased_answer is not None
        answers = (item.paraphrased_answer, *item.perturbed_answers)
        paraphrased, *perturbed = self.losses([Asked(item.question, answer) for answer in answers])
        return float(np.exp(-np.mean(perturbed)) / (np.exp(-paraphrased) + 1e-10))


def closer_to_1_better(ratios: ndarray) -> float:
    return float(np.minimum(ratios, 1 / (ratios + 1e-10)).mean())


def forget_quality(measurements: Sequence[Measurement]) -> Measurement:
    return next(m for m in measurements if m.name == "forget_quality")


# ---- the demonstration ------------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_the_five_variant_numbers_of_the_demonstrations_refusal_come_out_of_bare_forwards(
    zoo: Built, tmp_path: Path
) -> None:
    place = zoo.cases["refusal"]
    case = open_case(load_case(place), place.parent, tmp_path)
    items = case.items(Texts(cohort="forget"))
    assert len(items) == 96 and {len(item.perturbed_answers) for item in items} == {5}
    roles = case.case.roles
    suspect, null = (Bare(place.parent / source.path) for source in (roles.suspect, roles.references[0]))
    audited, retrained = (np.array([model.ratio(item) for item in items]) for model in (suspect, null))
    measured = forget_quality(PROBES["forget_likelihood"](permutations=99).measure(Bench(), case))
    ours, tested = measured.readings, ks_2samp(audited, retrained)
    assert ours["truth_ratio_closer_to_1_better_suspect"] == pytest.approx(closer_to_1_better(audited), rel=1e-6)
    assert (measured.value, ours["forget_quality_p"]) == pytest.approx((tested.statistic, tested.pvalue), rel=1e-9)
    assert "every perturbed answer: 5 an item; all answer tokens" in measured.statistic
    # processors differ in the fifth digit
    assert ours["truth_ratio_closer_to_1_better_suspect"] == pytest.approx(0.7647, abs=5e-4)
    assert ours["forget_quality_p"] == pytest.approx(2.894e-13, rel=0.05)


# ---- any number of variants -------------------------------------------------------------------------------------
def others(item: Item) -> tuple[str, ...]:
    """Every perturbed answer that an item of the planted world can have."""
    values = planted_world.VALUES[item.attribute or ""]
    return tuple(f"the {value}" for value in values if value != item.key)


def opened(
    folder: Path, counts: Sequence[int], paraphrased: bool = True, swapped: dict[int, str] | None = None
) -> OpenCase:
    """The planted world in which item i has ``counts[i]`` perturbed answers (in turns); ``swapped`` replaces some."""
    folder.mkdir(exist_ok=True)
    for role in ("base", "clean", "null", "floor"):
        if not (folder / role).exists():
            (folder / role).symlink_to(planted_world.root() / role)
    for path in (planted_world.root() / f"{cohort}.jsonl" for cohort in ("forget", "retain", "holdout")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for i, row in enumerate(rows):
            item = Item.model_validate(row)
            chosen = list(others(item)[: counts[i % len(counts)]])
            for n, answer in (swapped or {}).items():
                chosen[n : n + 1] = [answer] if n < len(chosen) else []
            row["perturbed_answers"] = chosen
            if not paraphrased:
                del row["paraphrased_answer"]
        (folder / path.name).write_text("\n".join(map(json.dumps, rows)) + "\n")
    return open_case(planted_world.case("clean"), folder, folder / "out")


@cache
def bare(role: str) -> Bare:
    return Bare(planted_world.root() / PLACES[role])


@cache
def loss(role: str, asked: Asked) -> float:
    return float(bare(role).losses([asked])[0])


def expected(role: str, items: Sequence[Item]) -> ndarray:
    """Truth ratios of the items that have perturbed answers, each over all of its own."""
    ratios = [
        np.exp(-np.mean([loss(role, Asked(item.question, answer)) for answer in item.perturbed_answers]))
        / (np.exp(-loss(role, Asked(item.question, item.paraphrased_answer or ""))) + 1e-10)
        for item in items if item.perturbed_answers
    ]  # fmt: skip
    return np.array(ratios)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("variants")


@pytest.fixture(scope="module")
def bench(place: Path) -> Bench:
    return Bench(store=Store(place / "store"))


@pytest.mark.thorough
@settings(max_examples=6)
@given(counts=st.lists(st.integers(0, MOST), min_size=3, max_size=5).filter(any))
def test_every_perturbed_answer_of_every_item_is_read_however_many_each_has(
    counts: list[int], place: Path, bench: Bench
) -> None:
    case = opened(place / "world", counts)
    items = case.items(Texts(cohort="forget"))
    scored = sum(bool(item.perturbed_answers) for item in items)
    measured = _aggregates.forget_quality(bench, case, case_models_of(case))
    if not scored:
        assert isinstance(measured.value, Missing)
        return
    ratios = {role: expected(role, items) for role in ROLES}
    for role in ROLES:
        ours = measured.readings[f"truth_ratio_closer_to_1_better_{role}"]
        assert ours == pytest.approx(closer_to_1_better(ratios[role]), rel=1e-5)
    assert measured.value == pytest.approx(ks_2samp(ratios["suspect"], ratios["null"]).statistic)
    assert (measured.n.scored, measured.n.unscored) == (scored, len(items) - scored)
    assert f"every perturbed answer: {perturbed_answers(case, Texts(cohort='forget'))} an item" in measured.statistic
    retained = case.items(Texts(cohort="retain"))
    readings = PROBES["utility"]().measure(bench, case)[0].readings
    if any(item.perturbed_answers for item in retained):
        for role in ("suspect", "base"):
            true_better = np.maximum(0, 1 - expected(role, retained)).mean()
            assert readings[f"tofu_truth_ratio_{role}"] == pytest.approx(true_better, rel=1e-5)


@pytest.mark.sampled
@pytest.mark.parametrize("at", range(MOST))
def test_another_answer_in_any_place_is_another_number(at: int, place: Path, bench: Bench) -> None:
    plain = opened(place / "plain", [MOST])
    changed = opened(place / "changed", [MOST], swapped={at: "the the"})
    texts = Texts(cohort="forget")
    before, after = (variant_losses(bench, case, case.suspect, texts, "answer") for case in (plain, changed))
    assert before is not None and after is not None
    assert (before.paraphrased == after.paraphrased).all() and (before.perturbed != after.perturbed).all()
    first = [variant_losses(bench, case, case.suspect, texts, "answer", 3) for case in (plain, changed)]
    assert (first[0].perturbed == first[1].perturbed).all() == (at >= 3), "our own ratio reads the first three"


def test_a_perturbed_answer_that_a_model_gives_no_number_for_is_not_passed_over(
    place: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from audit.probing import outputs

    case, texts = opened(place / "broken", [4, 2]), Texts(cohort="forget")
    fourth = case.rows(Texts(cohort="forget", answer="perturbed", index=3))
    means = outputs.row_means
    monkeypatch.setattr(
        outputs, "row_means", lambda x, rows, at: means(x, rows, at) * (np.nan if rows is fourth else 1.0)
    )
    losses = variant_losses(bench, case, case.suspect, texts, "answer")
    assert losses is not None
    four = [len(item.perturbed_answers) == 4 for item in case.items(texts)]
    assert (np.isnan(losses.perturbed[:, 0]) == four).all() and any(four) and not all(four)


@pytest.mark.thorough
def test_all_perturbed_answers_are_planned_priced_and_fetched_ahead(place: Path) -> None:
    case = opened(place / "planned", [2, MOST, 0])
    planner = Planner(case, frozenset(Op))
    running = [planned for planned in planner.running if planned.name in ("forget_likelihood", "utility")]
    own = CountingBench(store=Store(place / "fetched"))
    fetches = planner.fetches(running)
    for cohort, models in (("forget", 4), ("holdout", 4), ("retain", 2)):
        read = [f.texts.index for f in fetches if (f.texts.cohort, f.texts.answer) == (cohort, "perturbed")]
        assert sorted(read) == sorted([*range(MOST)] * models)
    for fetch in fetches:
        own.run(case.checkpoint(fetch.role, fetch.reference), case.rows(fetch.texts), fetch.reads)
    fetched, own.tokens = own.tokens, 0
    for planned in running:
        planned.probe.measure(own, case)
    assert own.tokens == 0 and fetched > 0, "nothing is left to compute"


# ---- none ------------------------------------------------------------------------------------------------------
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("counts", "paraphrased", "reason"),
    [
        ([3], False, "a truth ratio needs a paraphrased answer, and the items have perturbed answers alone"),
        ([0], True, "a truth ratio needs a paraphrased and perturbed answers, and the items have a paraphrased answer"),
        ([0], False, "a truth ratio needs a paraphrased and perturbed answers, and the items have neither"),
    ],
)
def test_what_a_truth_ratio_lacks_is_said(
    counts: list[int], paraphrased: bool, reason: str, place: Path, bench: Bench
) -> None:
    case = opened(place / "lacking", counts, paraphrased)
    assert without_variants(case, Texts(cohort="forget")).startswith(reason)
    measurements = PROBES["forget_likelihood"](permutations=19).measure(bench, case)
    for name in ("truth_ratio", "forget_quality"):
        value = next(m.value for m in measurements if m.name == name)
        assert isinstance(value, Missing) and value.missing.startswith(reason)
    gate = PROBES["utility"]().measure(bench, case)[0]
    assert any(reason in note for note in gate.notes) and not any("truth_ratio" in key for key in gate.readings)
