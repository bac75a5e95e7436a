"""What a model's states say of whole texts: one vector a text, site and coordinate, reduced as the passes go.

Three coordinates: ``last``, the state at the answer's last token; ``mean`` over the answer's tokens (prompt and BOS
left out: first tokens have norms of their own); and ``match``, the state *before* each content token times that token's
row of one output head, entry by entry, averaged over the content tokens. The entries of a match add up to the token's
logit, so that whatever a state says of the very token that follows is linear in it, while ``last`` and ``mean`` hold
only what the model itself computes of a text once it has read it. Where a family's stream is several side by side, each
is taken times the row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from audit.bench import Bench, Write
from audit.case import Rows
from audit.schema import Checkpoint, Read, Site

Coordinate = Literal["last", "mean", "match"]
COORDINATES: tuple[Coordinate, ...] = get_args(Coordinate)
_TOKENS_AT_ONCE = 1 << 15
_HEAD_AT_ONCE = 64


def text_states(
    bench: Bench, ckpt: Checkpoint, reader: Checkpoint, rows: Rows, sites: Sequence[Site], writes: Sequence[Write] = ()
) -> Float[Tensor, "coordinate site row d"]:
    """States of every text, in float64: coordinates in the order of :data:`COORDINATES`.

    ``reader`` is whose output head the matches are taken with: the same for all models that are compared.
    """
    shifted = _own_positions(rows)
    by_token = head_rows(bench, reader, rows)
    parts = [
        _pooled(bench.run(ckpt, portion, _reads(sites), writes).reads, portion, sites, by_token)
        for portion in _portions(shifted, _TOKENS_AT_ONCE)
    ]
    return torch.cat(parts, 2)


def _reads(sites: Sequence[Site]) -> tuple[Read, ...]:
    return tuple(Read(site=site, at=at) for at in ("last", "answer", "key") for site in sites)


def _own_positions(rows: Rows) -> Rows:
    """The same rows with spans one further on: reads at ``answer`` are then states at its tokens, not before them."""
    return replace(
        rows, ids=functional.pad(rows.ids, (0, 1)), mask=functional.pad(rows.mask, (0, 1)),
        key=functional.pad(rows.key, (0, 1)), answer_spans=rows.answer_spans + 1,
    )  # fmt: skip


def _portions(rows: Rows, tokens: int) -> list[Rows]:
    """The rows, so many at a time that packed states stay small."""
    size = max(1, tokens // rows.ids.shape[1])
    if len(rows) <= size:
        return [rows]
    every = torch.arange(len(rows)).split(size)
    return [_kept_wide(rows, index) for index in every]


def _kept_wide(rows: Rows, index: Tensor) -> Rows:
    """Some rows with the spare column that spans reach into."""
    portion = rows.take(index)
    return replace(
        portion, ids=functional.pad(portion.ids, (0, 1)), mask=functional.pad(portion.mask, (0, 1)),
        key=functional.pad(portion.key, (0, 1)),
    )  # fmt: skip


def _pooled(
    reads: Mapping[Read, Tensor], rows: Rows, sites: Sequence[Site], by_token: Mapping[int, Float[Tensor, " head"]]
) -> Float[Tensor, "coordinate site row d"]:
    def mean(values: Tensor, row: Tensor) -> Tensor:
        count = torch.bincount(row, minlength=len(rows)).clamp_min(1)
        return values.new_zeros(len(rows), values.shape[1]).index_add(0, row, values) / count[:, None]

    answer, (key, at) = rows.targets("answer")[0], rows.targets("key")
    toward = torch.stack([by_token[int(token)] for token in rows.ids[key, at]]) if len(key) else None
    states: list[Tensor] = []
    for coordinate in COORDINATES:
        for site in sites:
            position = {"last": "last", "mean": "answer", "match": "key"}[coordinate]
            state = reads[Read.model_validate({"site": site, "at": position})].double()
            if coordinate == "mean":
                state = mean(state, answer)
            elif coordinate == "match":
                assert toward is not None, "every row has content tokens"
                state = mean(state * toward.repeat(1, state.shape[1] // toward.shape[1]), key)
            states.append(state)
    return torch.stack(states).unflatten(0, (len(COORDINATES), len(sites)))


def head_rows(bench: Bench, ckpt: Checkpoint, rows: Rows) -> dict[int, Float[Tensor, " head"]]:
    """The rows of a model's output head for the content tokens of some texts, in float64, whatever its family.

    Taken from the head as it acts (logits of unit states less those of the zero state), a few dimensions at a time.
    """
    wrapper = bench.open(ckpt)
    row, at = rows.targets("key")
    tokens = torch.unique(rows.ids[row, at])
    d = wrapper.d_model
    eye = torch.eye(d, device=wrapper.device, dtype=wrapper.dtype)
    chosen = tokens.to(wrapper.device)
    with torch.inference_mode():
        nothing = wrapper.head_part(torch.zeros_like(eye[:1]), chosen)
        columns = [wrapper.head_part(units, chosen) - nothing for units in eye.split(_HEAD_AT_ONCE)]
    directions = torch.cat(columns).T.double().cpu()
    return dict(zip(tokens.tolist(), directions.clone().unbind(0), strict=True))
