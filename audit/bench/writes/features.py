"""Dictionary features scaled in place."""

import copy
from dataclasses import dataclass, field
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from audit.bench.layout import Geometry
from audit.bench.places import Places, check_position, places
from audit.bench.writes.write import Write, check_positions, content_of, content_of_rows, tap_at
from audit.schema import Positions, Site
from audit.wrappers import Tap, Wrapper


@runtime_checkable
class Dictionary(Protocol):
    """What :class:`Features` needs of a sparse autoencoder (sae_lens objects fit)."""

    def encode(self, x: Tensor) -> Tensor: ...
    def decode(self, feature_acts: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Features(Write):
    """Scale dictionary features in place: h <- h + decode(f') - decode(f), f'[columns] = scale * f[columns].

    ``name`` is the content hash of the dictionary; without it the pass is not cached. ``positions``: which of a row's
    states (None: every one, virtual tokens included); ``rows``: which rows (None: all). The dictionary itself stays
    where and as it is: a copy of it computes on the state's device and in the state's dtype.
    """

    site: Site
    sae: Dictionary
    columns: Int[Tensor, " column"]
    scale: float
    name: str | None = None
    positions: Positions | None = None
    rows: Bool[Tensor, " row"] | None = None
    _placed: dict[tuple[torch.device, torch.dtype], Dictionary] = field(
        default_factory=dict[tuple[torch.device, torch.dtype], Dictionary], init=False, repr=False
    )

    def key(self) -> tuple[str, ...] | None:
        if self.name is None:
            return None
        everywhere = self.positions is None and self.rows is None
        limits = () if everywhere else (str(self.positions), content_of_rows(self.rows))
        return str(self.site), self.name, content_of(self.columns), repr(self.scale), *limits

    def bites(self) -> bool:
        return self.scale != 1 and len(self.columns) > 0 and (self.rows is None or bool(self.rows.any()))

    def taps(self, wrapper: Wrapper, where: Geometry, given: Tensor | None) -> list[Tap]:
        everywhere, spots = self.positions is None and self.rows is None, places(where, wrapper, self.site)
        check_positions(self.site, self.positions, "scaled by its features")
        if self.positions is not None:
            check_position(self.site, spots.tower, self.positions)

        def visit(state: Tensor) -> Tensor:
            if everywhere:
                return self._scaled(state)
            chosen = self._chosen(spots, state)
            state = state.clone()
            state[chosen] = self._scaled(state[chosen])
            return state

        return [tap_at(self.site, visit)]

    def _chosen(self, spots: Places, state: Tensor) -> Bool[Tensor, "row pos"]:
        """Which states of the padded batch change."""
        n, total = state.shape[:2]
        everyone = torch.ones(n, total, dtype=torch.bool, device=state.device)
        at = everyone if self.positions is None else spots.among(state, self.positions)
        return at if self.rows is None else at & spots.where.of_rows(self.rows).to(state.device)[:, None]

    def _scaled(self, state: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        sae = self._placed_at(state)
        features = sae.encode(state)
        changed, columns = features.clone(), self.columns.to(state.device)
        changed[..., columns] = changed[..., columns] * self.scale
        return state + (sae.decode(changed) - sae.decode(features)).to(state.dtype)

    def _placed_at(self, state: Tensor) -> Dictionary:
        place = state.device, state.dtype
        if place not in self._placed:
            with torch.inference_mode(False), torch.no_grad():  # a later pass may take gradients through the copy
                self._placed[place] = placed(self.sae, *place)
        return self._placed[place]


def placed(sae: Dictionary, device: torch.device, dtype: torch.dtype) -> Dictionary:
    """The dictionary with its tensors on a device, floating ones in a dtype: itself where they are, else a copy.

    Its tensors are those of a module, or the tensors and modules that another object holds as attributes.
    """
    if isinstance(sae, nn.Module):
        return cast(Dictionary, _moved(sae, device, dtype))
    held = {name: part for name, part in vars(sae).items() if isinstance(part, Tensor | nn.Module)}
    moved = {name: _moved(part, device, dtype) for name, part in held.items()}
    if all(moved[name] is part for name, part in held.items()):
        return sae
    twin = copy.copy(sae)
    vars(twin).update(moved)
    return twin


def _moved(part: Tensor | nn.Module, device: torch.device, dtype: torch.dtype) -> Tensor | nn.Module:
    if isinstance(part, Tensor):
        return part.to(device, dtype if part.is_floating_point() else part.dtype)
    tensors = [*part.parameters(), *part.buffers()]
    fits = all(t.device == device and (t.dtype == dtype or not t.is_floating_point()) for t in tensors)
    return part if fits else copy.deepcopy(part).to(device, dtype)
