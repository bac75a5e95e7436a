"""PGA, the training loss: memorised texts are aligned with others along the direction that a probe reads."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from audit.bench import Forward, Learner, TrainData, TrainingRecipe, descend
from audit.edits._alignment import Controls, Paired, blocks_of, depths, fitted, paired_with
from audit.edits._edit import EditData
from audit.edits._images import refuse_images
from audit.edits._in_place import InPlaceEdit
from audit.schema import Site


class PGA(InPlaceEdit):
    """Unlearns a probe: the squared distance of paired texts along it, averaged over depths, plus CE of the others.

    align / (N D) sum over pairs and depths of (w_d (h_d(m) - h_d(c)))^2 + ce CE(c), h_d the state at the last token
    after block d, w_d the unit direction (coefficients over standard deviations) of a logistic probe of the *current*
    model, fitted anew every ``refit_every`` steps: rank one a depth. The pairs are forget texts and unrelated retained
    ones, as published; ``relabelled`` pairs each with its own alternate. All weights train; the published runs train
    LoRA adapters (rank 16 on attention and MLP), which a weight delta contains.
    Read on the texts it was fitted on, the result is below chance by construction; see studies/pga_illusion.
    Cite: arXiv 2605.01699 and its public notebooks.
    """

    plays: ClassVar[str] = "weights"
    of_texts: ClassVar[bool] = True

    align: float = 1.0
    ce: float = 1.0
    controls: Controls = "retain"
    shallowest: float = 0.0
    deepest: float = 1.0
    refit_every: int = 25
    steps: int = 200
    lr: float = 1e-4
    batch: int = 64
    warmup_steps: int = 0
    seed: int = 0

    def apply(self, learner: Learner, data: EditData) -> None:
        """Align in place, refitting the probe on the way."""
        refuse_images(self.name, data, "it aligns pairs of texts")
        paired = paired_with(data, self.controls)
        sites = depths(blocks_of(learner.parameters()), self.shallowest, self.deepest)
        probe = _Probe(paired, sites)
        probe.refit(0, learner)

        def loss(forward: Forward | None, *_other: Forward | None) -> Tensor:
            assert forward is not None
            return self.align * probe.misaligned(forward) + self.ce * _cross_entropy(forward)

        recipe = TrainingRecipe(
            self.name, loss, steps=self.steps, lr=self.lr, batch=self.batch, warmup_steps=self.warmup_steps,
            schedule="constant", betas=(0.9, 0.999), at_sites=sites, paired=True, seed=self.seed,
            every=(self.refit_every, probe.refit),
        )  # fmt: skip
        descend(learner, recipe, TrainData(paired.rows))


class _Probe:
    """The probe's directions, one a depth, of the model as it is now."""

    def __init__(self, paired: Paired, sites: tuple[Site, ...]) -> None:
        self.paired, self.sites = paired, sites
        self.direction = torch.zeros(0)

    def refit(self, _step: int, learner: Learner) -> None:
        """Fit the probe anew on all pairs."""
        with torch.no_grad():
            states = last_states(learner.answers(self.paired.rows, self.sites), self.sites)
        self.direction = fitted(states.double(), self.paired.side).direction()

    def misaligned(self, forward: Forward) -> Float[Tensor, ""]:
        """Mean over pairs and depths of the squared distance along the directions."""
        states = last_states(forward, self.sites)
        distance = (states[:, 0::2] - states[:, 1::2]) @ self.direction.to(states)[..., None]
        return distance.square().mean()


def last_states(forward: Forward, sites: tuple[Site, ...]) -> Float[Tensor, "site row d"]:
    """The states at every row's last answer token."""
    assert forward.at is not None
    rows = int(forward.row[-1]) + 1
    ends = forward.at.new_zeros(rows).scatter_reduce(0, forward.row, forward.at + 1, "amax")
    index = torch.arange(rows, device=ends.device)
    return torch.stack([forward.states[site][index, ends] for site in sites])


def _cross_entropy(forward: Forward) -> Float[Tensor, ""]:
    """Mean over the other texts (odd rows) of each one's mean negative log-likelihood, in nats."""
    rows = int(forward.row[-1]) + 1
    total = forward.logprob.new_zeros(rows).index_add(0, forward.row, -forward.logprob)
    return (total / torch.bincount(forward.row, minlength=rows))[1::2].mean()
