"""The dictionary that a probe looks through: one that the user names, or one trained on base's states and kept."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from audit.probing import AuditError, Bench, OpenCase, Read, Rows, Texts, stacked, width
from probes._profiles import after
from saes import (
    SparseCoder,
    TensorActivations,
    TrainingSettings,
    Validity,
    measure,
    read_dictionary,
    read_published,
    validity,
)

_STATES = 60_000
"""States that a dictionary is trained on, at the most: rows are drawn until there are as many."""
_HELD_OUT = 8


class Wanted(NamedTuple):
    """Which dictionary: the one at ``path`` (empty: none), or one of ``per_width`` features a channel with ``k`` active
    (0: a quarter of the channels, at most 16), trained on so many ``rows``."""

    path: str
    layer: int
    per_width: int
    k: int
    rows: int


def dictionary(bench: Bench, case: OpenCase, wanted: Wanted, texts: tuple[Texts, ...]) -> SparseCoder:
    """The dictionary, read or trained; what was trained is named by content and kept in the bench's store (without one
    in the folder of the run), so that other suspects of the same base are looked at through the same one.

    AuditError: code 2 for a dictionary of another width, 3 for a damaged one.
    """
    if wanted.path:
        return _given(case, Path(wanted.path), wanted.layer)
    from saes import train  # what trains is imported by whoever has to train

    drawn = _drawn(case, texts)
    first = torch.arange(len(drawn)) % _HELD_OUT == 0
    parts = [_states(bench, case, drawn.take(torch.nonzero(mask)[:, 0]), wanted.layer) for mask in (~first, first)]
    d = next(iter(parts[0].values())).shape[1]
    settings = TrainingSettings(
        features=wanted.per_width * d, k=wanted.k or max(2, min(16, d // 4)), rows=wanted.rows, seed=case.case.seed
    )
    key = bench.key("restoration_dictionary", case.base.key, drawn.hash, wanted.layer, settings.model_dump(mode="json"))
    folder = case.out / "dictionaries" / key[:32] if bench.store is None else bench.store.folder(key)
    source, held_out = (TensorActivations(states) for states in parts)
    with bench.alone(key):
        return train(source, held_out, settings, folder)[0].coder


def _given(case: OpenCase, path: Path, layer: int) -> SparseCoder:
    place = path if path.is_absolute() else case.root / path
    coder = read_dictionary(place).coder if place.is_dir() else read_published(place)
    if coder.width != (d := width(case.base)):
        do = f"name a dictionary of the states after block {layer} of a model of this size"
        raise AuditError(f"{place}: a dictionary of width {coder.width}, and base's states are {d} wide", do)
    return coder


def _drawn(case: OpenCase, texts: tuple[Texts, ...]) -> Rows:
    """Rows of these texts, every n-th of all where there are too many states."""
    rows = stacked([case.rows(each) for each in texts if case.has(each)])
    every = max(1, int(rows.mask.sum()) // _STATES)
    return rows.take(torch.arange(0, len(rows), every))


def _states(bench: Bench, case: OpenCase, rows: Rows, layer: int) -> dict[str, Tensor]:
    """Base's states after the block, one a row: of texts without padding and the BOS token, of images all."""
    read = Read(site=after(layer), at="all")
    states = bench.run(case.base, rows, (read,))[read]
    if bench.open(case.base).tower().by_token:
        bos = getattr(case.tokenizer, "bos_token_id", None)
        return {str(read.site): states[rows.mask & (rows.ids != (-1 if bos is None else bos))]}
    return {str(read.site): states.flatten(0, 1)}


def fits(coder: SparseCoder, base: Tensor, other: Tensor) -> Validity:
    """May the dictionary be used on the other model? Both are given as states [state d]."""
    fidelities = [measure(coder, TensorActivations({"states": x}), "states").fidelity for x in (base, other)]
    return validity(*fidelities)
