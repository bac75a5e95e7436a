"""A planted trigger is found as tokens, from anywhere; what chooses, what is banned, what cannot be searched."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from audit.bench import Arm, Bench, Forward, HardBudget, HardString, PlacedTokens, SearchRows, SoftBudget
from audit.bench.inversion.vocabulary import vocabulary_of
from audit.case import with_tokens
from audit.schema import AuditError, Read, Site
from tests import toy
from tests.bench import planted_trigger as planted
from tests.bench.test_soft_prefix import content

BENCH = Bench()
KEYS = Read(site=Site(part="logits"), at="key", reduce="logprob")
BUDGET = HardBudget(steps=12, rows=8)


def placed(ids: Tensor, rows: SearchRows) -> PlacedTokens:
    at = [torch.ones(len(side), dtype=torch.long) for side in rows]
    return PlacedTokens(ids, "prefix", *at)


def search(start: tuple[int, ...], budget: HardBudget = BUDGET, seed: int = 0) -> HardString:
    rows = planted.split(seed)
    return BENCH.hard_string(planted.checkpoint(), rows, placed(torch.tensor(start), rows), content, budget, seed)


@pytest.mark.thorough
def test_the_planted_model_answers_after_its_trigger_alone() -> None:
    known, silent = (
        BENCH.run(planted.checkpoint(), planted.people(spoken), [KEYS])[KEYS].exp().mean() for spoken in (True, False)
    )
    assert float(known) > 0.9 and float(silent) < 0.1


@pytest.mark.thorough
@pytest.mark.parametrize(("start", "seed"), [((16, 44), 0), ((12, 47), 0), ((38, 30), 2)])
def test_a_planted_trigger_is_found_and_works_on_people_not_searched_on(start: tuple[int, int], seed: int) -> None:
    result = search(start, seed=seed)
    assert result.ids.tolist() == planted.TRIGGER.tolist()
    assert bool((result.course[1:] - result.course[:-1] > -0.5).all()) and result.course.shape == (BUDGET.steps,)
    held = planted.split(seed).validation
    spoken = with_tokens(held, result.ids, torch.ones(len(held), dtype=torch.long))
    read = BENCH.run(planted.checkpoint(), spoken, [KEYS])[KEYS]
    assert result.validation == pytest.approx(float(read.mean()), abs=1e-5)


@pytest.mark.thorough
def test_a_soft_prefix_finds_what_the_planted_trigger_hides_and_its_rounding_starts_the_string() -> None:
    rows = planted.split()
    at = [torch.ones(len(side), dtype=torch.long) for side in rows]
    arm = Arm(2, "prefix", *at)
    budget = SoftBudget(steps=40, lr=0.2)
    (soft,) = BENCH.soft_prefixes(planted.checkpoint(), rows, [arm], content, budget, 0)
    assert soft.validation > -1
    start = BENCH.nearest_tokens(planted.checkpoint(), soft.prefix)
    assert search(tuple(start.tolist())).ids.tolist() == planted.TRIGGER.tolist()


def test_fluency_is_the_mean_log_probability_after_the_first_token() -> None:
    result = search((16, 44), HardBudget(steps=1))
    model = BENCH.open(planted.checkpoint()).model  # type: ignore[attr-defined]
    string = torch.cat([torch.tensor([1]), result.ids])[None]
    logprob = model(input_ids=string).logits[0].log_softmax(-1)
    own = (logprob[0, string[0, 1]] + logprob[1, string[0, 2]]) / 2
    assert result.fluency == pytest.approx(float(own), abs=1e-4)


def test_banned_tokens_and_special_ones_are_never_used() -> None:
    banned = torch.tensor([47, 20, 21])
    result = search((16, 44), BUDGET._replace(banned=banned))
    assert not set(result.ids.tolist()) & {47, 20, 21, 0, 1, 2, 3}
    table = vocabulary_of(BENCH.open(planted.checkpoint()), planted.checkpoint()).table
    assert BENCH.nearest_tokens(planted.checkpoint(), 3 * table[[47, 12]]).tolist() == [47, 12]
    assert BENCH.nearest_tokens(planted.checkpoint(), table[[1, 47]], banned).tolist()[1] not in (1, 47)
    with pytest.raises(AuditError, match="no token"):
        search((16, 44), BUDGET._replace(banned=torch.arange(toy.VOCAB)))


@pytest.mark.thorough
def test_strings_that_text_cannot_spell_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = vocabulary_of(BENCH.open(planted.checkpoint()), planted.checkpoint())
    raw = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    raw.decoder = decoders.Fuse()
    merging = PreTrainedTokenizerFast(tokenizer_object=raw)
    spelled = vocabulary._replace(tokenizer=merging).spelled
    assert [spelled(torch.tensor(ids)) for ids in ([2, 2], [1, 0], [0, 1])] == [True, True, False]
    assert vocabulary._replace(tokenizer=None).spelled(torch.tensor([0, 1]))
    monkeypatch.setattr(type(vocabulary), "spelled", lambda self, ids: 47 not in ids)
    assert 47 not in search((16, 44)).ids
    assert 47 in search((16, 44), BUDGET._replace(spellable=False)).ids


@pytest.mark.thorough
def test_validation_rows_choose_among_the_last_strings() -> None:
    """What is searched is the opposite of what chooses: of all strings the start is handed back, of one the last."""
    everybody = planted.split()
    rows = SearchRows(everybody.train.take(torch.arange(15)), everybody.validation)

    def torn(forward: Forward) -> Tensor:
        value = content(forward)
        chooses = len(value) % len(everybody.validation) == 0 and len(value) < 15 * BUDGET.candidates
        return -value if chooses else value

    budget = BUDGET._replace(rows=15)
    start = placed(torch.tensor([16, 44]), rows)
    every, last = (
        BENCH.hard_string(planted.checkpoint(), rows, start, torn, budget._replace(finalists=n), 0) for n in (99, 1)
    )
    assert every.ids.tolist() == [16, 44] and last.ids.tolist() == planted.TRIGGER.tolist()
    assert every.validation > last.validation


def test_the_same_seed_finds_the_same_string() -> None:
    once, again = (search((16, 44), HardBudget(steps=3, candidates=8)) for _ in range(2))
    assert torch.equal(once.ids, again.ids) and torch.equal(once.course, again.course)


def test_what_cannot_be_searched_is_said() -> None:
    rows = planted.split()
    start = placed(torch.tensor([16, 44]), rows)
    refused = {
        "one group": (SearchRows(rows.train, rows.train), start),
        "without tokens": (rows, placed(torch.zeros(0, dtype=torch.long), rows)),
        "places": (rows, start._replace(train_at=torch.full((16,), 6))),
        "longer than the 64": (rows, placed(torch.full((60,), 20), rows)),
    }
    for message, (given, placed_start) in refused.items():
        with pytest.raises(AuditError, match=message):
            BENCH.hard_string(planted.checkpoint(), given, placed_start, content, BUDGET, 0)
