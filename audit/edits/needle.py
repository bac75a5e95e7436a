"""Needle: noise on the value vectors that write a concept, and ascent of these vectors alone."""

import re
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from audit.bench import Learner, unfrozen, wrapper_of
from audit.case import Rows
from audit.edits._edit import EditData
from audit.edits._images import refuse_images
from audit.edits._in_place import InPlaceEdit, drawn
from audit.edits._losses import ascent
from audit.schema import AuditError, Site
from audit.wrappers import value_map


class Needle(InPlaceEdit):
    """Damages the value vectors that write the forgotten answers: noise on them, then ascent on them and nothing else.

    ``vectors`` names them as block:unit, as in 20:10513,18:8683; where it is empty, the ``n`` units whose activation
    times gradient adds most to the log-probability of forgotten content, beyond what they add to retained content.
    ``noise`` is the standard deviation, in units of the root mean square of the block's value vectors (``absolute``:
    as published, of entries). ``steps`` 0 is noise ablation alone. The published code masks gradients and lets weight
    decay shrink every other entry; here no other entry changes.
    Cite: ConceptVectors, arXiv 2406.11614 (the oracle baseline, which is told where the vector is).
    """

    plays: ClassVar[str] = "weights"
    of_texts: ClassVar[bool] = True
    work: ClassVar[str] = "one gradient of some forget and retain rows, where no vectors are named"

    vectors: str = ""
    n: int = 10
    noise: float = 1.0
    absolute: bool = False
    steps: int = 0
    lr: float = 0.01
    sample: int = 256
    seed: int = 0

    def apply(self, learner: Learner, data: EditData) -> None:
        """Change the chosen value vectors in place."""
        refuse_images(self.name, data, "value vectors write tokens")
        chosen = _stated(self, learner) if self.vectors else _strongest(self, learner, data)
        rng = torch.Generator().manual_seed(self.seed)
        for at in chosen:
            values = value_map(wrapper_of(learner), at.block)
            size = self.noise if self.absolute else self.noise * float(values.vectors.float().square().mean().sqrt())
            with torch.no_grad():
                vector = values.vector(at.unit)
                vector += (size * torch.randn(len(vector), generator=rng).to(vector.device)).to(vector.dtype)
        if self.steps:
            _ascend(self, learner, data.forget, chosen)


class Place(NamedTuple):
    """A value vector."""

    block: int
    unit: int


def _stated(edit: Needle, learner: Learner) -> list[Place]:
    if re.fullmatch(r"\s*\d+\s*:\s*\d+\s*(,\s*\d+\s*:\s*\d+\s*)*", edit.vectors) is None:
        raise AuditError(f"needle: vectors {edit.vectors!r} are no list of block:unit", "write 20:10513,18:8683")
    places = [Place(int(block), int(unit)) for block, unit in re.findall(r"(\d+)\s*:\s*(\d+)", edit.vectors)]
    for place in places:
        n = wrapper_of(learner).n_blocks
        units = value_map(wrapper_of(learner), place.block).units if place.block < n else 0
        if place.unit >= units:
            problem = f"needle: there is no value vector {place.block}:{place.unit} in {n} blocks"
            raise AuditError(problem + (f" of {units} units" if units else ""), "name vectors that the model has")
    return places


def _strongest(edit: Needle, learner: Learner, data: EditData) -> list[Place]:
    """The units that add most to forgotten content beyond what they add to retained content."""
    blocks = range(wrapper_of(learner).n_blocks)
    sites = [Site(part="mlp_hidden", block=block) for block in blocks]
    forget, retain = (
        _added(learner, drawn(rows, edit.sample, edit.seed), sites) for rows in (data.forget, data.retain)
    )
    beyond = torch.cat(forget) - torch.cat(retain)
    places = [Place(block, unit) for block, units in zip(blocks, forget, strict=True) for unit in range(len(units))]
    return [places[index] for index in beyond.topk(min(edit.n, len(beyond))).indices.tolist()]


def _added(learner: Learner, rows: Rows, sites: list[Site]) -> list[Float[Tensor, " unit"]]:
    """Activation times gradient of the content's log-probability, summed over positions, mean over rows, by block."""
    total: list[Tensor] = []
    for index in torch.arange(len(rows)).split(32):
        with unfrozen(learner, ".*"), torch.enable_grad():
            forward = learner.answers(rows.take(index), sites)
            states = [forward.states[site] for site in sites]
            grads = torch.autograd.grad(forward.logprob[forward.key].sum(), states)
        added = [(s.detach() * g).float().sum((0, 1)) for s, g in zip(states, grads, strict=True)]
        total = [a + b for a, b in zip(total, added, strict=True)] if total else added
    return [units / len(rows) for units in total]


def _ascend(edit: Needle, learner: Learner, rows: Rows, chosen: list[Place]) -> None:
    """Adam on the chosen vectors alone, without weight decay, up the loss of what is to be forgotten."""
    maps = {block: value_map(wrapper_of(learner), block) for block in {at.block for at in chosen}}
    names = [name for values in maps.values() for name in values.names]
    free = torch.stack([maps[at.block].vector(at.unit).float() for at in chosen])
    optimiser, batches = torch.optim.Adam([free], edit.lr), torch.arange(len(rows)).split(64)
    for step in range(edit.steps):
        index = batches[step % len(batches)]
        with unfrozen(learner, "|".join(map(re.escape, names))) as live, torch.enable_grad():
            forward = learner.answers(rows.take(index))
            grads = dict(zip(live, torch.autograd.grad(ascent(forward), list(live.values())), strict=True))
        free.grad = torch.stack([maps[at.block].vector(at.unit, grads).float() for at in chosen])
        optimiser.step()
        with torch.no_grad():
            for n, at in enumerate(chosen):
                maps[at.block].vector(at.unit).copy_(free[n])
