"""Mutations of weights: a header that lies, a tensor that no training leaves, names and shapes of another model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from studies.fuzz.mutations import Kind, Rng
from studies.fuzz.world import ROLES


def _file(rng: Rng, root: Path) -> Path:
    return root / rng.choice(ROLES) / "model.safetensors"


# ---- the header -------------------------------------------------------------------------------------------------
def _on_header(change: Callable[[Rng, dict[str, Any], str], object]) -> Callable[[Rng, Path], None]:
    def act(rng: Rng, root: Path) -> None:
        _change_header(rng, _file(rng, root), change)

    return act


def damage_header(rng: Rng, path: Path) -> None:
    """One of the lies of a header, in one file."""
    _change_header(rng, path, rng.choice(list(HEADER.values())))


def _change_header(rng: Rng, path: Path, change: Callable[[Rng, dict[str, Any], str], object]) -> None:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    changed = change(rng, header, rng.choice([name for name in header if name != "__metadata__"]))
    raw = (changed if isinstance(changed, str) else json.dumps(header)).encode(errors="surrogatepass")
    raw += b" " * (-len(raw) % 8)
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data[8 + length :])


def _dtype(rng: Rng, header: dict[str, Any], name: str) -> None:
    drawn = ("I32", "U32", "I64", "F16", "BF16", "F8_E4M3", "BOOL", "C64", "F4", "", "f32", 7, None, ["F32"])
    header[name]["dtype"] = rng.choice(drawn)


def _shape(rng: Rng, header: dict[str, Any], name: str) -> None:
    shape = header[name]["shape"]
    drawn = ([], shape[::-1], [*shape, 1], [-side for side in shape], [2**40, 2**40], [0], [None], "a", [1.5], {},
             [1, *shape], [-1] * len(shape), [10**400])  # fmt: skip
    header[name]["shape"] = rng.choice(drawn)


def _offsets(rng: Rng, header: dict[str, Any], name: str) -> None:
    start, end = header[name]["data_offsets"]
    drawn = ([end, start], [start, end + 8], [start + 4, end], [-8, end], [0, 2**63], [start], [], "ab", None,
             [start, end, end], [str(start), str(end)])  # fmt: skip
    header[name]["data_offsets"] = rng.choice(drawn)


def _entry(rng: Rng, header: dict[str, Any], name: str) -> None:
    header[name] = rng.choice((None, [], 3, "x", {}, {"dtype": "F32"}, {**header[name], "more": 1}))


def _name(rng: Rng, header: dict[str, Any], name: str) -> None:
    drawn = ("", "\0", "../x", "x" * 5000, f"{name}.", name.upper(), "\x1b[31m", "\ud800", f"module.{name}")
    header[rng.choice(drawn)] = header.pop(name)


def _metadata(rng: Rng, header: dict[str, Any], _name: str) -> None:
    drawn = (None, 3, [], {"a": 1}, {"format": "tf"}, {"format": "\x1b"}, {"a": {}}, "x")
    header["__metadata__"] = rng.choice(drawn)


def _text(rng: Rng, header: dict[str, Any], _name: str) -> str:
    text = json.dumps(header)
    deep = "[" * 20_000 + "]" * 20_000
    return rng.choice((f"[{text}]", "{}", "null", text[:-1] + f', "deep": {deep}}}', text * 2, text[:-1],
                       text.replace("{", '{"__metadata__": {}, ', 1)))  # fmt: skip


def _length(rng: Rng, root: Path) -> None:
    path = _file(rng, root)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    claimed = rng.choice((0, 1, length - 1, length + 1, 2**63, 2**64 - 1, len(data), 100_000_001))
    path.write_bytes(claimed.to_bytes(8, "little") + data[8:])


# ---- the numbers ------------------------------------------------------------------------------------------------
def _on_tensor(change: Callable[[Rng, Tensor], Tensor]) -> Callable[[Rng, Path], None]:
    def act(rng: Rng, root: Path) -> None:
        path = _file(rng, root)
        tensors = load_file(path)
        chosen = rng.sample(sorted(tensors), rng.choice((1, 1, 1, 3, len(tensors))))
        save_file({n: change(rng, t).contiguous() if n in chosen else t for n, t in tensors.items()}, path,
                  metadata={"format": "pt"})  # fmt: skip

    return act


def _not_a_number(rng: Rng, tensor: Tensor) -> Tensor:
    changed = tensor.clone()
    changed.view(-1)[rng.randrange(tensor.numel())] = rng.choice((float("nan"), float("inf"), float("-inf")))
    return changed


def _scaled(rng: Rng, tensor: Tensor) -> Tensor:
    return tensor * rng.choice((1e-30, -1.0, 1e3, 1e10, 1e18, 1e30))


def _largest(_rng: Rng, tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, torch.finfo(tensor.dtype).max)


def _stored_as(rng: Rng, tensor: Tensor) -> Tensor:
    drawn = (torch.int8, torch.int32, torch.int64, torch.uint8, torch.bool, torch.float16, torch.bfloat16,
             torch.float64)  # fmt: skip
    return tensor.to(rng.choice(drawn))


def _reshaped(rng: Rng, tensor: Tensor) -> Tensor:
    return rng.choice((tensor.reshape(-1), tensor[:1], tensor[None], tensor.T if tensor.ndim == 2 else tensor[:-1]))


def _set_of_tensors(rng: Rng, root: Path) -> None:
    """A tensor missing, one too many, one of another block, or the whole file of another role."""
    path = _file(rng, root)
    tensors = load_file(path)
    name = rng.choice(sorted(tensors))
    other = load_file(root / rng.choice(ROLES) / "model.safetensors")
    drawn: tuple[dict[str, Tensor], ...] = (
        {n: t for n, t in tensors.items() if n != name}, {**tensors, "extra.weight": tensors[name].clone()},
        {**tensors, name: other[name]}, other, {}, {**tensors, "model.layers.7.mlp.up_proj.weight": torch.ones(3, 3)},
        {n.replace("layers.0", "layers.2"): t for n, t in tensors.items()},
    )  # fmt: skip
    save_file(rng.choice(drawn), path, metadata={"format": "pt"})


_SAME: Final = "the header says the same in other words"
_STILL: Final = (
    "a model that is not base's, whose outputs are numbers: a suspect of any kind, or a null that knows nothing"
)
HEADER: Final = {
    "a dtype that lies": _dtype, "a shape that lies": _shape, "places that lie": _offsets, "an entry": _entry,
    "a tensor's name": _name, "metadata": _metadata, "the header's text": _text,
}  # fmt: skip
NUMBERS: Final[dict[str, Callable[[Rng, Tensor], Tensor]]] = {
    "NaN or infinite": _not_a_number, "zero": lambda _rng, tensor: torch.zeros_like(tensor), "scaled": _scaled,
    "constant": lambda _rng, tensor: torch.full_like(tensor, 0.5), "largest numbers": _largest,
    "rounded to integers": lambda _rng, tensor: (tensor * 9).round(), "stored as another type": _stored_as,
    "another shape": _reshaped, "sign": lambda _rng, tensor: -tensor,
}  # fmt: skip
WEIGHT_KINDS: Final = (
    *(Kind("weights", name, _on_header(change), _SAME) for name, change in HEADER.items()),
    Kind("weights", "the header's length", _length, ""),
    *(Kind("weights", name, _on_tensor(change), _STILL) for name, change in NUMBERS.items()),
    Kind("weights", "the set of tensors", _set_of_tensors, _STILL),
)
