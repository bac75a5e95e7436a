"""Steering: a gate that fires on forgotten prompts moves their states along one direction while they are answered."""

from pathlib import Path
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from audit.bench import Bench, GatedShift, edit_delta
from audit.case import Rows
from audit.checkpoints import write_edited
from audit.edits._descent import needed
from audit.edits._edit import Edit, EditData
from audit.edits._steering import (
    at_prompt_end,
    at_row_end,
    free_directions,
    gate_vector,
    random_like,
    rows_of_other_topic,
)
from audit.schema import AuditError, Checkpoint, Site

Control = Literal["none", "random direction", "other direction"]


class Steering(Edit):
    """Steers forgotten prompts elsewhere at run time: h <- h + strength (u . e) r, e the state at the prompt's end.

    u reads 1 at forgotten prompts and next to nothing at retained ones: a ridge solution in those directions (a
    ``share`` of them) that retained prompts use least; ``ridge`` is in units of the mean eigenvalue there. r leads from
    the forgotten prompts' states to the retained ones' (``toward`` ``retain``), or from the end of the forgotten
    answers to the end of refusing ones (``refusal``), and is as long as a state is on average, so that ``strength``
    fits any model. One block is steered, at ``layer`` of the depth, where its output was read; the answer's own
    positions are shifted too, for what was read in the prompt alone leaves an answer's second word as it was
    (``beyond`` false: the prompt alone). ``paper`` does as the public code: every block after the first, the gate
    fitted on what enters the block and played on what leaves it, an absolute ``ridge`` (.1 there), r unscaled, the
    prompt alone.
    ``control`` puts in the place of r a random vector of its length, or the direction of another topic: what they
    silence as well is the gate's work and not the direction's.
    Fake by construction: not one weight changes. Prompts that the gate does not know walk around it.
    Cite: MLLMEraser, arXiv 2510.04217; AlphaSteer, arXiv 2506.07022.
    """

    plays: ClassVar[str] = "gated_shift"

    toward: Literal["retain", "refusal"] = "retain"
    layer: float = 0.75
    strength: float = 8.0
    share: float = 0.3
    ridge: float = 0.01
    beyond: bool = True
    control: Control = "none"
    paper: bool = False
    seed: int = 0

    def fit(self, bench: Bench, parent: Checkpoint, data: EditData, out: Path) -> Checkpoint:
        """Read the states of the prompts once, solve, and write two vectors a steered block.

        AuditError where nothing is steered: no strength, no difference between the prompts, no refusing answers.
        """
        written = self._written(bench.open(parent).n_blocks)
        read = {site: Site(part="resid_in", block=site.block) if self.paper else site for site in written}
        at = list(dict.fromkeys(read.values()))
        forget, retain = (at_prompt_end(bench, parent, rows, at) for rows in (data.forget, data.retain))
        aims = self._directions(bench, parent, data, at, forget, retain)
        hooks: list[GatedShift] = []
        for site in written:
            seen = read[site]
            free = free_directions(retain[seen], self.share)
            gate = gate_vector(forget[seen], free, self.ridge, absolute=self.paper)
            reach = self.beyond and not self.paper
            hooks.append(GatedShift(site, gate.cpu().float(), (self.strength * aims[seen]).cpu().float(), reach))
        return write_edited(out, parent, self.name, self.model_dump(), self.plays, edit_delta(hooks))

    def _written(self, blocks: int) -> list[Site]:
        """Where it is played. AuditError for a depth outside the model."""
        if not 0 <= self.layer <= 1:
            raise AuditError(f"steering: layer {self.layer} is no share of the depth", "give 0 to 1")
        chosen = range(1, blocks) if self.paper and blocks > 1 else (round(self.layer * (blocks - 1)),)
        return [Site(part="resid_out", block=block) for block in chosen]

    def _directions(
        self, bench: Bench, parent: Checkpoint, data: EditData, at: list[Site],
        forget: dict[Site, Tensor], retain: dict[Site, Tensor],
    ) -> dict[Site, Float[Tensor, " d"]]:  # fmt: skip
        """r at every place. AuditError where it is nothing."""
        source, goal = forget, retain
        if self.toward == "refusal":
            refusing = needed(data.refusal, "refusing answers", "give refusing answers, or toward=retain")
            source, goal = (at_row_end(bench, parent, rows, at) for rows in (data.forget, refusing))
        aims: dict[Site, Tensor] = {}
        for site in at:
            aim, size = goal[site].mean(0) - source[site].mean(0), float(forget[site].norm(dim=1).mean())
            if not float(aim.norm()):
                raise AuditError("steering: forgotten and other prompts have one mean state", "give other items")
            aim = aim if self.paper else aim / aim.norm() * size
            aims[site] = self._controlled(aim, data.retain, retain[site])
        return aims

    def _controlled(self, aim: Float[Tensor, " d"], rows: Rows, states: Float[Tensor, "row d"]) -> Float[Tensor, " d"]:
        """What stands in the direction's place."""
        if self.control == "none":
            return aim
        if self.control == "random direction":
            return random_like(aim, self.seed)
        topic = rows_of_other_topic(rows, self.seed).to(states.device)
        other = states[~topic].mean(0) - states[topic].mean(0)
        return other / other.norm() * aim.norm()
