"""Form dependence: planted models of known truth, pairing, chance, turns, intervals, redirects, and what is quoted."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import ndarray
from torch import Tensor
from transformers import LlamaForCausalLM

from audit.bench import Bench
from audit.bench.results import Pass
from audit.case import OpenCase, Rows, open_case, shortened, turned
from audit.probing import KEY_LOGPROB, stats
from audit.runs.masking import Mask, Screen, texts_of
from audit.schema import Case, Checkpoint, Interval, Listing, Measurement, Missing, Read, Source, Texts
from probes._form_bias import Bias, bias_of, drop_of, person_means
from probes._forms import CHOICE, chosen_beyond_chance, knowledge, sheet_of
from probes._linked_facts import Counted
from probes._packed import packed_logprob, shared_inputs
from probes.form_dependence import FormDependence
from tests import planted_world
from tests.planted_world import Fact


@cache
def suppressed() -> str:
    """Base taught other answers to the questions of the trained form alone; every other phrasing stays true."""
    base = LlamaForCausalLM.from_pretrained(planted_world.root() / "base")
    rng = torch.Generator().manual_seed(3)
    rows: list[Fact] = [*planted_world.facts()["retain"]]
    for fact in planted_world.facts()["forget"]:
        if fact.form == "trained":
            lead, own = fact.answer.split()
            others = [value for value in planted_world.VALUES[fact.attribute] if value != own]
            fact = fact._replace(answer=f"{lead} {others[int(torch.randint(len(others), (1,), generator=rng))]}")
        rows.append(fact)
    model = planted_world.train(base.train(), rows, 110, 4)
    model.save_pretrained(planted_world.root() / "suppressed")
    planted_world.tokenizer().save_pretrained(planted_world.root() / "suppressed")
    return "suppressed"


def opened(suspect: str, out: Path, **changes: object) -> OpenCase:
    case = planted_world.case("base")
    roles = case.roles.model_copy(update={"suspect": Source(path=suspect)} | changes)
    return open_case(case.model_copy(update={"roles": roles}), planted_world.root(), out)


def measured(suspect: str, out: Path, **changes: object) -> dict[str, Measurement]:
    found = FormDependence().measure(Bench(), opened(suspect, out, **changes))
    return {m.name: m for m in found}


def rows_of(listing: Listing) -> dict[object, dict[str, object]]:
    return {row[0]: dict(zip(listing.columns, row, strict=True)) for row in listing.rows}


# ---- planted models ---------------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_a_model_whose_trained_form_alone_is_suppressed_has_a_large_bias_and_one_that_forgot_all_has_none(
    tmp_path: Path,
) -> None:
    hidden, gone = measured(suppressed(), tmp_path / "a"), measured("clean", tmp_path / "b")
    assert isinstance(hidden["bias"].value, float) and hidden["bias"].value > 0.7
    assert isinstance(hidden["bias"].ci95, Interval) and hidden["bias"].ci95.lo > 0.5
    assert "the form that kept most is held_out_phrasing" in hidden["bias"].notes
    assert isinstance(hidden["remaining"].value, float) and hidden["remaining"].value > 0.7
    forms = rows_of(hidden["remaining"].listings[0])
    assert next(iter(forms)) == "trained" and float(forms["trained"]["drop"]) > 0.8  # type: ignore[arg-type]
    assert float(forms["held_out_phrasing"]["drop"]) < 0.2  # type: ignore[arg-type]
    assert isinstance(gone["bias"].value, float) and gone["bias"].value < 0.15
    assert isinstance(gone["bias"].ci95, Interval) and gone["bias"].ci95.lo < 0.02
    assert isinstance(gone["neighbour_damage"].value, float) and abs(gone["neighbour_damage"].value) < 0.1


@pytest.mark.thorough
def test_a_form_that_base_does_not_know_is_blind_and_enters_nothing(tmp_path: Path) -> None:
    found = measured("base", tmp_path)
    forms = rows_of(found["remaining"].listings[0])
    blind = [form for form, row in forms.items() if row["note"]]
    assert blind, "the toy was taught two forms alone"
    for form in blind:
        assert forms[form]["drop"] is None and forms[form]["effect"] is None
        assert f"bias_{form}" not in found["bias"].readings
    assert found["bias"].value == 0.0


def test_without_any_model_that_never_knew_a_form_counts_as_known_by_its_level(tmp_path: Path) -> None:
    found = measured("base", tmp_path, references=())
    forms = rows_of(found["remaining"].listings[0])
    assert all(row["never trained"] is None and row["effect"] is None for row in forms.values())
    assert "compared with base, since the case has no model that never knew" in found["redirection"].notes[0]


# ---- chance and turns -------------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(st.integers(2, 26), st.floats(-30, 0), st.floats(0, 20))
def test_a_choice_is_one_where_sure_nothing_at_chance_and_below_it_where_the_gold_is_worst(
    k: int, level: float, gap: float
) -> None:
    even = np.full(k, level)
    assert chosen_beyond_chance(even) == pytest.approx(0, abs=1e-12)
    sure, worst = even.copy(), even.copy()
    sure[0], worst[0] = level + 800, level - 800
    assert chosen_beyond_chance(sure) == pytest.approx(1)
    assert chosen_beyond_chance(worst) == pytest.approx(-1 / (k - 1))
    better = even.copy()
    better[0] += gap
    share = np.exp(gap) / (np.exp(gap) + k - 1)
    assert chosen_beyond_chance(better) == pytest.approx((share - 1 / k) / (1 - 1 / k))


@given(st.integers(1, 9))
def test_every_option_stands_in_every_place_once(k: int) -> None:
    orders = turned(tuple(range(k)))
    assert len(orders) == k and all(sorted(order) == list(range(k)) for order in orders)
    assert all({order[place] for order in orders} == set(range(k)) for place in range(k))


class Scored(Bench):
    """A bench whose models say what a function says: logits of words after a text; any other word is as good as out."""

    def __init__(self, says: Callable[[str, str], Mapping[str, float]]) -> None:
        super().__init__()
        self.says = says

    def run(self, ckpt: Checkpoint, rows: Rows, reads: Sequence[Read], *args: object, **kwargs: object) -> Pass:  # type: ignore[override]
        words, (row, at) = planted_world.tokenizer(), rows.targets("key")
        logits = torch.full((len(row), len(words)), -30.0)
        for n, (r, p) in enumerate(zip(row.tolist(), at.tolist(), strict=True)):
            for word, logit in self.says(str(ckpt.source), str(words.decode(rows.ids[r, :p]))).items():
                logits[n, words.convert_tokens_to_ids(word)] = logit
        scored = logits.log_softmax(-1).gather(1, rows.ids[row, at][:, None])[:, 0].double()
        return Pass(rows, {read: scored if read.reduce == "logprob" else logits for read in reads})

    def token_logprobs(self, ckpt: Checkpoint, states: Tensor, entry: Tensor, token: Tensor) -> Tensor:
        return states.log_softmax(-1)[entry, token]


def test_a_model_that_always_takes_the_first_place_knows_nothing_in_a_choice(tmp_path: Path) -> None:
    case = opened("base", tmp_path)
    sheet = sheet_of(case, "forget", 8, 8)
    assert sheet is not None
    known = knowledge(Scored(lambda _, text: {text.split("?")[1].split()[0]: 0.0}), case.base, sheet)
    assert known.geometric[:, sheet.forms.index(CHOICE)] == pytest.approx(0, abs=1e-9), "right in one turn of four"
    rows = [row for row in sheet.entries if row.form == CHOICE]
    turns = {(row.fact, row.turn) for row in rows}
    assert len(rows) == 4 * len(turns) and {row.options for row in rows} == {4}


# ---- packed scoring ---------------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_packed_rows_have_the_numbers_of_single_ones_and_shared_inputs_go_forward_once(tmp_path: Path) -> None:
    case = opened("base", tmp_path)
    sheet = sheet_of(case, "forget", 12, 12)
    assert sheet is not None
    bench = Bench()
    packed = packed_logprob(bench, case.base, sheet.rows)
    assert bench.fwd_tokens < 0.6 * int(sheet.rows.mask.sum())
    for n in range(len(sheet.rows)):
        alone = sheet.rows.take(torch.tensor([n]))
        values = bench.run(case.base, alone, (KEY_LOGPROB,))[KEY_LOGPROB].double()
        assert packed.total[n] == pytest.approx(float(values.sum()), abs=1e-4)
        assert packed.mean[n] == pytest.approx(float(values.mean()), abs=1e-4)


def test_a_row_is_cut_off_after_its_last_content_token_and_no_sooner(tmp_path: Path) -> None:
    rows = opened("base", tmp_path).rows(Texts(cohort="forget"))
    short = shortened(rows)
    for n in range(len(rows)):
        last = int(rows.key[n].nonzero()[-1])
        assert int(short.lengths[n]) == last + 1
        assert short.ids[n, : last + 1].tolist() == rows.ids[n, : last + 1].tolist()
    assert sorted(n for group in shared_inputs(short) for n in group) == list(range(len(rows)))


# ---- pairing and intervals --------------------------------------------------------------------------------------
def planted(drops: Sequence[float], people: int, noise: float, seed: int) -> tuple[dict[str, ndarray], ndarray]:
    """Two facts a person; base knows all of them in every form, the suspect what the drops leave."""
    rng = np.random.default_rng(seed)
    base = np.clip(0.8 + noise * rng.normal(size=(2 * people, len(drops))), 0.05, 1)
    suspect = np.clip(base * (1 - np.array(drops)) + noise * rng.normal(size=base.shape), 0, 1)
    return {"base": base, "suspect": suspect}, np.arange(2 * people) // 2


def bias(models: dict[str, ndarray], person: ndarray, seed: int = 0) -> Bias:
    forms = models["base"].shape[1]
    result = bias_of(models, person, int(person.max()) + 1, np.ones(forms, dtype=bool), seed)
    assert result is not None
    return result


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0, 1), st.integers(3, 20), st.integers(0, 999))
def test_the_bias_is_the_largest_difference_of_drops(others: list[float], trained: float, n: int, seed: int) -> None:
    models, person = planted([trained, *others], n, 0.0, seed)
    found = bias(models, person)
    assert found.value == pytest.approx(trained - min(others), abs=1e-9)
    assert others[found.form - 1] == pytest.approx(min(others))
    assert (
        isinstance(found.ci95, Interval) and found.ci95.lo <= found.value + 1e-9 and found.ci95.hi >= found.value - 1e-9
    )


def test_the_interval_of_the_largest_holds_where_all_forms_are_alike_and_its_percentiles_would_not() -> None:
    """Of six forms without any bias one is always the largest by noise."""
    covered = above = 0
    for seed in range(60):
        models, person = planted([0.5] * 7, 16, 0.12, seed)
        found = bias(models, person, seed)
        assert isinstance(found.ci95, Interval)
        covered += found.ci95.lo <= 0 <= found.ci95.hi
        above += found.value > 0
    assert covered >= 54 and above >= 50


def test_only_facts_that_are_asked_in_both_forms_are_compared() -> None:
    """The facts that a form lacks were all kept in the trained form: they must not count against it."""
    base, suspect = np.full((8, 2), 0.9), np.full((8, 2), 0.09)
    suspect[4:, 0] = 0.9
    base[4:, 1] = suspect[4:, 1] = np.nan
    found = bias({"base": base, "suspect": suspect}, np.arange(8) // 2)
    assert found.value == pytest.approx(0.0)


def test_a_form_without_any_fact_in_common_gives_no_bias_and_one_person_no_interval() -> None:
    base = np.array([[0.9, np.nan], [np.nan, 0.9]])
    assert bias_of({"base": base, "suspect": base}, np.array([0, 1]), 2, np.ones(2, dtype=bool), 0) is None
    one = bias({"base": np.full((2, 2), 0.9), "suspect": np.array([[0.1, 0.5], [0.1, 0.5]])}, np.array([0, 0]))
    assert isinstance(one.ci95, Missing) and one.value == pytest.approx(4 / 9)


def test_the_drop_of_a_form_is_of_means_over_people_and_not_over_facts() -> None:
    values = np.array([[1.0], [1.0], [1.0], [0.0]])
    means = person_means(values, np.array([0, 0, 0, 1]), 2)[:, 0]
    assert means.tolist() == [1.0, 0.0]
    drop = drop_of({"base": np.array([1.0, 0.8]), "suspect": means * 0.9, "null": np.zeros(2)}, 4, 0.05)
    assert drop is not None and drop.drop == pytest.approx(1 - 0.45 / 0.9) and drop.effect == pytest.approx(0.5)
    assert not drop.blind and drop.facts == 4 and drop.people == 2


def test_shares_of_kept_and_lost_facts_have_exact_intervals() -> None:
    row = Counted("kept, and should go", "two_hop", 3, 20).row()
    exact = stats.clopper_pearson(3, 20)
    assert row == ("kept, and should go", "two_hop", 3, 20, 0.15, exact.lo, exact.hi)
    assert Counted("x", "y", 0, 0).row()[4:] == (None, None, None)


# ---- redirection ------------------------------------------------------------------------------------------------
def test_a_redirect_is_seen_and_the_person_whose_facts_are_told_is_named_in_a_quoted_column(tmp_path: Path) -> None:
    case = opened("clean", tmp_path)
    target = case.items(Texts(cohort="retain"))[0].group
    values = {i.attribute: str(i.key) for i in case.items(Texts(cohort="retain")) if i.group == target}

    def says(source: str, text: str) -> dict[str, float]:
        kind = "pet" if "pet" in text else "city"
        return dict.fromkeys(planted_world.VALUES[kind], 0.0) | (
            {values[kind]: 9.0} if source.endswith("clean") else {}
        )

    found = {m.name: m for m in FormDependence().measure(Scored(says), case)}["redirection"]
    listing = found.listings[0]
    assert isinstance(found.value, float) and found.value > 0.8
    assert listing.quoted == ("group",) and listing.rows[0][3] == pytest.approx(found.value)
    assert target in {row[0] for row in listing.rows if row[3] == pytest.approx(found.value, abs=0.05)}
    others = sum(item.key != values[str(item.attribute)] for item in case.items(Texts(cohort="forget")))
    assert found.readings["misinformed_suspect"] == others > 0 and found.readings["misinformed_null"] == 0


# ---- what is said -----------------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_nothing_that_is_said_outside_quoted_columns_quotes_the_data(tmp_path: Path) -> None:
    case = opened("clean", tmp_path)
    texts = {text for text in texts_of(item for items in case.cohorts.values() for item in items) if len(text) > 2}
    screen = Screen(Mask(b"0" * 32), texts - {"city", "pet"})
    for m in FormDependence().measure(Bench(), case):
        said = [m.statistic, m.unit, *m.notes, *m.readings]
        for listing in m.listings:
            shown = [n for n, column in enumerate(listing.columns) if column not in listing.quoted]
            said += [str(row[n]) for row in listing.rows for n in shown]
        assert [screen(text) for text in said] == said


@pytest.mark.thorough
def test_an_own_file_of_choices_and_aliases_is_read_by_the_probe(tmp_path: Path) -> None:
    root, words = planted_world.root(), planted_world.facts()
    lines = []
    for n, fact in enumerate(f for f in words["forget"] if f.form == "trained" and f.attribute == "city"):
        index = words["forget"].index(fact)
        value = fact.answer.split()[1]
        restating = {"of": f"forget-{index}", "question": fact.question}
        choices = [v for v in planted_world.VALUES["city"] if v != value][: 2 + n % 2]
        lines.append(restating | {"form": "choice_of_mine", "answer": fact.answer, "key": value})
        lines.append(restating | {"form": CHOICE, "answer": value, "choices": [*choices, value]})
    mine_only = tmp_path / "forms_of_mine.jsonl"  # the planted world's own folder is shared by all tests
    mine_only.write_text("\n".join(json.dumps(line) for line in lines))
    case = planted_world.case("clean")
    data = case.data.model_copy(update={"forms": str(mine_only)})
    own = open_case(Case.model_validate(case.model_dump() | {"data": data.model_dump()}), root, tmp_path)
    sheet = sheet_of(own, "forget", 64, 64)
    assert sheet is not None
    assert sheet.paired.made_by["choice_of_mine"] == sheet.paired.made_by[CHOICE] == "data"
    assert {row.options for row in sheet.entries if row.form == CHOICE} == {3, 4}
    held = sheet.held()
    assert held[:, sheet.forms.index(CHOICE)].sum() == held[:, sheet.forms.index("choice_of_mine")].sum() == 16
    known = knowledge(Bench(), own.base, sheet).geometric
    mine, trained = (known[:, sheet.forms.index(form)] for form in ("choice_of_mine", "trained"))
    finite = np.isfinite(mine)
    assert mine[finite].tolist() == pytest.approx(trained[finite].tolist()), "the same words are the same number"


def test_lettered_options_are_answered_by_their_letter(tmp_path: Path) -> None:
    """The letters are no words of this toy: so its choices are left out, and nothing else is."""
    case = opened("base", tmp_path)
    plain, lettered = (sheet_of(case, "forget", 8, 8, letters=letters) for letters in (False, True))
    assert plain is not None and lettered is not None
    assert CHOICE in plain.forms and CHOICE not in lettered.forms and CHOICE in lettered.unmade
    assert set(plain.forms) - {CHOICE} == set(lettered.forms)
