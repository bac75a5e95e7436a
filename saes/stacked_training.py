"""Several TopK or BatchTopK autoencoders of one size trained at once: every product of a step is one batched product.

What is learnt is what sae_lens's trainer learns of the same rows from the same first weights, to rounding: its loss
(squared error, and dead features on the rest), its clipped gradient, its Adam, its rates. The gradient is written out.
A code of sae_lens is u |d_j|, with u the pre-activation and d_j the decoder row, and is divided by |d_j| again before
it is decoded: |d_j| decides which features are active, and drops out of what they write and of the gradient.
"""

import json
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from saes.activations import Moments
from saes.lens_config import IN_MEMORY, CodeSettings, coder_from
from saes.records import TrainingSettings
from saes.sparse_coder import SparseCoder, standardised
from saes.step_training import Glimpse, StepTraining

_FIRST_NORM = 0.1
_CLIPPED_AT = 1.0
_BETAS, _EPSILON = (0.9, 0.999), 1e-8
_THRESHOLD_RATE = 0.01
_STARVED = -torch.inf
_ALIGNED = 16
"""Every member's weights begin at a multiple of so many numbers: what is left over of a vector is rounded otherwise."""


class StackedTraining(StepTraining):
    """Autoencoders of ``settings`` for states of one width, each with its own mean and deviation and first weights."""

    def __init__(self, settings: TrainingSettings, moments: Sequence[Moments], seeds: Sequence[int]) -> None:
        assert settings.architecture != "jumprelu", "thresholds that are learnt are sae_lens's to train"
        super().__init__(settings, moments)
        self._k, self._window = settings.k, settings.dead_window
        members, d, m, rows = len(moments), len(moments[0].mean), settings.features, settings.batch_rows
        self._flat = torch.zeros(members, -(-(2 * d * m + m + d) // _ALIGNED) * _ALIGNED)
        self._slope, self._mean_slope, self._mean_square = (torch.zeros_like(self._flat) for _ in range(3))
        self._step = torch.zeros(())
        self._weights, self._gradient = _parts(self._flat, d, m), _parts(self._slope, d, m)
        for n, seed in enumerate(seeds):
            first = _first_rows(m, d, seed)
            self._weights["W_dec"][n], self._weights["W_enc"][n] = first, first.T
        self._row_starts = torch.arange(rows)[:, None] * m
        self._since_fired, self._fired = torch.zeros(members, m), torch.zeros(members, m)
        self._threshold = torch.zeros(members, dtype=torch.float64)
        # of the size of all codes of a batch: allotted once, since new memory of this size costs as much as a product
        self._pre, self._scaled, self._codes, self._slopes = (torch.zeros(members, rows, m) for _ in range(4))
        self._active: Int[Tensor, "member place"] = torch.zeros(members, 1, dtype=torch.long)
        self._x = torch.zeros(members, rows, d)
        self._out, self._live = self._x, torch.zeros(members, 1, dtype=torch.bool)

    @torch.inference_mode()
    def step(self, batches: Sequence[Float[Tensor, "row d"]]) -> None:
        W_enc, b_enc, W_dec, b_dec = self._weights.values()
        x = torch.stack(list(batches), out=self._x).sub_(self._mean).mul_(self._scale)
        centred = x - b_dec[:, None]
        pre = torch.baddbmm(b_enc[:, None], centred, W_enc, out=self._pre)
        scaled = torch.mul(pre, torch.linalg.vector_norm(W_dec, dim=2)[:, None], out=self._scaled)
        largest, active = self._chosen(scaled)
        self._live = live = largest > 0
        self._place(self._codes, active, pre.flatten(1).gather(1, active) * live)
        self._out = torch.baddbmm(b_dec[:, None], self._codes, W_dec)
        error = self._out - x
        starved = self._starved(scaled, error)
        upward = error.mul_(2 / x.shape[1])
        torch.bmm(self._codes.mT, upward, out=self._gradient["W_dec"])
        back = torch.bmm(upward, W_dec.mT, out=self._scaled)  # of what was scaled nothing more is needed
        self._place(self._slopes, active, back.flatten(1).gather(1, active) * live)
        self._active = active
        slopes = self._slopes if starved is None else self._revived(*starved)
        torch.bmm(centred.mT, slopes, out=self._gradient["W_enc"])
        b_enc_gradient = torch.sum(slopes, 1, out=self._gradient["b_enc"])
        # no product of matrix and vector: a batched one rounds otherwise than one alone
        torch.sub(upward.sum(1), (W_enc * b_enc_gradient[:, None]).sum(2), out=self._gradient["b_dec"])
        self._learn()
        self._count(largest, active)

    def _chosen(
        self, scaled: Float[Tensor, "member row feature"]
    ) -> tuple[Float[Tensor, "member place"], Int[Tensor, "member place"]]:
        """The largest values, and where they lie among all of a member's batch: k a row, or k a row on average."""
        if self.settings.architecture == "batchtopk":
            rows, m = scaled.shape[1:]
            return torch.topk(scaled.flatten(1), min(self._k * rows, rows * m), dim=1, sorted=False)
        largest, columns = torch.topk(scaled, self._k, dim=2, sorted=False)
        return largest.flatten(1), columns.add_(self._row_starts).flatten(1)

    def _place(
        self, dense: Float[Tensor, "member row feature"], at: Int[Tensor, "member place"], values: Tensor
    ) -> None:
        """Values at some places, and zero everywhere else: what the last step left is taken away first."""
        dense.flatten(1).scatter_(1, self._active, 0.0).scatter_(1, at, values)

    def _learn(self) -> None:
        """One step of Adam at this step's rate, the gradient of each member clipped as a whole.

        The kernel of torch's fused Adam, called without its optimiser, which takes ten times as long at small sizes.
        """
        length = torch.linalg.vector_norm(self._slope, dim=1, keepdim=True)
        self._slope.mul_((_CLIPPED_AT / (length + 1e-6)).clamp_(max=1))
        torch.ops.aten._fused_adam_.default(
            [self._flat], [self._slope], [self._mean_slope], [self._mean_square], [], [self._step.add_(1)],
            lr=rate_at(self.settings, self.steps_done), beta1=_BETAS[0], beta2=_BETAS[1], weight_decay=0.0,
            eps=_EPSILON, amsgrad=False, maximize=False,
        )  # fmt: skip
        self.steps_done += 1

    def _count(self, largest: Float[Tensor, "member place"], active: Int[Tensor, "member place"]) -> None:
        """How often each feature was active, and for how many steps it was not; BatchTopK's threshold follows."""
        live = self._live
        times = torch.zeros_like(self._fired).scatter_add_(1, active % self._fired.shape[1], live.float())
        self._since_fired.add_(1).mul_(times == 0)
        self._fired.add_(times)
        if self.settings.architecture == "batchtopk":
            least = torch.where(live, largest, torch.inf).amin(1).double()
            moved = torch.lerp(self._threshold, least, _THRESHOLD_RATE)
            self._threshold = torch.where(live.any(1), moved, self._threshold)

    # ---- features that do not fire -------------------------------------------------------------------------------
    def _starved(
        self, scaled: Float[Tensor, "member row feature"], error: Float[Tensor, "member row d"]
    ) -> tuple[Float[Tensor, "member row feature"], Float[Tensor, "member row d"]] | None:
        """Codes of the dead features that are to explain what the others leave, and the error's slope; None if there
        is none. At most half as many as the states are wide, and weighted down where they are fewer (sae_lens)."""
        if self.steps_done <= self._window or not bool((dead := self._since_fired > self._window).any()):
            return None
        half, count = self._x.shape[2] // 2, dead.sum(1)
        most = min(half, int(count.max()))
        if most == 0:
            return None
        among = torch.where(dead[:, None], scaled, _STARVED)
        values, columns = torch.topk(among, most, dim=2, sorted=False)
        own = self._pre.gather(2, columns).where(values > _STARVED, 0)
        codes = torch.zeros_like(scaled).scatter_(2, columns, own)
        missed = torch.bmm(codes, self._weights["W_dec"]).add_(error)
        weight = (count / half).clamp(max=1).mul_(2 / error.shape[1])
        return codes, missed.mul_(weight[:, None, None])

    def _revived(
        self, codes: Float[Tensor, "member row feature"], upward: Float[Tensor, "member row d"]
    ) -> Float[Tensor, "member row feature"]:
        """The slopes of all pre-activations, with those of dead features; their decoder rows' gradients are added."""
        self._gradient["W_dec"].baddbmm_(codes.mT, upward)
        back = torch.bmm(upward, self._weights["W_dec"].mT)
        return self._slopes + back.mul_(codes != 0)

    @property
    def _dead(self) -> Bool[Tensor, "member feature"]:
        return self._since_fired > self._window

    # ---- seen, and on disk ---------------------------------------------------------------------------------------
    def glimpses(self) -> list[Glimpse]:
        x = self._x
        missed = (x - self._out).square().sum((1, 2))
        spread = (x - x.mean(1, keepdim=True)).square().sum((1, 2)).clamp_min(1e-12)
        columns = (1 - missed / spread, self._live.sum(1) / x.shape[1], self._dead.sum(1))
        return [Glimpse(float(fve), float(l0), int(dead)) for fve, l0, dead in zip(*columns, strict=True)]

    def coder(self, n: int) -> SparseCoder:
        settings, by_name = self.settings, self._weights_of(n)
        known = CodeSettings(
            settings.architecture, "topk" if settings.architecture == "topk" else "jumprelu",
            len(self.moments[n].mean), settings.features, settings.k if settings.architecture == "topk" else None,
            centred=True, norm_scaled=True, scale=1.0,
        )  # fmt: skip
        return standardised(coder_from(known, by_name, IN_MEMORY), *self.moments[n])

    def tensors(self, n: int) -> dict[str, Tensor]:
        held = {f"weights/{name}": tensor for name, tensor in self._weights_of(n).items()}
        held |= {"adam/exp_avg": self._mean_slope[n], "adam/exp_avg_sq": self._mean_square[n]}
        held |= {"counts/since_fired": self._since_fired[n], "counts/fired": self._fired[n]}
        return {name: tensor.contiguous() for name, tensor in held.items()}

    def _weights_of(self, n: int) -> dict[str, Tensor]:
        """The weights of one member by their names in sae_lens's training form."""
        own = {name: tensor[n].clone() for name, tensor in self._weights.items()}
        return own | (
            {"topk_threshold": self._threshold[n].clone()} if self.settings.architecture == "batchtopk" else {}
        )

    def numbers(self, n: int) -> str:
        return json.dumps({"steps": self.steps_done})

    def restore(self, n: int, tensors: Mapping[str, Tensor], numbers: str) -> None:
        for name, tensor in self._weights.items():
            tensor[n] = tensors[f"weights/{name}"]
        if self.settings.architecture == "batchtopk":
            self._threshold[n] = tensors["weights/topk_threshold"]
        self._since_fired[n], self._fired[n] = tensors["counts/since_fired"], tensors["counts/fired"]
        self.steps_done = json.loads(numbers)["steps"]
        self._mean_slope[n], self._mean_square[n] = tensors["adam/exp_avg"], tensors["adam/exp_avg_sq"]
        self._step.fill_(self.steps_done)


def _parts(flat: Float[Tensor, "member weight"], d: int, m: int) -> dict[str, Tensor]:
    """Views of a flat tensor as the four weights of every member; what is left of it stays zero."""
    W_enc, b_enc, W_dec, b_dec, _ = flat.split([d * m, m, d * m, d, flat.shape[1] - 2 * d * m - m - d], 1)
    return {"W_enc": W_enc.unflatten(1, (d, m)), "b_enc": b_enc, "W_dec": W_dec.unflatten(1, (m, d)), "b_dec": b_dec}


def _first_rows(m: int, d: int, seed: int) -> Float[Tensor, "feature d"]:
    """The decoder rows that a member starts from, as sae_lens draws them; its encoder starts as their transpose."""
    rows = nn.init.kaiming_uniform_(torch.empty(m, d), generator=torch.Generator().manual_seed(seed))
    return rows.div_(rows.norm(dim=-1, keepdim=True)).mul_(_FIRST_NORM)


def rate_at(settings: TrainingSettings, step: int) -> float:
    """The learning rate of a step, counted from 0: up at first, down to nothing over the last fifth."""
    warm_up, decay = settings.warm_up_steps, settings.decay_steps
    if step < warm_up:
        return settings.rate * (step + 1) / warm_up
    return settings.rate * (1 - max(0, step - (settings.steps - decay)) / decay) if decay else settings.rate
