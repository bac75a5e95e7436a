"""Prompt attribution: against brute force, where one token carries the answer, and never a word of the answer said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import Tensor
from transformers import LlamaForCausalLM

from audit.bench import Bench, Effort
from audit.case import OpenCase, Rows, open_case, tokenise
from audit.probing import PersonRows, asked_tokens, key_logprob
from audit.schema import Measurement, Missing, Op, Template, Texts
from audit.wording import folded, words
from probes._emphasis import Emphasis, emphases, emphasised, gains, sayable
from probes._key_tokens import likeness, mass_tokens, spearman, template_share, top_tokens
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
    found = prompts_of(case, FORGET, most, template)
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
    monkeypatch.setattr(wrapper, "forward", lambda batch, *rest: (passes.append(len(batch.ids)), forward(batch, *rest))[1])
    contributions(bench, case.base, told, without)
    assert sum(passes) == len(told.rows) + len(without.rows) and len(passes) <= 3 < len(without.rows)


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
    assert np.mean(found["left out"]) == 1.0 and np.mean(found["gradients"]) > 0.6
    by_name = [x[n, marks] for x in (slopes,) for n, marks in enumerate(told.question)]
    at = [item.question.split().index(name) for item, name in zip(told.items, names, strict=True)]
    assert np.mean([part[k] for part, k in zip(by_name, at, strict=True)]) > 2 * np.mean(
        [np.delete(part, k).max() for part, k in zip(by_name, at, strict=True)]
    ) / 2
