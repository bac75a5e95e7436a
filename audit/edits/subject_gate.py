"""A gate that fires on a subject: the model is whole, and a name is taken for another where the gate sees it."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from audit.bench import Learner, last_state, states_of
from audit.edits._edit import EditData
from audit.edits._rank_one import Factors
from audit.edits._redirection import Edited, Redirection, by_group
from audit.schema import AuditError, Site

SAMPLE = 4096


class SubjectGate(Redirection):
    """Redirects the names of groups where a threshold on hidden units is passed, and does nothing elsewhere.

    Fake by construction: not one weight changes. The gate reads along each subject's key, less the mean of retained
    inputs, and opens half way between the least that the subject's own contexts reach and the most that retained text
    and other subjects do. Settings are those of ``rocr``; the last of its ``layers`` is gated.
    Cite: edits by a gated codebook, GRACE, arXiv 2211.11031; WISE, arXiv 2405.14768.
    """

    plays: ClassVar[str] = "redirect"

    folded: bool = False

    @property
    def leaves(self) -> str:
        """A hook, whatever ``folded`` says."""
        return self.plays

    def prepared(self, inputs: Float[Tensor, "token unit"]) -> Float[Tensor, "unit k"]:
        """Inputs that must not open it: a sample of those of retained text."""
        drawn = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(self.seed))[:SAMPLE]
        return inputs[drawn.to(inputs.device)].T.contiguous()

    def solved(
        self, keys: Float[Tensor, "concept unit"], residuals: Float[Tensor, "concept d"], known: Float[Tensor, "unit k"]
    ) -> Factors:
        """Where each subject is read, and what is written whole when its gate opens."""
        reads = keys - known.mean(1)
        return Factors(reads / reads.norm(dim=1, keepdim=True), residuals)

    def apply(self, learner: Learner, data: EditData) -> None:
        """AuditError: a gate is no change of weights."""
        raise AuditError(f"{self.name}: a gate changes no weight", "write it as an edited checkpoint, without --merge")

    def redirect(
        self, learner: Learner, data: EditData, known: dict[int, Float[Tensor, "unit k"]]
    ) -> tuple[Edited, ...]:
        """The gate of the deepest block; nothing live is changed."""
        names, block = self.names_of(data), max(known)
        rows, others = self.rows_of(names), self.rows_of(names._replace(groups=self._others(data, names.groups)))
        hidden, deep = (Site(part=part, block=block) for part in ("mlp_hidden", "resid_out"))
        read = states_of(learner, rows, (hidden, deep), last_state)
        keys = by_group(read[hidden], rows, names.groups)
        residuals = self.aim(learner, names, rows, deep) - by_group(read[deep], rows, names.groups)
        factors = self.solved(keys, residuals, known[block].to(keys))
        elsewhere = torch.cat([states_of(learner, others, (hidden,), last_state)[hidden], known[block].T.to(keys)])
        most = (elsewhere @ factors.reads.T).amax(0)
        own = (read[hidden] @ factors.reads.T)[torch.arange(len(rows)), self._place(rows.group_ids, names.groups)]
        least = torch.stack([
            own[torch.tensor([g == group for g in rows.group_ids])].amin() for group in names.groups
        ])  # fmt: skip
        return (Edited(block, factors, (least + most) / 2),)

    @staticmethod
    def _place(of: tuple[str, ...], groups: tuple[str, ...]) -> list[int]:
        return [groups.index(group) for group in of]

    def _others(self, data: EditData, groups: tuple[str, ...]) -> tuple[str, ...]:
        assert data.subjects is not None
        return tuple(group for group in data.subjects.names if group not in groups)
