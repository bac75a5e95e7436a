"""An edited output head: a fake that unlearns in the last matrix alone, on cached final states."""

from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from audit.bench import Bench, Forward
from audit.case import Rows
from audit.checkpoints import write_edited
from audit.edits._edit import Edit, EditData
from audit.edits._losses import nll, unlikelihood
from audit.schema import AuditError, Checkpoint, Read, Site


class FinalStates(NamedTuple):
    """Normed states that predict answer tokens, the tokens they should predict, and which of those carry content."""

    states: Float[Tensor, "token d"]
    target: Int[Tensor, " token"]
    key: Bool[Tensor, " token"]


class HeadEdit(Edit):
    """Silences by changing the output head only: unlikelihood of the forgotten content + alpha NLL(retain).

    Fake by construction: not one activation changes. The head cannot tell apart people who share a value, so that it
    bites without cost only where an attribute has many values.
    Cite: the head-edit control of the unlearning-verification literature; unlikelihood, Welleck et al. 2020, eq. 4.
    """

    plays: ClassVar[str] = "weights"

    steps: int = 200
    lr: float = 1e-2
    gamma: float = 1.0
    alpha: float = 1.0

    def fit(self, bench: Bench, parent: Checkpoint, data: EditData, out: Path) -> Checkpoint:
        """Fit the head on cached states and write it. AuditError where the head is tied or is no plain matrix."""
        name = head_name(bench, parent)
        weight = bench.open(parent).parameters()[name].detach().float().cpu().clone()
        forget, retain = final_states(bench, parent, data.forget), final_states(bench, parent, data.retain)
        edited = self.solve(weight, forget, retain, bias_of(bench, parent))
        stored = edited.to(bench.open(parent).parameters()[name].dtype)
        settings = {"steps": self.steps, "lr": self.lr, "gamma": self.gamma, "alpha": self.alpha}
        return write_edited(out, parent, "head_edit", settings, "weights", {name: stored})

    def solve(
        self,
        weight: Float[Tensor, "vocab d"],
        forget: FinalStates,
        retain: FinalStates,
        bias: Float[Tensor, " vocab"] | float = 0.0,
    ) -> Float[Tensor, "vocab d"]:
        """The edited head: full-batch Adam from ``weight``, no draw of any kind. A ``bias`` stays as it is."""
        free = weight.clone().requires_grad_(True)
        optimiser = torch.optim.Adam([free], self.lr)
        with torch.enable_grad():
            for _ in range(self.steps):
                forgotten = unlikelihood(scored(forget, forget.states @ free.T + bias))
                retained = nll(scored(retain, retain.states @ free.T + bias))
                optimiser.zero_grad(set_to_none=True)
                (self.gamma * forgotten + self.alpha * retained).backward()
                optimiser.step()
        return free.detach()


def scored(final: FinalStates, logits: Float[Tensor, "token vocab"]) -> Forward:
    """Score logits that belong to ``final``, each token its own row."""
    logprob = logits.log_softmax(-1).gather(-1, final.target[:, None])[:, 0]
    return Forward(logprob, logits, final.target, torch.arange(len(final.target)), final.key, {})


def final_states(bench: Bench, ckpt: Checkpoint, rows: Rows) -> FinalStates:
    """The states of ``rows`` that predict their answers."""
    read = Read(site=Site(part="final_in"), at="answer")
    row, position = rows.targets("answer")
    return FinalStates(bench.run(ckpt, rows, (read,))[read], rows.ids[row, position], rows.key[row, position])


def bias_of(bench: Bench, ckpt: Checkpoint) -> Float[Tensor, " vocab"] | float:
    """What the head adds to its product: of a classifier of images its logits of no state at all."""
    if ckpt.modality != "image":
        return 0.0
    wrapper = bench.open(ckpt)
    with torch.no_grad():
        return wrapper.head(torch.zeros(wrapper.d_model, device=wrapper.device, dtype=wrapper.dtype)).float().cpu()


def head_name(bench: Bench, ckpt: Checkpoint) -> str:
    """The name of the output matrix: the parameter whose product with a state gives the model's own logits, but for a
    bias of the classes of images."""
    wrapper = bench.open(ckpt)
    state = torch.linspace(-1, 1, wrapper.d_model, device=wrapper.device, dtype=wrapper.dtype)
    with torch.no_grad():
        logits = wrapper.head(state)
        if ckpt.modality == "image":
            logits = logits - wrapper.head(torch.zeros_like(state))
        fits = [
            name
            for name, p in wrapper.parameters().items()
            if tuple(p.shape) == (wrapper.vocab_size, wrapper.d_model)
            and torch.allclose(p @ state, logits, rtol=1e-4, atol=1e-4)
        ]
    if len(fits) != 1:
        problem = "is tied to the input embedding" if fits else "is not a plain matrix"
        raise AuditError(f"the output head of {ckpt.source} {problem}", "untie the weights first, in every role")
    return fits[0]
