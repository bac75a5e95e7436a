"""sae_lens's trainers, one a site, driven step by step: made from settings, put on disk and taken up again.

sae_lens is imported here and nowhere else, when the first trainer is made: it takes seconds, and brings wandb, which is
told not to run. Its own resumption is not used: ``load_trainer_state`` of 6.54.12 leaves the weights as drawn.
JumpReLU is trained here; the other architectures are trained in stacks, whose steps are held against these in tests.
"""

import json
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from audit.wrappers import without_downloads
from saes.activations import Moments
from saes.lens_config import IN_MEMORY, CodeSettings, coder_from
from saes.records import TrainingSettings
from saes.sparse_coder import SparseCoder
from saes.step_training import Glimpse, StepTraining

if TYPE_CHECKING:
    from sae_lens.saes.sae import TrainingSAE
    from sae_lens.training.sae_trainer import SAETrainer

_SILENT = {"WANDB_MODE": "disabled", "WANDB_SILENT": "true"}
_NEVER = 1 << 62
_L0_WARM_UP_SHARE = 0.1


@contextmanager
def _silent() -> Generator[None]:
    """No run of wandb and no download while sae_lens is imported; the environment is restored."""
    before = {name: os.environ.get(name) for name in _SILENT}
    os.environ.update(_SILENT)
    try:
        with without_downloads():
            yield
    finally:
        for name, setting in before.items():
            if setting is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = setting


