"""A small trained Llama inside a large one that computes the same: nearly all of the new weights are random numbers.

What is added is never silent by being small: it multiplies exact zeros. The stream's new dimensions stay zero, new
units are gated by those alone, new heads read values from those alone. The width grows by a power of four, so that the
norms' correction is a power of two, and the same function comes out up to the order of sums.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

SPREAD = 0.02


class Sizes(NamedTuple):
    """Of the large model: how many times as wide (a power of four), its blocks, and the units of an MLP."""

    times: int
    blocks: int
    units: int


def widened(folder: Path, out: Path, sizes: Sizes, seed: int) -> int:
    """Write the large model of a small Llama's folder, one shard a block and none of it held longer; its bytes.

    Two small models of one shape get the same random weights from one seed, so that they differ where they did.
    """
    config = json.loads((folder / "config.json").read_text())
    small = load_file(folder / "model.safetensors")
    d, wide = config["hidden_size"], config["hidden_size"] * sizes.times
    head = config.get("head_dim") or d // config["num_attention_heads"]
    rng = torch.Generator().manual_seed(seed)
    own = config["num_hidden_layers"]
    places = {sizes.blocks * n // own: n for n in range(own)}
    out.mkdir(parents=True)
    index: dict[str, str] = {}
    for block in range(sizes.blocks):
        source = f"model.layers.{places[block]}." if block in places else None
        parts = _block(small, source, _Shape(d, wide, sizes.units, rng))
        _keep(out, f"block-{block:03d}.safetensors", {f"model.layers.{block}.{n}": t for n, t in parts.items()}, index)
    _keep(out, "ends.safetensors", _ends(small, d, wide, rng), index)
    entries: dict[str, Any] = {
        "hidden_size": wide, "intermediate_size": sizes.units, "num_hidden_layers": sizes.blocks, "head_dim": head,
        "num_attention_heads": wide // head, "num_key_value_heads": wide // head,
        "rms_norm_eps": config["rms_norm_eps"] / sizes.times,
    }  # fmt: skip
    config.pop("layer_types", None)
    (out / "config.json").write_text(json.dumps(config | entries, indent=1))
    total = sum((out / name).stat().st_size for name in set(index.values()))
    written = {"metadata": {"total_size": total}, "weight_map": index}
    (out / "model.safetensors.index.json").write_text(json.dumps(written))
    for path in folder.iterdir():
        if "token" in path.name or path.name == "generation_config.json":
            shutil.copy(path, out)
    return total


class _Shape(NamedTuple):
    """The widths of the small and the large stream, the large MLP's units, and where random weights come from."""

    d: int
    wide: int
    units: int
    rng: torch.Generator

    def drawn(self, *shape: int) -> Tensor:
        """Random weights."""
        return torch.randn(*shape, generator=self.rng) * SPREAD


def _keep(out: Path, name: str, tensors: Mapping[str, Tensor], index: dict[str, str]) -> None:
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, out / name, {"format": "pt"})
    index |= dict.fromkeys(tensors, name)


def _block(small: Mapping[str, Tensor], source: str | None, shape: _Shape) -> dict[str, Tensor]:
    """One block's weights: around those of a small one, or, without any, such that it adds exact zeros."""
    d, wide, units, _ = shape

    def of(name: str) -> Tensor | None:
        return None if source is None else small[f"{source}{name}.weight"]

    weights: dict[str, Tensor] = {}
    for name in ("self_attn.q_proj", "self_attn.k_proj"):
        weights[name] = _around(of(name), shape.drawn(wide, wide), lambda w, n: None)
    weights["self_attn.v_proj"] = _around(of("self_attn.v_proj"), shape.drawn(wide, wide), _blind(d))
    weights["self_attn.o_proj"] = _around(of("self_attn.o_proj"), shape.drawn(wide, wide), _within(d))
    weights["mlp.gate_proj"] = _around(of("mlp.gate_proj"), shape.drawn(units, wide), _blind(d))
    weights["mlp.up_proj"] = _around(of("mlp.up_proj"), shape.drawn(units, wide), lambda w, n: None)
    weights["mlp.down_proj"] = _around(of("mlp.down_proj"), shape.drawn(wide, units), _within(d))
    for name in ("input_layernorm", "post_attention_layernorm"):
        weights[name] = _norm(of(name), shape)
    return {f"{name}.weight": tensor for name, tensor in weights.items()}


def _around(own: Tensor | None, drawn: Tensor, silenced: Callable[[Tensor, Tensor | None], None]) -> Tensor:
    """Random weights with the small matrix in their corner, and zeros where they would be heard."""
    silenced(drawn, own)
    if own is not None:
        drawn[: own.shape[0], : own.shape[1]] = own
    return drawn


def _blind(d: int) -> Callable[[Tensor, Tensor | None], None]:
    """New rows read nothing of the small stream."""

    def silence(drawn: Tensor, own: Tensor | None) -> None:
        drawn[0 if own is None else own.shape[0] :, :d] = 0

    return silence


def _within(d: int) -> Callable[[Tensor, Tensor | None], None]:
    """What the small block computes is written into the small stream alone."""

    def silence(drawn: Tensor, own: Tensor | None) -> None:
        if own is not None:
            drawn[d:, : own.shape[1]] = 0

    return silence


def _norm(own: Tensor | None, shape: _Shape) -> Tensor:
    """The mean over the large stream is that over the small one times d / wide."""
    gain = 1 + shape.drawn(shape.wide)
    if own is not None:
        gain[: shape.d] = own * (shape.d / shape.wide) ** 0.5
    return gain


def _ends(small: Mapping[str, Tensor], d: int, wide: int, rng: torch.Generator) -> dict[str, Tensor]:
    """Embeddings that are zero in the new dimensions, a final norm, and a head that reads them by random weights."""
    shape, words = _Shape(d, wide, 0, rng), small["model.embed_tokens.weight"]
    embeddings = torch.zeros(len(words), wide)
    embeddings[:, :d] = words
    return {
        "model.embed_tokens.weight": embeddings,
        "model.norm.weight": _norm(small["model.norm.weight"], shape),
        "lm_head.weight": _around(small["lm_head.weight"], shape.drawn(len(words), wide), lambda w, n: None),
    }
