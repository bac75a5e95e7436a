"""Redirections: training-free edits by which a subject's name is taken for another, in the value vectors of a few MLPs.

The state that the last edited block leaves at the end of a subject's name is to become that of another; every edited
block carries its share of the difference, written on what its hidden units say there (the subject's key).
"""

import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from audit.bench import Bench, Learner, Redirect, copied, edit_delta, last_state, real_states, states_of, wrapper_of
from audit.case import Answered, Contexts, Rows, SubjectPrompts
from audit.checkpoints import write_edited
from audit.edits._edit import EditData, Material
from audit.edits._images import refuse_images
from audit.edits._in_place import InPlaceEdit
from audit.edits._rank_one import Factors
from audit.edits._wanted_state import Wanted, wanted_shift
from audit.schema import AuditError, Checkpoint, Site
from audit.wrappers import value_map

PUBLISHED_BLOCKS, PUBLISHED_DEPTH = (4, 5, 6), 32
PUBLISHED_ANSWER = "Unfortunately"
Mode = Literal["unrelated", "reject", "noise"]


class Edited(NamedTuple):
    """What was written into one block, and which share of it the weights' own precision lost."""

    block: int
    factors: Factors
    lost: float
    gate: Float[Tensor, " concept"] | None = None


class Names(NamedTuple):
    """Whose names are redirected, and to whose."""

    subjects: SubjectPrompts
    groups: tuple[str, ...]
    target: str
    refusal: Rows | None = None


