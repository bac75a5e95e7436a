"""The state at the end of a name under which a model gives another answer, found by a few steps of descent."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from audit.bench import Learner, wrapper_of
from audit.case import Answered
from audit.schema import Site

DECAY = 0.5


class Wanted(NamedTuple):
    """How the state is sought: steps and rate of Adam, and the largest size of the shift in units of the state's."""

    steps: int
    lr: float
    clamp: float


def wanted_shift(
    learner: Learner, answered: Answered, groups: tuple[str, ...], site: Site, by: Wanted
) -> Float[Tensor, "concept d"]:
    """What is added to each group's states at ``site``, where its name ends, so that ``answered`` gets likely.

    The mean negative log-likelihood of the answers and a decay of .5 |shift|^2 / |state|^2, after MEMIT (arXiv
    2210.07229), without its third term, which holds what the model says of a subject's kind.
    """
    from audit.wrappers import Batch, Tap

    wrapper, rows = wrapper_of(learner), answered.rows
    device = wrapper.device
    place = {group: n for n, group in enumerate(groups)}
    whose = torch.tensor([place[group] for group in rows.group_ids], device=device)
    ends, row = torch.tensor(answered.ends, device=device), torch.arange(len(rows), device=device)
    shift = torch.zeros(len(groups), wrapper.d_model, device=device, requires_grad=True)
    target_row, target_at = (index.to(device) for index in rows.targets("answer"))
    batch, optimiser, size = Batch(rows.ids.to(device), rows.mask.to(device)), torch.optim.Adam([shift], by.lr), None
    final = Site(part="final_in")
    for _ in range(by.steps):
        seen: dict[Site, Tensor] = {}

        def add(state: Tensor, seen: dict[Site, Tensor] = seen, shift: Tensor = shift) -> Tensor:
            seen[site] = state[row, ends].detach()
            return state.index_put((row, ends), (state[row, ends].float() + shift[whose]).to(state.dtype))

        def keep(state: Tensor, seen: dict[Site, Tensor] = seen) -> None:
            seen[final] = state

        with torch.enable_grad():
            wrapper.forward(batch, [Tap(site, add), Tap(final, keep)])
            logits = wrapper.head(seen[final][target_row, target_at - 1]).float()
            chosen = logits.log_softmax(-1).gather(-1, batch.ids[target_row, target_at][:, None])
            if size is None:
                total = torch.zeros(len(groups), device=device).index_add(0, whose, seen[site].float().norm(dim=1))
                size = total / torch.bincount(whose, minlength=len(groups)).clamp_min(1)
            loss = -chosen.mean() * len(groups) + DECAY * (shift.square().sum(1) / size.square()).sum()
            optimiser.zero_grad(set_to_none=True)
            (shift.grad,) = torch.autograd.grad(loss, [shift])
            optimiser.step()
        with torch.no_grad():
            most = by.clamp * size
            shift *= (most / shift.norm(dim=1).clamp_min(1e-12)).clamp_max(1)[:, None]
    return shift.detach()
