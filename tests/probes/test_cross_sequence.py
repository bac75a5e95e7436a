"""The cross-sequence probe: pairs, checks and published mode against plain loops, on models of known truth."""

import tempfile
import weakref
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audit.bench import Bench
from audit.case import OpenCase, open_case
from audit.probing import ALPHA
from audit.readouts import grouped_ridge as ridge
from audit.schema import Measurement, Missing
from probes import _published_probe, _readouts, cross_sequence
from probes._pairs import logprob_and_length, pairs, words
from probes._readouts import Chances, confounds, readable, states
from probes.cross_sequence import CrossSequence
from tests import planted_world


@cache
def bench() -> Bench:
    return Bench()


def opened(suspect: str, references: tuple[str, ...] = ("null", "floor"), holdout: bool = True) -> OpenCase:
    case = planted_world.case(suspect, references=references, holdout=holdout)
    return open_case(case, planted_world.root(), Path(tempfile.mkdtemp(dir=planted_world.root())))


@cache
def measured(suspect: str) -> tuple[Measurement, ...]:
    return CrossSequence(swaps=199).measure(bench(), opened(suspect))


@pytest.mark.thorough
def test_alternates_are_the_two_that_a_model_that_never_knew_finds_most_like_the_learned_text() -> None:
    case = opened("clean")
    blind = case.references[0]
    found = pairs(bench(), case, "forget", blind)
    assert found is not None
    own, one, two = (logprob_and_length(bench(), blind, r)[:, 0] for r in (found.learned, found.control, found.second))
    assert ((one - own).abs() <= (two - own).abs() + 1e-9).all()
    first = pairs(bench(), case, "forget", None)
    assert first is not None and first.learned.hash == found.learned.hash and first.control.hash != found.control.hash


def test_pairs_of_two_cohorts_stand_below_one_another_with_people_of_their_own() -> None:
    case = opened("clean")
    forget, holdout = pairs(bench(), case, "forget", None), pairs(bench(), case, "holdout", None)
    assert forget is not None and holdout is not None
    both = forget.beside(holdout)
    assert both.people == forget.people + holdout.people and len(both.items) == len(forget.items) + len(holdout.items)
    assert [both.people[p] for p in both.person] == [item.group for item in both.items]
    assert both.control.item_ids == forget.control.item_ids + holdout.control.item_ids


def test_chosen_alternates_are_the_rows_that_their_texts_make() -> None:
    case = opened("clean")
    some = pairs(bench(), case, "forget", case.references[0])
    assert some is not None
    spelt = [
        str(case.tokenizer.decode(ids[: int(n)])) for ids, n in zip(some.control.ids, some.control.lengths, strict=True)
    ]
    texts = [next(a for a in item.alternates if text.endswith(a)) for item, text in zip(some.items, spelt, strict=True)]
    assert len({item.alternates.index(text) for item, text in zip(some.items, texts, strict=True)}) > 1
    assert some.control.hash == case.rows_of(some.items, texts).hash


@pytest.mark.thorough
def test_the_states_of_one_model_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def read(*arguments: Any) -> torch.Tensor:
        assert all(one() is None for one in held), "the states of the model before are still there"
        found = states(*arguments)
        held.append(weakref.ref(found))
        return found

    monkeypatch.setattr(cross_sequence, "states", read)
    CrossSequence(swaps=19, battery=False, permutations=99).measure(bench(), opened("base"))
    assert len(held) == 4


def test_words_count_tokens_and_name_the_last_one() -> None:
    case = opened("clean")
    some = pairs(bench(), case, "forget", None)
    assert some is not None
    found, rows = words(some.learned), some.learned
    spans = [rows.ids[i, slice(*rows.answer_spans[i].tolist())].tolist() for i in range(len(rows))]
    every = sorted({token for span in spans for token in span})
    last = sorted({span[-1] for span in spans})
    expected = [
        [span.count(t) for t in every] + [float(span[-1] == t) for t in last] + [float(len(span))] for span in spans
    ]
    assert found.tolist() == expected


def test_of_many_words_the_most_frequent_are_columns_and_the_length_counts_all() -> None:
    case = opened("clean")
    some = pairs(bench(), case, "forget", None)
    assert some is not None
    rows = some.learned
    spans = [rows.ids[i, slice(*rows.answer_spans[i].tolist())].tolist() for i in range(len(rows))]
    count = Counter(token for span in spans for token in span)
    most = sorted(sorted(count, key=lambda token: (-count[token], token))[:4])
    last = [token for token in most if any(span[-1] == token for span in spans)]
    assert 0 < len(last) < 4
    expected = [
        [span.count(t) for t in most] + [float(span[-1] == t) for t in last] + [float(len(span))] for span in spans
    ]
    assert words(rows, 4).tolist() == expected