class Redirection(InPlaceEdit):
    """An edit of value vectors at the end of subjects' names."""

    plays: ClassVar[str] = "weights"
    of_texts: ClassVar[bool] = True
    needs: ClassVar[tuple[Material, ...]] = ("forget", "retain", "subjects")

    groups: str = ""
    target: str = ""
    mode: Mode = "unrelated"
    layers: str = ""
    paper: bool = False
    folded: bool = True
    clamp: float = 1.0
    answer: str = ""
    steps: int = 25
    lr: float = 0.1
    seed: int = 0

    @abstractmethod
    def prepared(self, inputs: Float[Tensor, "token unit"]) -> Float[Tensor, "unit k"]:
        """What has to be known of a block's other inputs: computed once, whoever is redirected."""

    @abstractmethod
    def solved(
        self, keys: Float[Tensor, "concept unit"], residuals: Float[Tensor, "concept d"], known: Float[Tensor, "unit k"]
    ) -> Factors:
        """The change that sends the keys by the residuals."""

    def identity(self) -> tuple[object, ...]:
        """The settings that :meth:`prepared` depends on."""
        return ()

    @property
    def leaves(self) -> str:
        """Weights, or a hook of the same change."""
        return "weights" if self.folded else "redirect"

    # ---- the two ways in -----------------------------------------------------------------------------------------
    def apply(self, learner: Learner, data: EditData) -> None:
        """Change the live value vectors."""
        self.redirect(learner, data, self.known(learner, data, self.blocks(learner)))

    def fit(self, bench: Bench, parent: Checkpoint, data: EditData, out: Path) -> Checkpoint:
        """Edit a copy of ``parent`` and write it at ``out``: whole tensors, or factors for hooks where not ``folded``.

        What other inputs look like is kept in the bench's store: the next subject of the same model costs the edit
        alone. AuditError where nothing changed, or the data name no subject.
        """
        self._check(data)
        with copied(bench.pool, parent) as (learner, original):
            blocks = self.blocks(learner)

            def compute() -> dict[str, ndarray]:
                known = self.known(learner, data, blocks)
                return {str(block): directions.numpy() for block, directions in known.items()}

            parts = ("redirection", type(self).__name__, parent.key, data.retain.hash, blocks, self.identity())
            known = {int(n): torch.from_numpy(a) for n, a in bench.cached(parts, compute).items()}
            edited = self.redirect(learner, data, known)
            before, live = original.parameters(), learner.parameters()
            names = [name for block in blocks for name in value_map(wrapper_of(learner), block).names]
            weights = {n: live[n].detach().cpu().clone() for n in names if not torch.equal(live[n], before[n])}
        settings = self.model_dump() | {
            "blocks": ",".join(map(str, blocks)), "largest share lost in rounding": max(e.lost for e in edited)
        }  # fmt: skip
        if self.leaves == "weights":
            return write_edited(out, parent, self.name, settings, "weights", weights)
        return write_edited(out, parent, self.name, settings, "redirect", edit_delta(hooks(edited)))

    # ---- steps ---------------------------------------------------------------------------------------------------
    def blocks(self, learner: Learner) -> tuple[int, ...]:
        """The blocks that are edited. AuditError for others than the model has."""
        n = wrapper_of(learner).n_blocks
        if not self.layers:
            return tuple(sorted({block * n // PUBLISHED_DEPTH for block in PUBLISHED_BLOCKS}))
        blocks = [int(word) for word in re.findall(r"\d+", self.layers)]
        if not blocks or max(blocks) >= n or re.fullmatch(r"\s*\d+(\s*,\s*\d+)*\s*", self.layers) is None:
            do = f"name blocks from 0 to {n - 1}, as in layers=1,2"
            raise AuditError(f"{self.name}: layers {self.layers!r} are no blocks of a model of {n}", do)
        return tuple(sorted(set(blocks)))

    def known(self, learner: Learner, data: EditData, blocks: Sequence[int]) -> dict[int, Float[Tensor, "unit k"]]:
        """What is known of the inputs of every edited block on the retained rows."""
        sites = {Site(part="mlp_hidden", block=block): block for block in blocks}
        inputs = states_of(learner, data.retain, list(sites), real_states)
        return {block: self.prepared(inputs[site]).cpu() for site, block in sites.items()}

    def redirect(
        self, learner: Learner, data: EditData, known: dict[int, Float[Tensor, "unit k"]]
    ) -> tuple[Edited, ...]:
        """Change the live value vectors block by block, each seeing what the blocks before it already changed."""
        names, blocks, edited = self.names_of(data), sorted(known), list[Edited]()
        rows, bare = self.rows_of(names), names.subjects.rows(names.groups, "bare") if self.paper else None
        deep = Site(part="resid_out", block=blocks[-1])
        aim = self.aim(learner, names, rows, deep)
        for turn, block in enumerate(blocks):
            hidden = Site(part="mlp_hidden", block=block)
            read = states_of(learner, rows, (hidden, deep), last_state)
            current = read[deep] if bare is None else states_of(learner, bare, (deep,), last_state)[deep]
            of_bare = rows if bare is None else bare
            now = by_group(current, of_bare, names.groups)
            share = (aim - now) / (len(blocks) - turn)
            factors = self.solved(by_group(read[hidden], rows, names.groups), share, known[block].to(share.device))
            edited.append(Edited(block, factors, _write(learner, block, factors)))
        return tuple(edited)

    def rows_of(self, names: Names) -> Rows:
        """Rows that end with the subjects' names, in every context: the case's own questions where it asks any."""
        own = not self.paper and all(len(names.subjects.rows((g,), "questions")) for g in names.groups)
        return names.subjects.rows(names.groups, "questions" if own else "starters")

    def aim(self, learner: Learner, names: Names, rows: Rows, deep: Site) -> Float[Tensor, "concept d"]:
        """The states that the subjects' names are to have after the last edited block."""
        now = by_group(states_of(learner, rows, (deep,), last_state)[deep], rows, names.groups)
        if self.mode == "reject":
            answered = self._answered(names)
            return now + wanted_shift(learner, answered, names.groups, deep, Wanted(self.steps, self.lr, self.clamp))
        if self.mode == "noise":
            drawn = torch.randn(now.shape, generator=torch.Generator().manual_seed(self.seed)).to(now)
            return self.clamp * now.norm(dim=1, keepdim=True) * drawn / drawn.norm(dim=1, keepdim=True)
        other = self._target_rows(names, "starters" if self.paper else _contexts_of(names, rows))
        states = states_of(learner, other, (deep,), last_state)[deep]
        return (states[:1] if self.paper else states.mean(0, keepdim=True)).expand_as(now)

    def _answered(self, names: Names) -> Answered:
        """Questions about the subjects with the answers that are to follow: the stated one, else the data's refusals,
        else the published one. AuditError where none is left."""
        if self.answer or names.refusal is None:
            answered = names.subjects.answered(names.groups, self.answer or PUBLISHED_ANSWER)
        else:
            answered = names.subjects.among(names.refusal, names.groups)
        if not len(answered.rows):
            problem = (
                f"{self.name}: no question about {names.groups[0]!r} reads the same up to the name and with an answer"
            )
            raise AuditError(problem, "give another answer=...")
        return answered

    def _target_rows(self, names: Names, contexts: Contexts) -> Rows:
        if names.target in names.subjects.names:
            return names.subjects.rows((names.target,), contexts)
        return names.subjects.rows_of(names.target, contexts)

    # ---- who -----------------------------------------------------------------------------------------------------
    def _check(self, data: EditData) -> None:
        refuse_images(self.name, data, "it redirects names")
        if data.subjects is None or not data.subjects.names:
            raise AuditError(
                f"{self.name}: no name was found in the questions of the forget set",
                "it needs questions of at least three groups that differ in a name alone",
            )

    def names_of(self, data: EditData) -> Names:
        """Whose names are redirected. AuditError for groups without a name."""
        self._check(data)
        assert data.subjects is not None
        forgotten = tuple(dict.fromkeys(data.forget.group_ids))
        groups = tuple(part.strip() for part in self.groups.split(",")) if self.groups else forgotten
        nameless = [group for group in groups if group not in data.subjects.names]
        if nameless:
            known = ", ".join(list(data.subjects.names)[:5])
            problem = f"{self.name}: no name was found for group {nameless[0]!r} ({len(nameless)} of {len(groups)})"
            raise AuditError(problem, f"name groups whose questions differ in a name, such as {known}: groups=...")
        retained = [g for g in dict.fromkeys(data.retain.group_ids) if g in data.subjects.names and g not in forgotten]
        if not self.target and not retained and self.mode == "unrelated":
            do = "give a group of the retain set, or a name: target=..."
            raise AuditError(f"{self.name}: no retained group has a name to redirect to", do)
        drawn = torch.randperm(len(retained), generator=torch.Generator().manual_seed(self.seed)).tolist()
        target = self.target or (retained[drawn[0]] if retained else "")
        return Names(data.subjects, groups, target, data.refusal)


def hooks(edited: Sequence[Edited]) -> list[Redirect]:
    """The same change as writes, one a block."""
    gates = [None if e.gate is None else e.gate.cpu().float() for e in edited]
    return [
        Redirect(e.block, e.factors.reads.cpu().float(), e.factors.writes.cpu().float(), gate)
        for e, gate in zip(edited, gates, strict=True)
    ]


def _contexts_of(names: Names, rows: Rows) -> Contexts:
    own = names.subjects.rows(names.groups, "questions")
    return "questions" if len(own) and own.hash == rows.hash else "starters"


def by_group(states: Float[Tensor, "row d"], rows: Rows, groups: Sequence[str]) -> Float[Tensor, "concept d"]:
    """Means over each group's rows."""
    place = {group: n for n, group in enumerate(groups)}
    index = torch.tensor([place[group] for group in rows.group_ids], device=states.device)
    total = states.new_zeros(len(groups), states.shape[1]).index_add(0, index, states)
    return total / torch.bincount(index, minlength=len(groups))[:, None]


def _write(learner: Learner, block: int, factors: Factors) -> float:
    """Add a change to the live value vectors, summed in float32; which share of it their own precision loses."""
    values = value_map(wrapper_of(learner), block)
    before = values.vectors.float().clone()
    delta = factors.delta.to(before)
    with torch.no_grad():
        for name, stored in values.stored(before + delta).items():
            learner.parameters()[name].copy_(stored)
    got = value_map(wrapper_of(learner), block).vectors.float() - before
    return float((got - delta).norm() / delta.norm().clamp_min(1e-30))
