"""What kind of edit a difference is, on edits constructed into toys of every family."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audit.bench import Bench, Difference
from audit.checkpoints import resolve, write_edited
from audit.probing import WeightEdit, weight_edit
from audit.schema import Source
from tests import toy, toy_vlm

Tensors = dict[str, Tensor]
Change = Callable[[Tensors, torch.Generator], Tensors]
DEFAULT = {("llama", torch.float32), ("llama", torch.bfloat16), ("gpt2", torch.float32), ("gemma2", torch.bfloat16)}
FAMILIES = [
    pytest.param(family, dtype, marks=[] if (family, dtype) in DEFAULT else pytest.mark.slow)
    for family in toy.FAMILIES for dtype in (torch.float32, torch.bfloat16)
]  # fmt: skip


def parameters(family: str, dtype: torch.dtype) -> Tensors:
    model = toy.model(family, 0, dtype)
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def read(family: str, dtype: torch.dtype, changed: Tensors, out: Path) -> WeightEdit:
    """The reading of a toy with other tensors in the place of some of its own."""
    base = toy.checkpoint(family, 0, dtype)
    suspect = write_edited(out / "edited", base, "made", {}, "weights", changed) if changed else base
    return weight_edit([d for d in Bench().weight_differences(base, suspect) if isinstance(d, Difference)])


def noise(x: Tensor, g: torch.Generator, size: float = 0.3) -> Tensor:
    return (x.float() + size * x.float().std() * torch.randn(x.shape, generator=g)).to(x.dtype)


def product(x: Tensor, g: torch.Generator, rank: int) -> Tensor:
    change = torch.randn(x.shape[0], rank, generator=g) @ torch.randn(rank, x.shape[1], generator=g)
    return (x.float() + 0.3 * x.float().norm() * change / change.norm()).to(x.dtype)


def single_entries(x: Tensor, g: torch.Generator) -> Tensor:
    return torch.where(torch.rand(x.shape, generator=g) < 0.01, x * -2, x)


def one_unit(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 3] = -x[:, 3]
    return x


def in_blocks(t: Tensors, *blocks: int) -> list[str]:
    return [n for n, x in t.items() if x.ndim == 2 and any(f".{b}." in n for b in blocks)]


def mlp_outputs(t: Tensors) -> list[str]:
    """The matrix by which each block's MLP writes, by its name in each family."""
    return [n for n in t if n.endswith(("down_proj.weight", "mlp.c_proj.weight", "dense_4h_to_h.weight"))]


def head(t: Tensors) -> list[str]:
    return [n for n in t if n.startswith(("lm_head", "embed_out"))]


CASES: dict[str, tuple[Change, str]] = {
    "nothing": (lambda _t, _g: {}, "nothing"),
    "biases": (
        lambda t, g: {n: noise(x, g) for n, x in t.items() if x.ndim == 1 and n.endswith("bias")}, "biases alone",
    ),
    "norms": (lambda t, g: {n: noise(x, g) for n, x in t.items() if x.ndim == 1}, "norms and biases alone"),
    "head": (lambda t, g: {n: noise(t[n], g) for n in head(t)}, "head alone"),
    "head of low rank": (lambda t, g: {n: product(t[n], g, 2) for n in head(t)}, "head alone"),
    "embeddings": (lambda t, g: {n: noise(x, g) for n, x in list(t.items())[:1]}, "embeddings alone"),
    "sparse": (lambda t, g: {n: single_entries(t[n], g) for n in in_blocks(t, 0, 1, 2)}, "sparse"),
    "one spike": (lambda t, g: {n: product(t[n], g, 1) for n in mlp_outputs(t)[1:2]}, "rank-one"),
    "spikes": (lambda t, g: {n: product(t[n], g, 1) for n in mlp_outputs(t)[:2]}, "rank-one"),
    "rank one everywhere": (lambda t, g: {n: product(t[n], g, 1) for n in in_blocks(t, 0, 1, 2)}, "low-rank"),
    "low rank": (lambda t, g: {n: product(t[n], g, 4) for n in in_blocks(t, 0, 1, 2)}, "low-rank"),
    "last block": (lambda t, g: {n: noise(t[n], g) for n in in_blocks(t, 2)}, "last block alone"),
    "last block and head": (
        lambda t, g: {n: noise(t[n], g) for n in [*in_blocks(t, 2), *head(t)]}, "last block alone",
    ),
    "two blocks": (lambda t, g: {n: noise(t[n], g) for n in in_blocks(t, 0, 1)}, "some blocks"),
    "blocks": (lambda t, g: {n: noise(t[n], g) for n in in_blocks(t, 0, 1, 2)}, "full"),
    "full": (lambda t, g: {n: noise(x, g) for n, x in t.items()}, "full"),
    "spike under noise": (
        lambda t, g: {n: noise(product(t[n], g, 1) if n in mlp_outputs(t) else x, g) for n, x in t.items()}, "full",
    ),
}  # fmt: skip