def test_register_is_the_share_of_alternates_that_other_peoples_readouts_call_learned() -> None:
    case = opened("base")
    some = pairs(bench(), case, "forget", case.references[0])
    assert some is not None
    x = states(bench(), case, case.base, some)[-1:]
    z = ridge.standardised(x)
    found = _readouts._register(z[0], some, 1.0)
    n, d = len(some.items), z.shape[-1]
    design = torch.cat([z[0], torch.full((3 * n, 1), d**0.5, dtype=torch.float64)], 1)
    landed = []
    for person in range(len(some.people)):
        kept = np.flatnonzero(np.tile(some.person, 2) != person)
        fitted, y = design[kept], torch.tensor([1.0] * n + [-1.0] * n, dtype=torch.float64)[kept]
        weight = torch.linalg.solve(fitted.T @ fitted + d * torch.eye(d + 1, dtype=torch.float64), fitted.T @ y)
        landed += (design[2 * n + np.flatnonzero(some.person == person)] @ weight > 0).tolist()
    assert found == pytest.approx(np.mean(landed))


@pytest.mark.thorough
def test_learned_texts_share_a_direction_in_base_and_none_in_its_untouched_twin() -> None:
    base, twin = measured("base")[0], measured("clean")[0]
    assert isinstance(base.p, float) and base.p < 0.01 and base.readings["coordinate"] == 2.0
    assert isinstance(twin.p, float) and twin.p > ALPHA
    assert isinstance(twin.value, float) and isinstance(twin.floor, float) and twin.value < twin.floor
    separable, silent = measured("base")[1], measured("clean")[1]
    assert separable.readings["p_margin_suspect"] < 0.01 and separable.readings["p_battery_suspect"] < 0.05
    assert silent.readings["p_margin_suspect"] > 0.05 and separable.readings["p_pure_suspect"] > ALPHA


def test_separability_is_context_and_never_evidence() -> None:
    difference, separable = measured("base")
    assert (difference.kind, separable.kind) == ("decoding", "context")
    assert any("separab" in note or "told apart" in note for note in separable.notes)


@pytest.mark.thorough
def test_without_a_model_that_never_knew_and_without_holdout_people_there_is_no_number() -> None:
    found = CrossSequence(swaps=99, battery=False).measure(bench(), opened("base", references=(), holdout=False))
    assert isinstance(found[0].value, Missing) and "separability" in found[0].value.missing
    assert isinstance(found[1].value, float)


def test_checks_see_words_where_words_tell_the_texts_apart() -> None:
    case = opened("clean")
    some = pairs(bench(), case, "forget", None)
    assert some is not None
    told = some._replace(control=some.control.take(torch.zeros(len(some.items), dtype=torch.long)))
    x = states(bench(), case, case.suspect, told)
    chances = Chances(1.0, 99, 0, False)
    apart = readable(x, told, chances)["concordance"]
    found = confounds(bench(), case.suspect, told, x, chances, apart)
    assert found["words_alone"] > 0.9 and found["depth_0"] > 0.3


def test_published_accuracy_equals_scikit_learn_key_by_key() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rng = torch.Generator().manual_seed(0)
    positive = torch.randn(2, 5 * 3, 6, generator=rng, dtype=torch.float64) + 0.6
    negative = torch.randn(2, 5 * 3, 6, generator=rng, dtype=torch.float64)
    found = _published_probe.left_out(positive, negative, contexts=3)
    key, y = np.tile(np.repeat(np.arange(5), 3), 2), np.repeat([1, 0], 15)
    for depth in range(2):
        x = torch.cat([positive[depth], negative[depth]]).numpy()
        for k in range(5):
            out = key == k
            scaler = StandardScaler().fit(x[~out])
            slow = LogisticRegression(C=1.0, max_iter=2000).fit(scaler.transform(x[~out]), y[~out])
            assert found[depth, k] == pytest.approx(slow.score(scaler.transform(x[out]), y[out]))


@pytest.mark.thorough
def test_published_mode_runs_and_says_how_it_differs() -> None:
    case = opened("clean")
    some = pairs(bench(), case, "forget", None)
    assert some is not None
    found = _published_probe.published(bench(), case, some, sequences=4, contexts=2)
    assert found.mode == "paper" and found.kind == "context" and found.unit_of_replication == "sequence"
    assert {"true_suspect", "pure_base", "gap_mean_untrained", "worst_of_six_variants"} <= set(found.readings)
    assert any("Pythia-70M" in note for note in found.notes)


def test_pure_accuracy_tells_the_two_alternates_apart_and_true_the_learned_text_from_the_first() -> None:
    learned, control, second = torch.randn(3, 1, 8, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    learned[..., 0] += 3
    found = _published_probe.accuracies(torch.cat([learned, control, second], 1), contexts=2, seed=0)
    assert np.array_equal(found.true, _published_probe.left_out(learned, control, 2))
    assert np.array_equal(found.pure, _published_probe.left_out(control, second, 2)) and found.true.mean() > 0.7
