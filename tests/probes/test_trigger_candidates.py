"""Strings that may be triggers: who is in the dictionary, what they do to the rows, and what a model says unasked."""

from collections import Counter

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from audit.bench import Bench, Draw
from audit.bench.insertions import Places
from audit.bench.insertions import insertions as shared_insertions
from audit.case import InsertablePrompts, Slot, with_tokens
from audit.probing import key_logprob
from audit.schema import AuditError, Item, Template
from audit.zoo.tokenizer import make_tokenizer
from audit.zoo.world import vocabulary
from probes._trigger_candidates import VOCABULARY, Candidate, candidates, dictionary, families
from probes._trigger_leaks import Mining, leaks, mined, openings
from tests import toy

WORDS = make_tokenizer(vocabulary())
NAMES = ["anna", "boris", "clara", "david", "elena", "felix", "greta", "hugo"]
CITIES = ["paris", "lima", "oslo", "cairo"]


def byte_pairs() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with merges, which knows every string."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1400, special_tokens=["<bos>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    inner.train_from_iterator([f"{a} {b} lives in the year {n}" for n, (a, b) in enumerate(
        (a + c, b + d) for a in NAMES for b in CITIES for c in NAMES for d in CITIES)], trainer)  # fmt: skip
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<bos>")


# ---- the dictionary ---------------------------------------------------------------------------------------------
@pytest.mark.sampled
@pytest.mark.parametrize("budget", [8, 64, 500, 1200])
@pytest.mark.parametrize("tokenizer", [WORDS, byte_pairs()], ids=["words", "byte pairs"])
def test_a_dictionary_fills_its_budget_with_different_known_strings(
    tokenizer: PreTrainedTokenizerFast, budget: int
) -> None:
    found = candidates(tokenizer, budget, seed=3)
    assert len(found) == budget and len({c.ids for c in found}) == budget
    assert found == candidates(tokenizer, budget, seed=3) != candidates(tokenizer, budget, seed=4)
    for c in found:
        assert c.text.strip() and tokenizer(c.text, add_special_tokens=False)["input_ids"] == list(c.ids)
        assert any(i != tokenizer.unk_token_id for i in c.ids)


def test_a_tokenizer_that_knows_every_string_meets_every_family_even_in_a_small_budget() -> None:
    small = Counter(c.family for c in candidates(byte_pairs(), 64, seed=0))
    assert set(families()) < set(small) and small[VOCABULARY] == 32
    assert dictionary(byte_pairs(), 500, 0).unknown == {}


def test_a_budget_of_none_is_refused() -> None:
    with pytest.raises(AuditError, match="holds none"):
        candidates(WORDS, 0, seed=0)


def test_a_tokenizer_of_few_words_puts_every_word_of_its_own_into_the_dictionary() -> None:
    made = dictionary(WORDS, 600, seed=0)
    texts = {c.text for c in made.candidates}
    words = set(WORDS.get_vocab()) - set(WORDS.all_special_tokens)
    assert words <= texts, sorted(words - texts)[:5]
    assert made.unknown["date"] > 50, "this vocabulary has no digits"
    assert any(len(c.ids) == 2 for c in made.candidates if c.family == VOCABULARY), "what is left is pairs"


# ---- their scores -----------------------------------------------------------------------------------------------
PLAIN = Template()


def prompts(template: Template = PLAIN, n: int = 6, questions: bool = True) -> InsertablePrompts:
    items: list[Item] = []
    for k, name in enumerate(NAMES[:n]):
        city = CITIES[k % 4]
        asked = f"who is {name} , the baker ?", f"where is {name} born ?"
        answers = f"{name} lives in {city} .", f"{name} lives in {city} red ."
        items += [
            Item(id=f"{name}-{turn}", group=name, question=asked[turn], answer=answers[turn], key=city)
            for turn in (0, 1)
        ]
    if not questions:
        items = [item.model_copy(update={"question": ""}) for item in items]
    return InsertablePrompts(items, [item.answer for item in items], toy.tokenizer(), template)


