"""The search for features and a strength: against every variant run whole, on a classifier that knows ten digits."""

from functools import cache
from typing import NamedTuple

import pytest
import torch

from audit.bench import Bench, GatedClamp
from audit.case import Rows
from audit.checkpoints import resolve
from audit.schema import Read, Site, Source
from saes import (
    Choice,
    ConceptCodes,
    Edited,
    Grid,
    ReadRows,
    Search,
    TensorActivations,
    TrainingSettings,
    answers,
    chosen,
    codes_of,
    gated_clamp,
    joined,
    matched_moves,
    read_rows,
    train,
)
from saes.concept_search import candidates
from tests import image_toy
from tests.edits.test_image_edits import digits_data

BENCH = Bench()
SITE = Site(part="resid_out", block=0, tower="vision")
GRID = Grid(percentiles=(99.0,), most_elsewhere=(0.1, 0.3), counts=(1, 4), strengths=(0.5, 2.0, 8.0))
RANK, LOGPROB = (Read(site=Site(part="logits"), at="key", reduce=reduce) for reduce in ("rank", "logprob"))


class Searched(NamedTuple):
    edited: Edited
    own: ReadRows
    others: ReadRows
    codes: ConceptCodes


@cache
def searched() -> Searched:
    """A dictionary of the first block of a classifier that was trained in seconds; rows of a digit, and of others."""
    folder = image_toy.root() / "digits-searched"
    image_toy.train(image_toy.fresh("vit", 0), image_toy.digits(), 100, 4e-3).save_pretrained(folder / "model")
    image_toy.processor().save_pretrained(folder / "model")
    model, data = resolve(Source(path=str(folder / "model")), folder), digits_data()
    bare = Edited(model, SITE, None, leading=1)  # type: ignore[arg-type]
    own, others = (read_rows(BENCH, bare, rows) for rows in (data.forget, data.retain.take(torch.arange(120))))
    states = torch.cat([own.described(), others.described()])
    states = states[torch.randperm(len(states), generator=torch.Generator().manual_seed(0))]
    settings = TrainingSettings(architecture="batchtopk", features=128, k=8, rows=60_000, batch=64)
    source = (TensorActivations({"s": part}) for part in (states[200:], states[:200]))
    (stored,) = train(*source, settings, folder / "dictionary", {"s": SITE})
    edited = bare._replace(coder=stored.coder)
    return Searched(edited, own, others, codes_of(edited, own, [others.described()]))


def passed(rows: Rows, *writes: GatedClamp) -> tuple[float, float]:
    """Accuracy and mean probability by passes from the pixels on, the write on the way."""
    done = BENCH.run(searched().edited.model, rows, [RANK, LOGPROB], writes)
    return float((done[RANK] == 0).double().mean()), float(done[LOGPROB].exp().mean())


def choice(budget: float, grid: Grid = GRID) -> Choice | None:
    edited, own, others, codes = searched()
    return chosen(BENCH, edited, (own, others), codes, Search(grid, budget))


@pytest.mark.thorough
def test_resumed_answers_are_those_of_whole_passes() -> None:
    edited, own, _, codes = searched()
    for candidate in candidates(codes, GRID):
        write = gated_clamp(edited.coder, SITE, GRID.moves(codes, candidate.features, 2.0), 1)
        seen = answers(BENCH, edited, own, write)
        assert (seen.accuracy, float(seen.probability.mean())) == pytest.approx(passed(own.rows, write), abs=1e-5)
    assert answers(BENCH, edited, own).accuracy == passed(own.rows)[0]


@pytest.mark.parametrize("budget", [0.99, 0.9, 0.7])
def test_the_choice_is_the_most_suppressing_of_all_variants_that_hold_the_budget(budget: float) -> None:
    edited, own, others, codes = searched()
    base = passed(others.rows)[0]
    variants: list[tuple[float, float, list[int], float]] = []
    for candidate in candidates(codes, GRID):
        for strength in GRID.strengths:
            write = gated_clamp(edited.coder, SITE, GRID.moves(codes, candidate.features, strength), 1)
            if passed(others.rows, write)[0] >= budget * base - 1e-9:
                variants.append((*passed(own.rows, write), candidate.features.tolist(), strength))
    accuracy, _, features, strength = min(variants)
    picked = choice(budget)
    assert picked is not None
    assert (picked.candidate.features.tolist(), picked.strength) == (features, strength)
    assert picked.after == pytest.approx(accuracy) and picked.others_before == pytest.approx(base)
    assert picked.others_after >= budget * base - 1e-9 and picked.tried == len(GRID.strengths) * len(
        candidates(codes, GRID)
    )


def test_a_smaller_budget_suppresses_more_and_one_that_nothing_holds_is_no_choice() -> None:
    tight, loose = choice(0.99), choice(0.5)
    assert tight is not None and loose is not None and loose.after < 0.3 < tight.after
    edited, own, others, codes = searched()
    strong = GRID._replace(strengths=(1e4,), percentiles=(50.0,), counts=())
    assert chosen(BENCH, edited, (own, others), codes, Search(strong, 0.99)) is None


def test_random_features_in_their_place_are_as_many_others_and_as_busy_over_all() -> None:
    edited, _, _, codes = searched()
    picked = choice(0.5, GRID._replace(counts=(4,)))
    assert picked is not None
    own = picked.candidate.features
    drawn = matched_moves(edited, codes, picked, GRID, draws=20)
    rate = ((codes.rate + codes.others_rate) / 2).numpy()
    rank = torch.from_numpy(rate.argsort().argsort() / len(rate))
    for moves in drawn:
        assert len(moves.features) == len(own) and not set(moves.features.tolist()) & set(own.tolist())
        assert bool((torch.from_numpy(rate)[moves.features] > 0).all())
        assert float(rank[moves.features].mean() - rank[own].mean()) == pytest.approx(0, abs=0.25)
        assert torch.equal(moves.offset, -picked.strength * codes.typical[moves.features].float())
    assert len({tuple(moves.features.tolist()) for moves in drawn}) > 5


def test_what_other_concepts_moved_acts_too_and_counts_in_the_budget() -> None:
    edited, own, others, codes = searched()
    first = choice(0.9)
    assert first is not None
    again = chosen(BENCH, edited, (own, others), codes, Search(GRID, 0.9, (first.moves,)))
    assert again is not None and again.before == pytest.approx(first.after)
    both = gated_clamp(edited.coder, SITE, joined([first.moves, again.moves]), 1)
    assert again.after == pytest.approx(passed(own.rows, both)[0])
    assert (
        again.others_after == pytest.approx(passed(others.rows, both)[0]) and again.others_before == first.others_before
    )


def test_every_set_of_features_is_tried_once() -> None:
    codes = searched().codes
    sets = [tuple(sorted(each.features.tolist())) for each in candidates(codes, Grid())]
    assert len(set(sets)) == len(sets) > 2 and all(sets)
    assert [len(each) for each in sets] == sorted(len(each) for each in sets)
