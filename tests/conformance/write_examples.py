"""An example of any write, made from the annotations of its fields; it moves every state that it is meant to move."""

import dataclasses
import typing
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from audit.bench import Bench, Write
from audit.bench.results import Pass
from audit.bench.writes.features import Dictionary
from audit.case import Rows
from audit.schema import Checkpoint, Part, Read, Site
from tests import toy

ROWS = toy.rows(6)
WRITERS = 1 + 2 * toy.N_BLOCKS
SIZES = {
    "row": len(ROWS), "pos": ROWS.ids.shape[1], "d": 48, "k": 2, "n": 2, "column": 5, "vocab": toy.VOCAB,
    "writer": WRITERS, "reader": WRITERS, "concept": 2, "unit": toy.config("llama").intermediate_size,
}  # fmt: skip


class ToyDictionary:
    """A dictionary of relus, the same for the same seed."""

    def __init__(self, seed: int, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.w = (torch.randn(48, 96, generator=generator) / 7).to(dtype)
        self.d = (torch.randn(96, 48, generator=generator) / 7).to(dtype)

    def encode(self, x: Tensor) -> Tensor:
        return (x @ self.w + 1.0).relu()

    def decode(self, feature_acts: Tensor) -> Tensor:
        return feature_acts @ self.d


@cache
def writers(seed: int) -> Pass:
    """What every block wrote in another model."""
    parts: tuple[Part, ...] = ("attn_out", "mlp_out")
    sites = [Site(part="embed"), *(Site(part=p, block=b) for b in range(toy.N_BLOCKS) for p in parts)]
    return Bench().run(toy.checkpoint("llama", seed + 1), ROWS, [Read(site=site, at="all") for site in sites])


def tensor(hint: typing.Any, seed: int, fill: float | None) -> Tensor:
    """A tensor of the annotated shape: random by the seed, or filled. Axes that may be left out are left out."""
    axes = [axis for axis in hint.dim_str.split() if not axis.startswith("*")]
    shape, dtypes = [SIZES[axis] for axis in axes], hint.dtypes
    generator = torch.Generator().manual_seed(seed)
    if "bool" in dtypes:
        return torch.rand(shape, generator=generator) < 0.5 if fill is None else torch.full(shape, bool(fill))
    if "int64" in dtypes:
        return torch.randperm(40, generator=generator)[: shape[-1]].expand(shape)
    return torch.randn(shape, generator=generator) if fill is None else torch.full(shape, fill)


PLAIN: dict[object, Callable[[int], object]] = {
    Site: lambda seed: Site(part="resid_out", block=1 + seed % 2),
    Checkpoint: lambda seed: toy.checkpoint("llama", seed + 1),
    Pass: writers,
    Dictionary: ToyDictionary,
    str: lambda seed: f"name{seed}",
    bool: lambda seed: bool(seed % 2),
    int: lambda seed: seed % toy.N_BLOCKS,
}


def choices(hint: typing.Any) -> list[typing.Any]:
    """What a value may be: the types of a union and the values of a literal, None left out."""
    inside = typing.get_args(hint)
    flat = [choice for part in inside for choice in choices(part)] if inside else [hint]
    return [choice for choice in flat if choice is not type(None)]


def value(hint: typing.Any, seed: int, fill: float | None = None) -> object:
    """A value of the annotated type; of several types, the first that is known."""
    options = choices(hint)
    for option in options:
        if option in PLAIN:
            return PLAIN[option](seed)
        if option is float:
            return float(seed) - 2.0 if fill is None else fill
        if hasattr(option, "dim_str"):
            return tensor(option, seed, fill)
        if isinstance(option, str):
            return options[seed % len(options)]
    raise AssertionError(f"there is no example of {hint}: add one to {__name__}")


def hints(kind: type[Write]) -> dict[str, typing.Any]:
    """The annotated types of everything that a write is made of."""
    annotated = typing.get_type_hints(kind)
    return {field.name: annotated[field.name] for field in dataclasses.fields(kind) if field.init}


def example(kind: type[Write], fill: float | None = None, **given: object) -> Write:
    """The write with random tensors (or filled ones), named where it can be, everything else as its defaults say."""
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    needed = {n for n, field in fields.items() if field.default is dataclasses.MISSING or n == "name"}
    values = {name: value(hint, 0, fill) for name, hint in hints(kind).items() if name in needed}
    return kind(**values | given)


def other(kind: type[Write], name: str) -> Write:
    """The same write but for one field."""
    plain = example(kind)
    hint = hints(kind)[name]
    candidates = (value(hint, seed) for seed in range(1, 9))
    current = getattr(plain, name)
    changed = next(c for c in candidates if isinstance(c, Tensor) or c != current)
    return example(kind, **{name: changed})


def named_states(rows: Rows, positions: str) -> Tensor:
    """[row pos]: the states that ``positions`` names."""
    if positions == "all":
        return rows.mask
    at = torch.zeros_like(rows.mask)
    if positions == "last":
        at[torch.arange(len(rows)), rows.lengths - 1] = True
    else:
        row, position = rows.targets(positions)  # type: ignore[arg-type]
        at[row, position - 1] = True
    return at