class SiteTraining:
    """One autoencoder in training, and the mean and deviation by which its rows are standardised.

    Rows are centred always: where the mean of the states is large beside their spread, features that start beside it
    die at once (arXiv 2605.31518). The bias of sae_lens's decoder starts at 0.
    """

    def __init__(self, settings: TrainingSettings, moments: Moments, seed: int) -> None:
        self.settings, self.moments = settings, moments
        self._mean, self._scale = moments.mean.float(), (1 / moments.sd).float()
        self.trainer = _trainer(settings, len(moments.mean), seed)
        self._last: Any = None

    def step(self, batch: Float[Tensor, "row d"]) -> None:
        """Learn from one batch of raw states, which is changed."""
        self._last = self.trainer.step(batch.sub_(self._mean).mul_(self._scale))
        self.trainer.n_training_steps += 1

    def glimpse(self) -> Glimpse:
        """How the last batch went."""
        x, out, codes = self._last.sae_in, self._last.sae_out.detach(), self._last.feature_acts.detach()
        missed, spread = (x - out).square().sum(), (x - x.mean(0)).square().sum()
        return Glimpse(
            float(1 - missed / spread.clamp_min(1e-12)), float((codes > 0).sum() / len(x)),
            int(self.trainer.dead_neurons.sum()),
        )  # fmt: skip

    def coder(self) -> SparseCoder:
        """The dictionary of raw states: sae_lens folds the standardisation, and what is saved is what it would save.

        This ends the training: the weights are those of raw states afterwards.
        """
        sae, sd = self.trainer.sae, self.moments.sd
        sae.fold_activation_whitening(self.moments.mean, torch.diag(1 / sd), torch.diag(sd))
        tensors = {name: tensor.detach().clone() for name, tensor in sae.state_dict().items()}
        sae.process_state_dict_for_saving_inference(tensors)
        config = sae.cfg.get_inference_sae_cfg_dict()
        known = CodeSettings(
            config["architecture"], "topk" if config["architecture"] == "topk" else "jumprelu", config["d_in"],
            config["d_sae"], config.get("k"), config["apply_b_dec_to_input"],
            bool(config.get("rescale_acts_by_decoder_norm", False)), 1.0,
        )  # fmt: skip
        return coder_from(known, tensors, IN_MEMORY)

    # ---- on disk and back ----------------------------------------------------------------------------------------
    def tensors(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, as tensors."""
        trainer = self.trainer
        held = {f"weights/{name}": tensor for name, tensor in trainer.sae.state_dict().items()}
        for place, state in trainer.optimizer.state_dict()["state"].items():
            held |= {f"adam/{place}/{name}": tensor for name, tensor in state.items()}
        held |= {"counts/since_fired": trainer.n_forward_passes_since_fired, "counts/fired": trainer.act_freq_scores}
        return held

    def numbers(self) -> str:
        """The rest, as JSON, which keeps every digit of a float."""
        trainer = self.trainer
        return json.dumps({
            "samples": trainer.n_training_samples, "steps": trainer.n_training_steps,
            "counted": trainer.n_frac_active_samples, "groups": trainer.optimizer.state_dict()["param_groups"],
            "rate": trainer.lr_scheduler.state_dict(),
            "coefficients": {name: s.state_dict() for name, s in trainer.coefficient_schedulers.items()},
        })  # fmt: skip

    def restore(self, tensors: Mapping[str, Tensor], numbers: str) -> None:
        """Go on where :meth:`tensors` and :meth:`numbers` were taken."""
        trainer, state = self.trainer, json.loads(numbers)
        trainer.sae.load_state_dict(_below(tensors, "weights/"))
        adam: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below(tensors, "adam/").items():
            place, _, part = name.partition("/")
            adam.setdefault(int(place), {})[part] = tensor.clone()
        trainer.optimizer.load_state_dict({"state": adam, "param_groups": state["groups"]})
        trainer.lr_scheduler.load_state_dict(state["rate"])
        trainer.n_forward_passes_since_fired = tensors["counts/since_fired"].clone()
        trainer.act_freq_scores = tensors["counts/fired"].clone()
        trainer.n_training_samples, trainer.n_training_steps = state["samples"], state["steps"]
        trainer.n_frac_active_samples = state["counted"]
        for name, scheduler in trainer.coefficient_schedulers.items():
            scheduler.load_state_dict(state["coefficients"][name])


class LensTraining(StepTraining):
    """One autoencoder that sae_lens trains, as a member of its own."""

    def __init__(self, settings: TrainingSettings, moments: Sequence[Moments], seeds: Sequence[int]) -> None:
        super().__init__(settings, moments)
        (own,), (seed,) = moments, seeds
        self._only = SiteTraining(settings, own, seed)

    def step(self, batches: Sequence[Float[Tensor, "row d"]]) -> None:
        (batch,) = batches
        self._only.step(batch.clone())
        self.steps_done += 1

    def glimpses(self) -> list[Glimpse]:
        return [self._only.glimpse()]

    def coder(self, n: int) -> SparseCoder:
        return self._only.coder()

    def tensors(self, n: int) -> dict[str, Tensor]:
        return self._only.tensors()

    def numbers(self, n: int) -> str:
        return self._only.numbers()

    def restore(self, n: int, tensors: Mapping[str, Tensor], numbers: str) -> None:
        self._only.restore(tensors, numbers)
        self.steps_done = self._only.trainer.n_training_steps


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _trainer(settings: TrainingSettings, width: int, seed: int) -> "SAETrainer[Any, Any]":
    with _silent():
        from sae_lens.config import SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer
    steps = settings.steps
    config = SAETrainerConfig(
        total_training_samples=steps * settings.batch_rows, train_batch_size_samples=settings.batch_rows,
        lr=settings.rate, lr_end=settings.rate / 10, lr_warm_up_steps=settings.warm_up_steps,
        lr_decay_steps=settings.decay_steps, dead_feature_window=settings.dead_window,
        # its own sparsity report makes a histogram of wandb every so many steps
        feature_sampling_window=_NEVER, n_batches_for_norm_estimate=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sae = _autoencoder(settings, width)
    return SAETrainer(config, sae, iter(()))


def _autoencoder(settings: TrainingSettings, width: int) -> "TrainingSAE[Any]":
    from sae_lens import (
        BatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        JumpReLUTrainingSAE,
        JumpReLUTrainingSAEConfig,
        TopKTrainingSAE,
        TopKTrainingSAEConfig,
    )

    sizes: dict[str, Any] = {"d_in": width, "d_sae": settings.features}
    if settings.architecture == "topk":
        return TopKTrainingSAE(TopKTrainingSAEConfig(k=settings.k, **sizes))
    if settings.architecture == "batchtopk":
        return BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(k=float(settings.k), **sizes))
    return JumpReLUTrainingSAE(
        JumpReLUTrainingSAEConfig(
            jumprelu_sparsity_loss_mode="quadratic", target_l0=float(settings.k),
            l0_coefficient=settings.l0_coefficient, l0_warm_up_steps=int(_L0_WARM_UP_SHARE * settings.steps), **sizes,
        )
    )  # fmt: skip
