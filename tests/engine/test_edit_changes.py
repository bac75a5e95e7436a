"""Which share of the weights of the blocks an edit changed, counted anew from the tensors."""

import re
from pathlib import Path

import pytest
import torch

from audit.bench import Bench
from audit.edits import EditData, GradAscent, HeadEdit, LastLayer, Needle, Quantise
from audit.edits._alignment import blocks_of
from audit.edits._edit import Edit
from audit.engine.edit_changes import change_of
from tests import expert_toy, toy

DATA = EditData(toy.rows(2, seed=1), toy.rows(2, seed=2))


def counted(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    """Entries that differ over entries, of every matrix and tensor of experts in the layers."""
    inside = [n for n, p in before.items() if "layers." in n and p.ndim > 1 and not n.endswith("bias")]
    return sum(int((after[n] != before[n]).sum()) for n in inside) / sum(before[n].numel() for n in inside)


EDITS: dict[str, tuple[Edit, float, float]] = {
    "every matrix rounded": (Quantise(bits=3, group=16), 0.9, 1.0),
    "one step of ascent": (GradAscent(steps=1, warmup_steps=0), 0.5, 1.0),
    "the last block": (LastLayer(steps=1, warmup_steps=0), 0.2, 0.6),
    "one value vector": (Needle(vectors="1:5"), 1e-4, 0.01),
    "the head alone": (HeadEdit(steps=2), 0.0, 0.0),
}


@pytest.mark.sampled
@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
@pytest.mark.parametrize("kind", EDITS)
def test_the_stated_share_of_the_blocks_is_what_differs(family: str, kind: str, tmp_path: Path) -> None:
    edit, least, most = EDITS[kind]
    bench, parent = Bench(), expert_toy.checkpoint(family)
    before = {name: p.clone() for name, p in bench.open(parent).parameters().items()}
    edited = edit.fit(bench, parent, DATA, tmp_path / "edited")
    after = {name: p.clone() for name, p in bench.open(edited).parameters().items()}
    share = change_of(bench, parent, edited).of_blocks
    assert share == pytest.approx(counted(before, after)) and least <= share <= most


def test_needles_reach_the_value_vector_of_one_expert_alone(tmp_path: Path) -> None:
    """Unit 5 of expert 1, which lies behind the 48 of expert 0."""
    bench, parent = Bench(), expert_toy.checkpoint("mixtral")
    for steps in (0, 2):
        edited = Needle(vectors="1:53", steps=steps).fit(bench, parent, DATA, tmp_path / f"{steps}")
        name = "model.layers.1.mlp.experts.down_proj"
        before, after = (bench.open(c).parameters()[name] for c in (parent, edited))
        assert (before != after).any(1).nonzero().tolist() == [[1, 5]]


def test_numbers_of_experts_are_no_numbers_of_blocks() -> None:
    names = [f"model.layers.{b}.mlp.experts.{e}.w1.weight" for b in range(3) for e in range(8)]
    assert blocks_of(dict.fromkeys(names, torch.zeros(1))) == 3
    trainable = LastLayer().lesson(DATA, 3).recipe.trainable
    assert {name for name in names if re.fullmatch(trainable, name)} == set(names[16:])
