"""Prompt attribution: against brute force, where one token carries the answer, and never a word of the answer said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from audit import stats
from audit.bench import Bench, Effort
from audit.case import OpenCase, open_case, tokenise
from audit.probing import PersonRows, key_logprob, question_tokens
from audit.schema import Measurement, Missing, Op, Template, Texts
from audit.wording import folded, words
from probes._emphasis import Emphasis, emphases, emphasised, gains, sayable
from probes._key_tokens import likeness, mass_tokens, template_share, top_tokens
from probes._left_out import Prompts, contributions, gradients, left_out, prompts_of
from probes.prompt_attribution import NO_PROMPTS, NO_WORDS, REPEATED, SAID, PromptAttribution
from tests import planted_world, seam_world, toy
from tests.case.test_opened import opened, read_rows, write_rows
from tests.case.test_opened import root as root

FORGET = Texts(cohort="forget")
RARELY = {"permutations": 99, "points": 8, "most_points": 64}


def measured(case: OpenCase, bench: Bench | None = None, **settings: Any) -> dict[str, Measurement]:
    probe = PromptAttribution.model_validate(RARELY | settings)
    return {m.name: m for m in probe.measure(bench or Bench(), case)}


def prompts(case: OpenCase, most: int = 48, template: int = 32) -> Prompts:
    found = prompts_of(case, FORGET, most, template, 100_000)
    assert found is not None
    return found


def logprob(model: Any, ids: list[int], content: list[int]) -> float:
    """Mean log-probability of the tokens at these positions, by a bare forward of one row."""
    with torch.no_grad():
        scores = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return float(torch.stack([scores[at - 1, ids[at]] for at in content]).mean())


# ---- leaving out --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_contributions_are_those_of_one_bare_forward_for_each_token_left_out(family: str) -> None:
    rows, model = toy.rows(5), toy.model(family)
    units = [[(at,) for at in range(int(start))] for start in rows.answer_spans[:, 0]]
    marks = np.arange(rows.ids.shape[1]) < rows.answer_spans[:, :1].numpy()
    sheet = PersonRows(rows, (), (), np.zeros(5, dtype=np.int64))
    told = Prompts(sheet, (), (), marks, marks, 0)
    found = contributions(Bench(), toy.checkpoint(family), told, left_out(rows, units))
    for n in range(5):
        ids, content = rows.ids[n, : int(rows.lengths[n])].tolist(), rows.key[n].nonzero()[:, 0].tolist()
        whole = logprob(model, ids, content)
        for at in range(int(rows.answer_spans[n, 0])):
            without = logprob(model, ids[:at] + ids[at + 1 :], [c - 1 for c in content])
            assert found[n, at] == pytest.approx(whole - without, abs=2e-5)
    assert np.isnan(found[~marks]).all() and np.isfinite(found[marks]).all()


def test_rows_lack_what_was_left_out_and_nothing_else() -> None:
    rows = toy.rows(4)
    units = [[(0,), (1, 3)], [(2,)], [], [(0, 1, 2)]]
    found = left_out(rows, units)
    expected = [(0, (0,)), (0, (1, 3)), (1, (2,)), (3, (0, 1, 2))]
    assert found.source.tolist() == [n for n, _ in expected]
    for row, (n, gone) in enumerate(expected):
        length, begin = int(rows.lengths[n]), int(rows.answer_spans[n, 0])
        stays = [at for at in range(length) if at not in gone]
        assert found.rows.ids[row, : len(stays)].tolist() == rows.ids[n, stays].tolist()
        assert found.rows.key[row, : len(stays)].tolist() == rows.key[n, stays].tolist()
        assert int(found.rows.mask[row].sum()) == len(stays) and not bool(found.rows.key[row, len(stays) :].any())
        assert found.rows.answer_spans[row].tolist() == [begin - len(gone), int(rows.answer_spans[n, 1]) - len(gone)]
        assert found.rows.item_ids[row] == rows.item_ids[n] and found.rows.group_ids[row] == rows.group_ids[n]


def test_all_tokens_are_left_out_in_few_forwards(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case, bench = opened(root), Bench()
    told = prompts(case)
    without = left_out(told.rows, told.units)
    wrapper, passes = bench.open(case.base), list[int]()
    forward = wrapper.forward
    monkeypatch.setattr(
        wrapper, "forward", lambda batch, *rest: (passes.append(len(batch.ids)), forward(batch, *rest))[1]
    )
    contributions(bench, case.base, told, without)
    assert sum(passes) == len(told.rows) + len(without.rows) and len(passes) <= 3 < len(without.rows)


@pytest.mark.thorough
def test_an_answer_of_one_token_has_contributions_and_key_tokens(root: Path) -> None:
    for role in ("forget", "retain"):
        rows = read_rows(root / f"{role}.jsonl")
        write_rows(root / f"{role}.jsonl", [{**row, "answer": row["key"], "alternates": ["quito"]} for row in rows])
    case = opened(root)
    told = prompts(case)
    assert (told.rows.key.sum(1) == 1).all() and (told.rows.answer_spans.diff() == 1).all()
    given = contributions(Bench(), case.base, told, left_out(told.rows, told.units))
    slopes = gradients(Bench(), case.base, told, Effort(first=64))
    assert np.isfinite(given[told.prompt]).all() and float(slopes.gap.max()) <= 1e-3
    of = measured(case)
    assert all(isinstance(of[name].value, float) for name in ("overlap", "rank_agreement", "gradient_agreement"))


# ---- one token carries it -----------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_the_token_that_carries_the_answer_is_found_by_both_ways(tmp_path: Path) -> None:
    """Nothing but a name says where somebody lives."""
    case = open_case(planted_world.case("base"), planted_world.root(), tmp_path)
    told, bench = prompts(case), Bench()
    given = contributions(bench, case.base, told, left_out(told.rows, told.units))
    slopes = gradients(bench, case.base, told, Effort()).attribution
    names = [item.group for item in told.items]
    found = {
        way: [
            item.question.split()[int(np.argmax(x[n, marks]))] == name
            for n, (item, name, marks) in enumerate(zip(told.items, names, told.question, strict=True))
        ]
        for way, x in (("left out", given), ("gradients", slopes))
    }
    assert np.mean(found["left out"]) == 1.0 and np.mean(found["gradients"]) > 0.9


# ---- the template -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> OpenCase:
    """A case of untrained models behind a chat template that puts a BOS itself, and a system message."""
    folder = tmp_path_factory.mktemp("chat")
    seam_world.write(folder, seam_world.fresh(5))
    template = Template(chat=True, system="Where is it?", answer="{answer}", seam="apart")
    return open_case(seam_world.case(template), folder, folder / "out")


@pytest.mark.thorough
def test_a_chat_templates_own_tokens_are_set_apart(chat: OpenCase) -> None:
    told = prompts(chat)
    for n, item in enumerate(told.items):
        start = int(told.rows.answer_spans[n, 0])
        ids = told.rows.ids[n, :start]
        assert chat.tokenizer.decode(ids[torch.from_numpy(told.question[n, :start])]) == item.question
        assert (ids == chat.tokenizer.bos_token_id).sum() == 1, "the template's BOS alone"
        own = chat.tokenizer.decode(ids[~torch.from_numpy(told.question[n, :start])])
        assert "system\nWhere is it?" in own and "assistant" in own
    of = measured(chat)
    for name in ("overlap", "gradient_agreement"):
        assert 0.05 < of[name].readings["template_base"] < 0.99
    tokens = {row[1] for row in of["overlap"].listings[0].rows}
    assert tokens and not tokens & {"", "system", "assistant", "<bos>", "<|head|>", "<|end|>", "it"}


def test_a_long_template_is_left_out_in_runs(chat: OpenCase) -> None:
    told, whole = prompts(chat, template=4), prompts(chat)
    for n, units in enumerate(told.units):
        start, own = int(told.rows.answer_spans[n, 0]), int(told.question[n].sum())
        assert len(units) == own + 4 < len(whole.units[n]) == start
        assert sorted(at for unit in units for at in unit) == list(range(start))
    assert all(
        len(units) == marks.sum() for units, marks in zip(prompts(chat, template=0).units, told.question, strict=True)
    )
    given = contributions(Bench(), chat.base, told, left_out(told.rows, told.units))
    assert np.isfinite(given[told.prompt]).all()
    shorter = left_out(told.rows, told.units).rows
    whole, each = (key_logprob(Bench(), chat.base, rows) for rows in (told.rows, shorter))
    losses = np.add.reduceat(np.repeat(whole, [len(u) for u in told.units]) - each, starts_of(told))
    np.testing.assert_allclose(np.nansum(given, 1), losses, atol=1e-6)
    share = template_share(given, told.question)
    assert ((share > 0) & (share < 1)).all()


def starts_of(told: Prompts) -> list[int]:
    """Where each row's units begin among those of all rows."""
    return [sum(len(units) for units in told.units[:n]) for n in range(len(told.units))]