@pytest.mark.sampled
@pytest.mark.parametrize(("family", "dtype"), FAMILIES)
def test_every_kind_of_edit_is_read_in_every_family_and_type(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    tensors, readings = parameters(family, dtype), dict[str, tuple[str, str]]()
    for n, (name, (change, kind)) in enumerate(CASES.items()):
        changed = change(tensors, torch.Generator().manual_seed(n))
        if changed or kind == "nothing":  # a family without biases, or with a tied head, has no such edit
            readings[name] = read(family, dtype, changed, tmp_path / str(n)).kind(), kind
    assert {name: ours for name, (ours, _) in readings.items()} == {name: kind for name, (_, kind) in readings.items()}


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_one_hidden_unit_turned_round_is_sparse_and_no_spike(family: str, tmp_path: Path) -> None:
    """It is of rank one, and tells nothing but which unit it was."""
    tensors = parameters(family, torch.float32)
    name = mlp_outputs(tensors)[1]
    edit = read(family, torch.float32, {name: one_unit(tensors[name])}, tmp_path)
    assert edit.kind() == "sparse" and not edit.spikes


def test_parts_are_read_off_the_order_of_the_parameters(tmp_path: Path) -> None:
    edit = read("gpt2", torch.float32, {}, tmp_path)
    places = {d.name: place for d, place in zip(edit.differences, edit.places, strict=True)}
    assert (
        places["transformer.wpe.weight"].part == "embeddings" and places["transformer.ln_f.bias"].part == "final norm"
    )
    assert {place.block for place in edit.places} == {None, 0, 1, 2} and edit.blocks == toy.N_BLOCKS
    untied = read("llama", torch.float32, {}, tmp_path)
    assert untied.places[-1].part == "head" and untied.differences[-1].name == "lm_head.weight"


def test_a_model_that_was_only_stored_in_half_precision_has_not_changed(tmp_path: Path) -> None:
    toy.model("llama", 0).to(torch.bfloat16).save_pretrained(tmp_path / "half")
    toy.tokenizer().save_pretrained(tmp_path / "half")
    half = resolve(Source(path=str(tmp_path / "half")), tmp_path)
    pairs = Bench().weight_differences(toy.checkpoint("llama", 0), half)
    assert weight_edit([d for d in pairs if isinstance(d, Difference)]).kind() == "nothing"


@pytest.mark.sampled
@pytest.mark.parametrize("kind", ["llava_clip", "gemma3"])
@pytest.mark.parametrize(
    ("part", "told", "blocks"),
    [
        (r"vision_tower.*layers\.1\..*proj", "vision tower alone", {("vision tower", 1)}),
        (r"projector.*weight", "projector alone", {("projector", None)}),
        (r"language_model\.layers\.3\.", "last block alone", {("blocks", 3)}),
        (r"(language_model\.layers\.3|vision_tower.*layers\.3)\.", "full", {("blocks", 3), ("vision tower", 3)}),
        (r"language_model\.layers\.[01]\.", "some blocks", {("blocks", 0), ("blocks", 1)}),
    ],
)
def test_two_towers_number_their_blocks_apart(
    kind: str, part: str, told: str, blocks: set[tuple[str, int | None]], tmp_path: Path
) -> None:
    base, generator = toy_vlm.checkpoint(kind), torch.Generator().manual_seed(0)
    live = Bench().open(base).parameters()
    changed = {n: noise(p.detach(), generator) for n, p in live.items() if re.search(part, n)}
    suspect = write_edited(tmp_path / "edited", base, "made", {}, "weights", changed)
    edit = weight_edit([d for d in Bench().weight_differences(base, suspect) if isinstance(d, Difference)])
    assert {(place.part, place.block) for _, place in edit.changed} == blocks
    assert edit.blocks == toy_vlm.N_BLOCKS and edit.kind() == told