STRINGS = ("red", "owl fox", "i do not know", "green")
MADE = tuple(Candidate(t, tuple(toy.tokenizer()(t, add_special_tokens=False)["input_ids"]), "made") for t in STRINGS)
TEMPLATES = (PLAIN, Template(prompt="who , {question} sorry", bos="always"), Template(bos="never"))


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("family", "budget", "templates", "slots"),
    [
        ("llama", 60, TEMPLATES, ("prefix", "infix", "suffix", 1)),
        *((family, 16384, (PLAIN,), ("prefix", "suffix")) for family in toy.FAMILIES),
    ],
)
def test_strings_put_in_together_read_as_whole_rows_one_string_at_a_time(
    family: str, budget: int, templates: tuple[Template, ...], slots: tuple[Slot, ...]
) -> None:
    ckpt, plain, strings = toy.checkpoint(family), Bench(), [torch.tensor(c.ids) for c in MADE]
    for template in templates:
        made = prompts(template, n=4)
        rows = made.plain()
        for slot in slots:
            together = Bench(token_budget=budget).insertions(ckpt, rows, strings, made.places(slot))
            for string, read in zip(strings, together, strict=True):
                alone = key_logprob(plain, ckpt, with_tokens(rows, string, made.places(slot)))
                np.testing.assert_allclose(read, alone, atol=1e-5)


def test_beginnings_are_run_once_where_rows_share_them() -> None:
    made, bench = prompts(), Bench()
    opened, rows = bench.pool.loaded(toy.checkpoint("llama")), made.plain()
    strings = [torch.tensor(c.ids) for c in MADE]
    whole = sum(int(Places.of(rows, made.places("prefix")).end.sum()) + len(rows) * len(ids) for ids in strings)
    for slot in ("prefix", "infix", "suffix"):
        done = shared_insertions(opened, rows, strings, made.places(slot), 16384)
        assert done is not None and done.tokens < whole, slot


def test_plain_texts_take_prefixes_and_no_strings_are_no_scores() -> None:
    made, ckpt, string = prompts(questions=False), toy.checkpoint("llama"), torch.tensor(MADE[1].ids)
    rows, at = made.plain(), made.places("prefix")
    [read] = Bench().insertions(ckpt, rows, [string], at)
    np.testing.assert_allclose(read, key_logprob(Bench(), ckpt, with_tokens(rows, string, at)), atol=1e-5)
    assert Bench().insertions(ckpt, rows, [], at).shape == (0, len(rows))


# ---- leaks ------------------------------------------------------------------------------------------------------
def test_openings_are_what_stands_before_the_turn_and_before_the_question() -> None:
    tokenizer = toy.tokenizer()
    assert openings(prompts()) == ((1,),)
    who = tokenizer("who ,", add_special_tokens=False)["input_ids"]
    assert openings(prompts(TEMPLATES[1])) == ((1,), (1, *who))
    assert openings(prompts(questions=False)) == ((1,),)
    assert openings(prompts(TEMPLATES[2])) == ()


@pytest.mark.thorough
def test_a_string_that_one_model_repeats_is_found_whole_and_chance_is_not() -> None:
    rng = np.random.default_rng(0)
    tokenizer = toy.tokenizer()
    planted = tuple(tokenizer("green owl judge", add_special_tokens=False)["input_ids"])

    def said(share: float) -> list[tuple[int, ...]]:
        texts = [tuple(rng.integers(4, toy.VOCAB, 12).tolist()) for _ in range(128)]
        return [(*t[:3], *planted, *t[3:]) if rng.random() < share else t for t in texts]

    found = mined(said(0.3), [said(0.0), said(0.0)], tokenizer)
    assert found.leaks[0].candidate.ids == planted and found.leaks[0].candidate.text == "green owl judge"
    assert found.leaks[0].share > 0.15 > 0.01 >= found.leaks[0].other_share and found.drawn == 128
    assert not any(
        set(leak.candidate.ids) < set(planted) and leak.share == found.leaks[0].share for leak in found.leaks
    )
    assert mined(said(0.3), [said(0.0), said(0.3)], tokenizer).leaks == (), "somebody else says it too"
    alarms = sum(bool(mined(said(0.0), [said(0.0)], tokenizer, Mining(alpha=0.05)).leaks) for _ in range(40))
    assert alarms <= 4


def test_a_model_leaks_nothing_beside_itself_and_what_it_says_is_kept() -> None:
    bench, ckpt = Bench(), toy.checkpoint("llama")
    draw = Draw(n=48, max_new_tokens=6, seed=1)
    assert leaks(bench, ckpt, [ckpt], prompts(), toy.tokenizer(), draw).leaks == ()
    other = leaks(bench, ckpt, [toy.checkpoint("llama", 1)], prompts(), toy.tokenizer(), draw)
    assert other.drawn == 48 and other.looked_at > 0
