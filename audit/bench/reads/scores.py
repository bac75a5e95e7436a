"""Scores of the next token: log-probability or rank through the model's own final norm and head."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench.layout import Geometry, Targets
from audit.bench.places import places
from audit.bench.reads.readout import Readout, tapped
from audit.case import Rows
from audit.schema import AuditError, Read, Site
from audit.wrappers import Tap, Wrapper

SCORED = frozenset({"logits", "final_in", "resid_in", "resid_mid", "resid_out"})
_LOGITS_AT_ONCE = 1 << 24


def normal(*shape: int) -> Tensor:
    """A float32 CPU tensor that autograd may use later, although it is filled in inference mode."""
    with torch.inference_mode(False):
        return torch.zeros(*shape)


class Scores(Readout):
    """Log-probability and rank of the next token, through the model's own norm and head, at the asked positions."""

    def __init__(self, rows: Rows, targets: Targets, reads: Sequence[Read]) -> None:
        super().__init__(rows, targets, reads)
        self.kept = normal(len(reads), self.size(reads[0].at))

    def taps(self, wrapper: Wrapper, where: Geometry, bias: Tensor | None) -> list[Tap]:
        at = self.reads[0].at
        place = self.place(where)
        row, position, _ = where.targets.cut(at, where.index)
        target = where.ids[row.to(where.device), position.to(where.device)]

        def visitor(site: Site, wanted: list[int]) -> Callable[[Tensor], None]:
            spots = places(where, wrapper, site)

            def visit(state: Tensor) -> None:
                states = spots.take(state, at)
                if (wide := states.shape[-1]) != spots.tower.d_model:
                    raise AuditError(
                        f"{site} cannot be scored: it is {wide} wide, and the head reads {spots.tower.d_model}",
                        "score at blocks of the width that the head reads",
                    )
                if site.part not in ("logits", "final_in"):
                    states = wrapper.norm(states)
                both = scored(wrapper, states, target, bias)
                for i in wanted:
                    kept = self.kept[i]
                    kept[slice(None) if place is None else place] = both[self.reads[i].reduce == "rank"].cpu()

            return visit

        by_site: dict[Site, list[int]] = {}
        for i, read in enumerate(self.reads):
            if read.site.head is not None or read.site.part not in SCORED or not of_its_head(wrapper, read.site):
                do = f"score at logits, final_in or a residual site of the {wrapper.head_tower} tower"
                raise AuditError(f"{read.site} cannot be scored", do)
            by_site.setdefault(read.site, []).append(i)
        return [Tap(tapped(site), visitor(site, wanted)) for site, wanted in by_site.items()]

    def close(self) -> None:
        """Nothing is left on the device."""

    def results(self) -> list[Tensor]:
        return list(self.kept.unbind(0))


def of_its_head(wrapper: Wrapper, site: Site) -> bool:
    """Is a site in the tower that the head reads?"""
    return site.tower in (None, wrapper.head_tower)


def scored(
    wrapper: Wrapper, states: Float[Tensor, "token d"], target: Int[Tensor, " token"], bias: Tensor | None
) -> tuple[Float[Tensor, " token"], Float[Tensor, " token"]]:
    """Log-probability (nats) and rank (0 = best) of each target, a few tokens at a time."""
    step = max(1, _LOGITS_AT_ONCE // wrapper.vocab_size)
    logprobs, ranks = [torch.zeros(0, device=states.device)], [torch.zeros(0, device=states.device)]
    for part, t in zip(states.split(step), target.split(step), strict=True):
        logits = biased(wrapper.head(part), bias).float()
        own = logits.gather(1, t[:, None])
        logprobs.append((own - logits.logsumexp(1, keepdim=True)).squeeze(1))
        ranks.append((logits > own).sum(1).float())
    return torch.cat(logprobs), torch.cat(ranks)


def biased(logits: Tensor, bias: Tensor | None) -> Tensor:
    """Logits plus the bias that LogitBias writes set."""
    return logits if bias is None else logits + bias.to(logits)
