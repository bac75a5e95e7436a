"""Add a vector to every state of a prompt, by as much as a linear gate reads at the prompt's end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench.layout import Geometry
from audit.bench.places import places
from audit.bench.writes.write import Write, content_of, site_of, tap_at
from audit.schema import AuditError, Site
from audit.wrappers import Tap, Wrapper


@dataclass(frozen=True, eq=False)
class GatedShift(Write):
    """h <- h + (gate . e) direction at all positions of the prompt, e the state at the same site of its last token.

    The prompt is what stands before a row's answer, virtual tokens among it: every row says where its answer begins, so
    that a stored gate needs no case, and what is generated is answer. With ``beyond`` the positions of the answer are
    shifted as well, by what was read at the prompt's end. In a tower of an image e is the state that the head reads,
    and it alone is shifted. On disk ``<site>.gate``, ``.direction`` and ``.beyond`` (0 or 1) per site.
    """

    site: Site
    gate: Float[Tensor, " d"]
    direction: Float[Tensor, " d"]
    beyond: bool = False

    def key(self) -> tuple[str, ...]:
        return str(self.site), content_of(self.gate), content_of(self.direction), str(self.beyond)

    def bites(self) -> bool:
        return bool((self.gate != 0).any()) and bool((self.direction != 0).any())

    def taps(self, wrapper: Wrapper, where: Geometry, given: Tensor | None) -> list[Tap]:
        if self.site.part == "pattern" or self.site.head is not None:
            raise AuditError(f"{self.site} is no state of a whole stream", "choose a site of the residual stream")
        if not self.bites():
            return []
        spots = places(where, wrapper, self.site)
        # float32: a sum of large terms that cancel on retained prompts; a copy: memory-mapped bytes may not be aligned
        gate = self.gate.to(wrapper.device, torch.float32, copy=True)
        direction = self.direction.to(wrapper.device, wrapper.dtype)
        ends = prompt_ends(where).to(wrapper.device) if spots.tower.by_token else None

        def shifted(state: Tensor) -> Tensor:
            if ends is None:
                own = spots.take(state, "last")
                by = (own.float() @ gate).to(own.dtype)
                return spots.put(state, "last", own + by[:, None] * direction)
            rows = torch.arange(len(state), device=state.device)
            by = (state[rows, ends - 1].float() @ gate).to(state.dtype)[:, None, None]
            if self.beyond:
                return state + by * direction
            inside = (torch.arange(state.shape[1], device=state.device) < ends[:, None])[..., None]
            return torch.where(inside, state + by * direction, state)

        return [tap_at(self.site, shifted)]

    def to_delta(self) -> dict[str, Tensor]:
        if self.site.head is not None:
            raise AuditError("a stored gated shift acts on whole states", "leave out `head`")
        scale = 1.0 if self.bites() else 0.0
        arrays = {"gate": self.gate, "direction": self.direction, "beyond": torch.tensor([float(self.beyond)])}
        return {f"{self.site}.{name}": scale * tensor.float().contiguous() for name, tensor in arrays.items()}

    @classmethod
    def from_delta(cls, delta: Mapping[str, Tensor]) -> tuple[Self, ...]:
        sites = sorted({name.rpartition(".")[0] for name in delta})
        if set(delta) != {f"{site}.{part}" for site in sites for part in ("gate", "direction", "beyond")}:
            raise ValueError(f"should hold gate, direction and beyond for each site, and holds {sorted(delta)}")
        return tuple(
            cls(site_of(at), delta[f"{at}.gate"], delta[f"{at}.direction"], bool(delta[f"{at}.beyond"].any()))
            for at in sites
        )


def prompt_ends(where: Geometry) -> Int[Tensor, " row"]:
    """How many positions of every row of a batch come before its answer, as the model sees them."""
    rows = torch.arange(where.n)
    starts = where.of_rows(where.rows.answer_spans[:, 0]).cpu()
    return where.place(rows, starts)
