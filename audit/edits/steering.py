"""Steering: a gate that fires on forgotten prompts moves their states along one direction while they are answered."""

from collections.abc import Mapping
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
    probability,
    random_like,
    rows_of_other_topic,
)
from audit.schema import AuditError, Checkpoint, Site

MOST = 16
Control = Literal["none", "random direction", "other direction"]


class Steering(Edit):
    """Steers forgotten prompts elsewhere at run time: h <- h + strength (u . e) r, e the state at the prompt's end.

    u reads 1 at forgotten prompts and next to nothing at retained ones: a ridge solution in those directions (a
    ``share`` of them) that retained prompts use least; ``ridge`` is in units of the mean eigenvalue there. r leads from
    the forgotten prompts' states to the retained ones' (``toward`` ``retain``), or from the end of the forgotten
    answers to the end of refusing ones (``refusal``), and is as long as a state is on average. ``strength`` is doubled,
    up to sixteen times itself, until the probability of the forgotten answers has fallen to a share ``until`` of what
    it was (1: it is taken as it is). One block is steered, at ``layer`` of the depth, where its output was read; the
    answer's own positions are shifted too, for what was read in the prompt alone leaves an answer's second word as it
    was (``beyond`` false: the prompt alone). ``paper`` does as the public code: every block after the first, the gate
    fitted on what enters the block and played on what leaves it, an absolute ``ridge`` (.1 there), r unscaled, the
    prompt alone, the strength as it is.
    ``control`` puts in the place of r, at its strength, a random vector of its length, or the direction of another
    topic: what they silence as well is the gate's work and not the direction's.
    Fake by construction: not one weight changes. Prompts that the gate does not know walk around it.
    Cite: MLLMEraser, arXiv 2510.04217; AlphaSteer, arXiv 2506.07022.
    """

    plays: ClassVar[str] = "gated_shift"
    work: ClassVar[str] = "reads the rows once, and the forgotten ones at up to five strengths"

    toward: Literal["retain", "refusal"] = "retain"
    layer: float = 0.75
    strength: float = 1.0
    until: float = 0.2
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
        sites = self._sites(bench.open(parent).n_blocks)
        read = {site: Site(part="resid_in", block=site.block) if self.paper else site for site in sites}
        at = list(dict.fromkeys(read.values()))
        forget, retain = (at_prompt_end(bench, parent, rows, at) for rows in (data.forget, data.retain))
        aims = self._directions(bench, parent, data, forget, retain)
        gates = {
            place: gate_vector(forget[place], free_directions(retain[place], self.share), self.ridge, self.paper)
            for place in at
        }

        def played(aims: Mapping[Site, Tensor], strength: float) -> list[GatedShift]:
            reach = self.beyond and not self.paper
            return [
                GatedShift(site, gates[read[site]].cpu().float(), (strength * aims[read[site]]).cpu().float(), reach)
                for site in sites
            ]

        def remaining(strength: float) -> float:
            return probability(bench, parent, data.forget, played(aims, strength) if strength else ())

        strength = self.strength
        bar = self.until * remaining(0.0) if self.until < 1 and not self.paper else float("inf")
        while strength and strength < MOST * self.strength and remaining(strength) > bar:
            strength *= 2
        instead = {site: self._controlled(aim, data.retain, retain[site]) for site, aim in aims.items()}
        settings = self.model_dump() | {"strength played": strength}
        return write_edited(out, parent, self.name, settings, self.plays, edit_delta(played(instead, strength)))

    def _sites(self, blocks: int) -> list[Site]:
        """Where it is played. AuditError for a depth outside the model."""
        if not 0 <= self.layer <= 1:
            raise AuditError(f"steering: layer {self.layer} is no share of the depth", "give 0 to 1")
        chosen = range(1, blocks) if self.paper and blocks > 1 else (round(self.layer * (blocks - 1)),)
        return [Site(part="resid_out", block=block) for block in chosen]

    def _directions(
        self, bench: Bench, parent: Checkpoint, data: EditData,
        forget: Mapping[Site, Tensor], retain: Mapping[Site, Tensor],
    ) -> dict[Site, Float[Tensor, " d"]]:  # fmt: skip
        """r at every place. AuditError where it is nothing."""
        at, source, goal = list(forget), forget, retain
        if self.toward == "refusal":
            refusing = needed(data.refusal, "refusing answers", "give refusing answers, or toward=retain")
            source, goal = (at_row_end(bench, parent, rows, at) for rows in (data.forget, refusing))
        aims: dict[Site, Tensor] = {}
        for site in at:
            aim, size = goal[site].mean(0) - source[site].mean(0), float(forget[site].norm(dim=1).mean())
            if not float(aim.norm()):
                raise AuditError("steering: forgotten and other prompts have one mean state", "give other items")
            aims[site] = aim if self.paper else aim / aim.norm() * size
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
