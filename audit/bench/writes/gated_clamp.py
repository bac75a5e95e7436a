"""What clamping features of a sparse dictionary does, as a write that carries the part of the dictionary it needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench.layout import Geometry
from audit.bench.writes.write import Write, content_of, site_of, tap_at
from audit.schema import AuditError, Site
from audit.wrappers import Tap, Wrapper

_ARRAYS = ("features", "encoder", "bias", "threshold", "decoder", "slope", "offset")
_LEADING = "leading"
_STORED = (*_ARRAYS, _LEADING)


@dataclass(frozen=True, eq=False)
class GatedClamp(Write):
    """Moves features of a dictionary where they are active: h <- h + dz decoder, dz_j = slope_j z_j + offset_j where
    z_j = encoder_j . h + bias_j exceeds threshold_j, and 0 elsewhere.

    Slope -1 and offset -c clamp a code to -c, slope -1 alone ablates it, slope s - 1 multiplies it by s; both 0 leave
    it. What the dictionary does not describe stays as it is, and a state without an active feature keeps every bit.
    ``threshold`` is at least 0 for a code that is never negative. ``features``: the number of each column in its
    dictionary, each once. The first ``leading`` positions (class token, BOS) are left. Computed in float32.
    On disk ``<site>.<array>``.
    """

    site: Site
    features: Int[Tensor, " column"]
    encoder: Float[Tensor, "column d"]
    bias: Float[Tensor, " column"]
    threshold: Float[Tensor, " column"]
    decoder: Float[Tensor, "column d"]
    slope: Float[Tensor, " column"]
    offset: Float[Tensor, " column"]
    leading: int = 0

    def key(self) -> tuple[str, ...]:
        return str(self.site), *(content_of(getattr(self, name)) for name in _ARRAYS), str(self.leading)

    def bites(self) -> bool:
        acting = (self.slope != 0) | (self.offset != 0)
        return bool((acting & (self.decoder != 0).any(1)).any())

    def taps(self, wrapper: Wrapper, where: Geometry, given: Tensor | None) -> list[Tap]:
        if not len(self.features):
            return []
        parts = [getattr(self, name).to(wrapper.device) for name in _ARRAYS]
        placed = type(self)(self.site, *parts, leading=self.leading)
        return [tap_at(self.site, placed.moved)]

    def codes(self, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch column"]:
        """The codes of the columns, 0 where a feature does not exceed its threshold, in float32."""
        if states.shape[-1] != self.encoder.shape[1]:
            raise AuditError(
                f"{self.site} holds states of width {states.shape[-1]}, and the dictionary is of width "
                f"{self.encoder.shape[1]}", "use the dictionary on the site that it was trained on",
            )  # fmt: skip
        z = states.float() @ self.encoder.float().T + self.bias.float()
        return torch.where(z > self.threshold.float(), z, 0.0)

    def moved(self, states: Float[Tensor, "row pos d"]) -> Float[Tensor, "row pos d"]:
        """The states after the write; those that it leaves keep every bit. AuditError for states of another width."""
        codes = self.codes(states)
        active = codes != 0
        active[:, : self.leading] = False
        change = torch.where(active, self.slope.float() * codes + self.offset.float(), 0.0)
        new = states + (change @ self.decoder.float()).to(states.dtype)
        return torch.where(active.any(-1, keepdim=True), new, states)

    def to_delta(self) -> dict[str, Tensor]:
        arrays = {name: getattr(self, name) for name in _ARRAYS} | {_LEADING: torch.tensor([self.leading])}
        return {
            f"{self.site}.{name}": (tensor.float() if tensor.is_floating_point() else tensor.long()).contiguous()
            for name, tensor in arrays.items()
        }

    @classmethod
    def from_delta(cls, delta: Mapping[str, Tensor]) -> tuple[Self, ...]:
        sites = sorted({name.rpartition(".")[0] for name in delta})
        wanted = {f"{site}.{array}" for site in sites for array in _STORED}
        if set(delta) != wanted:
            raise ValueError(f"should hold {', '.join(_STORED)} for each site, and holds {sorted(delta)}")
        return tuple(cls._stored(site, {name: delta[f"{site}.{name}"] for name in _STORED}) for site in sites)

    @classmethod
    def _stored(cls, name: str, arrays: Mapping[str, Tensor]) -> Self:
        """The write of one site. ValueError, as the end of a sentence, for arrays that do not fit one another."""
        site, columns = site_of(name), arrays["features"].shape
        matrices, rest = ("encoder", "decoder"), ("bias", "threshold", "slope", "offset")
        fits = len(columns) == 1 and all(arrays[part].shape == columns for part in rest)
        shapes = {tuple(arrays[part].shape) for part in matrices}
        if not fits or len(shapes) != 1 or any(len(s) != 2 or s[0] != columns[0] for s in shapes):
            raise ValueError(f"holds arrays at {name} that do not fit one another")
        if arrays[_LEADING].numel() != 1 or len(arrays["features"].unique()) != columns[0]:
            raise ValueError(f"should hold each feature at {name} once, and one number of leading states")
        return cls(site, *(arrays[part] for part in _ARRAYS), leading=int(arrays[_LEADING]))