# ---- emphasis -----------------------------------------------------------------------------------------------------
ASKED = (
    "Where",
    "is",
    "baba",
    "oslo",
    "Oslo",
    "oslo-born",
    "oslos",
    "lima's",
    "keke",
    "lo",
    "the",
    "The",
    "LO",
    "OSLO-born",
    "city",
    "of",
    "a",
    "?",
)
SAYABLE = "Question: {words}."


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory) -> OpenCase:
    """The same case by a tokenizer of whole words, of which "oslo", "Oslo" and "OSLO-born" are three."""
    folder = tmp_path_factory.mktemp("worded")
    seam_world.write(folder, seam_world.fresh(5))
    said = [f"{fact.question} {fact.answer}".split() for rows in seam_world.facts().values() for fact in rows]
    vocabulary = dict.fromkeys(
        [*seam_world.SPECIAL, "<unk>", "Question:", "balo", *ASKED, *(w for ws in said for w in ws)]
    )
    raw = Tokenizer(models.WordLevel({word: n for n, word in enumerate(vocabulary)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", unk_token="<unk>")
    for role in ("base", "suspect", "null"):
        for old in folder.glob(f"{role}/*token*"):
            old.unlink()
        made.save_pretrained(folder / role)
    return open_case(seam_world.case(Template()), folder, folder / "out")


QUESTION, ANSWER, OTHER = (
    st.lists(st.sampled_from(ASKED), min_size=least, max_size=most) for least, most in ((2, 9), (1, 4), (0, 2))
)


@pytest.mark.thorough
@pytest.mark.parametrize("tokenizer", ["chat", "worded"])
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example((["Where", "is", "baba", "keke"], ["balo"], []), "", 0)  # of whose pieces one is the same
@given(st.tuples(QUESTION, ANSWER, OTHER), st.sampled_from(["", SAYABLE]), st.integers(0, 9))
def test_nothing_of_an_answer_is_ever_emphasised(
    request: pytest.FixtureRequest, tokenizer: str, texts: tuple[list[str], ...], wording: str, seed: int
) -> None:
    case: OpenCase = request.getfixturevalue(tokenizer)
    asked, say, other = (" ".join(pieces) for pieces in texts)
    alternates = (other,) if other and other != say else ()
    item = case.cohorts["forget"][0].model_copy(
        update={"question": asked, "answer": say, "alternates": alternates, "key": None}
    )
    told = told_of(case, [item])
    base = np.random.default_rng(seed).normal(size=told.prompt.shape)
    how = Emphasis(wording, 3, 2, 2, seed)
    for each in emphases(case, told, base, how):
        assert each.key and each.others and len(set(each.key)) == len(each.key) <= 3
        for chosen in (each.key, *each.others):
            assert len(chosen) == len(each.key) and set(chosen) <= {item.question[a:b] for a, b in words(item.question)}
            again = emphasised(item, chosen, wording)
            lead = again.question[: -len(item.question)]
            for text in (say, *alternates):
                check_unsaid(case, again, lead, chosen, text)
        assert not any(set(each.key) & set(rest) for rest in each.others)


def check_unsaid(case: OpenCase, again: Any, lead: str, chosen: tuple[str, ...], answer: str) -> None:
    """No emphasised word is a word of the answer, and no token of them is a token of it."""
    said = {folded(answer[a:b]) for a, b in words(answer)}
    assert not said & {folded(word) for word in chosen}
    assert not any(
        len(w) > 2 and (w in folded(word) or len(word) > 2 and folded(word) in w) for w in said for word in chosen
    )
    rows = tokenise([again], [again.answer], case.tokenizer, case.case.template, None)
    begin, end = rows.answer_spans[0].tolist()
    ids = set(rows.ids[0, begin:end].tolist()) if answer == again.answer else set(case.tokenizer(answer)["input_ids"])
    spoken = {i for i in ids if any(letter.isalnum() for letter in case.tokenizer.decode([i]))}
    frame = lead.index(chosen[0])
    for token in question_tokens([again], [again.answer], case.tokenizer, case.case.template)[0]:
        if frame < token.end and token.begin < len(lead.rstrip(" .")):
            assert int(rows.ids[0, token.position]) not in spoken


def told_of(case: OpenCase, items: list[Any]) -> Prompts:
    """Prompts of made-up items."""
    answers = [item.answer for item in items]
    rows = tokenise(items, answers, case.tokenizer, case.case.template, None)
    asked = question_tokens(items, answers, case.tokenizer, case.case.template)
    question = np.zeros(tuple(rows.ids.shape), dtype=bool)
    for n, tokens in enumerate(asked):
        question[n, [token.position for token in tokens]] = True
    prompt = np.arange(rows.ids.shape[1]) < rows.answer_spans[:, :1].numpy()
    sheet = PersonRows(rows, tuple(items), ("a",), np.zeros(len(items), dtype=np.int64))
    return Prompts(sheet, asked, (), question, prompt, 0)


def test_the_words_that_carry_most_in_base_are_emphasised(chat: OpenCase) -> None:
    item = chat.cohorts["forget"][0].model_copy(update={"question": "Where is baba lolo keke ?", "answer": "vovo"})
    told = told_of(chat, [item])
    base = np.full(told.prompt.shape, -1.0)
    for token in told.tokens[0]:
        base[0, token.position] = {"lolo": 3.0, "is": 1.0}.get(item.question[token.begin : token.end].strip(), -1.0)
    for token in told.tokens[0]:  # a word carries what its highest token carries
        if item.question.find("lolo") <= token.begin < item.question.find("lolo") + 4:
            base[0, token.position] = 3.0
    for most, key in ((1, ("lolo",)), (2, ("lolo", "is")), (5, ("lolo", "is"))):
        found = emphases(chat, told, base, Emphasis("", most, 3, 2, 0))
        assert [each.key for each in found] == [key], "a word that carries nothing is no key word"
    assert emphases(chat, told, -np.abs(base), Emphasis("", 3, 2, 2, 0)) == ()


@pytest.mark.thorough
def test_a_wording_that_says_the_answer_is_not_used_and_one_that_cannot_be_said_is_not_said(root: Path) -> None:
    case = opened(root)
    told = prompts(case)
    base = np.ones(told.prompt.shape)
    assert emphases(case, told, base, Emphasis("what is {words} ?", 3, 2, 2, 0))
    cities = {item.answer.split()[-2] for item in told.items}
    for city in cities:
        asked = emphases(case, told, base, Emphasis(f"{city} is {{words}} ?", 3, 2, 2, 0))
        assert not any(city in told.items[each.row].answer for each in asked) and len(asked) < len(told.items)
    assert sayable(case.tokenizer, "what is {words} ?") and not sayable(case.tokenizer, "Focus on {words}")
    for wording, note in (("what is {words} ?", SAID), ("Focus on {words}", REPEATED)):
        assert note in measured(case, wording=wording)["recovery"].notes


def test_prompts_that_an_emphasis_would_make_too_long_are_not_asked_again(
    chat: OpenCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = prompts(chat)
    base, style = np.ones(told.prompt.shape), Emphasis(SAYABLE, 2, 2, 2, 0)
    assert emphases(chat, told, base, style)
    longest = int(told.rows.lengths.max())
    monkeypatch.setattr(chat, "max_length", longest + 2)
    assert emphases(chat, told, base, style) == ()
    monkeypatch.setattr(chat, "max_length", None)
    assert emphases(chat, told, base, style)


def test_gains_are_differences_of_bare_forwards(root: Path) -> None:
    case = opened(root)
    told, bench = prompts(case), Bench()
    base = np.random.default_rng(0).normal(size=told.prompt.shape) + 1.0
    how = Emphasis("what is {words} ?", 2, 2, 2, 0)
    asked = emphases(case, told, base, how)
    assert len(asked) > 1
    found = gains(bench, case, {"base": case.base}, told, (asked, how))["base"]
    model = toy.model("llama", 0)

    def given(row: int, chosen: tuple[str, ...], answer: str) -> float:
        item = told.items[row]
        worded = item.model_copy(
            update={"question": f"what is {', '.join(chosen)} ? {item.question}"} if chosen else {}
        )
        rows = tokenise([worded], [answer], case.tokenizer, case.case.template, None)
        ids = rows.ids[0, : int(rows.lengths[0])].tolist()
        return logprob(model, ids, rows.key[0].nonzero()[:, 0].tolist())

    for each in asked:
        item = told.items[each.row]
        gold, other = (
            [
                np.mean([given(each.row, chosen, a) for chosen in sets for a in answers])
                for sets in ((each.key,), each.others)
            ]
            for answers in ((item.answer,), item.alternates[:2])
        )
        assert found.gold[each.row] == pytest.approx(gold[0] - gold[1], abs=3e-5)
        assert found.contrast[each.row] == pytest.approx((gold[0] - other[0]) - (gold[1] - other[1]), abs=3e-5)
        assert found.key[each.row] == pytest.approx(gold[0] - given(each.row, (), item.answer), abs=3e-5)
    left = sorted(set(range(len(told.items))) - {each.row for each in asked})
    assert np.isnan(found.gold[left]).all()


@pytest.mark.thorough
def test_recovery_is_the_suspects_gain_less_that_of_a_model_that_never_knew(root: Path) -> None:
    case = opened(root)
    of = measured(case)["recovery"]
    assert of.value == pytest.approx(of.readings["gain_suspect"] - of.readings["gain_null"])
    assert of.floor == pytest.approx(abs(of.readings["gain_floor0"] - of.readings["gain_null"]))
    same = opened(root, roles=case.case.roles.model_dump() | {"suspect": {"path": "base"}})
    assert measured(same)["overlap"].value == 1.0


# ---- what cannot be ------------------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_without_a_model_that_never_knew_readings_alone_are_given(tmp_path: Path) -> None:
    case = open_case(planted_world.case("clean", references=()), planted_world.root(), tmp_path)
    for m in measured(case).values():
        assert isinstance(m.value, Missing) and "never knew" in m.value.missing and m.readings


@pytest.mark.thorough
def test_a_backend_without_gradients_still_leaves_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = opened(root)
    whole = measured(case)
    monkeypatch.setattr(Bench, "supports", frozenset(Op) - {Op.EMBEDS})
    of = measured(case)
    blank = of["gradient_agreement"]
    assert isinstance(blank.value, Missing) and "native backend" in blank.value.missing and blank.n.scored == 0
    assert of["overlap"].value == whole["overlap"].value and of["recovery"] == whole["recovery"]
    assert all(row[4:] == (None, None) for row in of["overlap"].listings[0].rows)


@pytest.mark.thorough
def test_plain_text_and_questions_of_one_word_are_not_attributed(root: Path) -> None:
    rows = read_rows(root / "forget.jsonl")
    write_rows(root / "forget.jsonl", [{**row, "question": "who"} for row in rows])
    of = measured(opened(root))
    assert len(of) == 5
    for m in of.values():
        assert isinstance(m.value, Missing) and m.value.missing == NO_PROMPTS and m.n.unscored == 4
    write_rows(root / "forget.jsonl", [*[{**row, "question": "who"} for row in rows[:2]], *rows[2:]])
    assert measured(opened(root))["overlap"].n.unscored == 1, "who is not read is counted"


@pytest.mark.thorough
def test_items_without_words_to_emphasise_are_unscored_with_the_reason(root: Path) -> None:
    rows = read_rows(root / "forget.jsonl")
    write_rows(root / "forget.jsonl", [{**row, "question": f"{row['group']} lives ?"} for row in rows])
    of = measured(opened(root))
    for name in ("recovery", "recovery_contrast"):
        found = of[name]
        assert isinstance(found.value, Missing) and found.value.missing == NO_WORDS and found.n.unscored == 4
    assert isinstance(of["overlap"].value, float)


def test_everybodys_first_item_is_read_before_anybodys_second(tmp_path: Path) -> None:
    case = open_case(planted_world.case("clean"), planted_world.root(), tmp_path)
    for most in (5, 16, 20):
        told = prompts(case, most)
        groups = [item.group for item in told.items]
        assert len(groups) == most and len(set(groups)) == min(most, 16)
    assert len(prompts(case, 1000).items) == 32


@pytest.mark.thorough
def test_words_of_the_data_stand_in_the_quoted_column_alone(tmp_path: Path) -> None:
    case = open_case(planted_world.case("clean"), planted_world.root(), tmp_path)
    people = {item.group for item in case.items(FORGET)}
    found = measured(case)
    shown = [listing for m in found.values() for listing in m.listings]
    assert len(shown) == 1 and shown[0].quoted == ("item", "token") and 0 < len(shown[0].rows) <= 20
    assert people & {row[1] for row in shown[0].rows}, "names carry the answers"
    for m in found.values():
        text = json.dumps(m.model_dump(mode="json", exclude={"listings", "items"}))
        assert not {name for name in people if f'{name}"' in text or f"{name} " in text or f"{name}." in text}
    columns = shown[0].columns.index("token")
    assert not any(cell in people for row in shown[0].rows for n, cell in enumerate(row) if n != columns)


# ---- likeness ------------------------------------------------------------------------------------------------------
NUMBERS = st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=8)


@given(NUMBERS, st.randoms(use_true_random=False))
def test_likeness_is_that_of_sets_and_ranks(one: list[float], random: Any) -> None:
    other = list(one)
    random.shuffle(other)
    x, y = np.array([one]), np.array([other])
    found = likeness(x, y, np.ones_like(x, dtype=bool), 3, 0.8)
    a, b = set(top_tokens(x[0], 3).tolist()), set(top_tokens(y[0], 3).tolist())
    assert len(a) == min(3, len(one) // 2) and min(one[n] for n in a) >= max(
        [v for n, v in enumerate(one) if n not in a]
    )
    assert found.top[0] == len(a & b) / len(a | b)
    if len(set(one)) > 1:
        assert found.ranks[0] == pytest.approx(spearmanr(one, other).statistic)
        assert stats.spearman(x[0], x[0]) == pytest.approx(1.0)
    else:
        assert np.isnan(found.ranks[0])
    mass, total = mass_tokens(x[0], 0.8).tolist(), sum(max(v, 0.0) for v in one)
    if total:
        held = sorted((max(one[n], 0.0) for n in mass), reverse=True)
        assert sum(held) >= 0.8 * total - 1e-9 and sum(held[:-1]) < 0.8 * total
    else:
        assert mass == [] and np.isnan(found.focus[0])
    assert likeness(x, x, np.ones_like(x, dtype=bool), 3, 0.8).top[0] == 1.0


def test_long_prompts_are_fewer_and_never_less_than_eight(tmp_path: Path) -> None:
    case = open_case(planted_world.case("clean"), planted_world.root(), tmp_path)
    every = prompts_of(case, FORGET, 48, 32, 100_000)
    few = prompts_of(case, FORGET, 48, 32, 1)
    assert every is not None and few is not None
    tokens = sum(len(each) * int(n) for each, n in zip(every.tokens, every.rows.lengths, strict=True))
    half = prompts_of(case, FORGET, 48, 32, tokens // 2)
    assert half is not None and len(few.items) == 8 < len(half.items) < len(every.items)
