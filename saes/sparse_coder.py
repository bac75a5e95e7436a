"""A sparse autoencoder in memory: x = z W_dec + b_dec + error, z = activation((x - b_dec) W_enc + b_enc).

Plain tensors and no library: whoever uses a dictionary needs none to train it. Codes are computed in float32, whatever
the state's dtype: in half precision the k-th and the next largest value are often equal.
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor

from audit.schema import content_key
from audit.storage import tensor_sha256

Activation = Literal["topk", "jumprelu", "relu"]


@dataclass(frozen=True, eq=False)
class SparseCoder:
    """Encoder, decoder and activation of one dictionary.

    ``topk``: the ``k`` largest, of these the positive ones. ``jumprelu``: the positive ones above their ``threshold``.
    ``relu``: the positive ones. ``centred``: whether ``b_dec`` is taken off a state before it is encoded. The rows of
    ``W_dec`` have any norm: a feature's size in the stream is its code times that norm.
    """

    W_enc: Float[Tensor, "d feature"]
    b_enc: Float[Tensor, " feature"]
    W_dec: Float[Tensor, "feature d"]
    b_dec: Float[Tensor, " d"]
    activation: Activation
    k: int | None = None
    threshold: Float[Tensor, " feature"] | None = None
    centred: bool = True

    def __post_init__(self) -> None:
        """A code without its number or thresholds would be another code: ours to keep together."""
        assert (self.activation == "topk") == (self.k is not None), "k belongs to topk, and to nothing else"
        assert (self.activation == "jumprelu") == (self.threshold is not None), "thresholds belong to jumprelu"

    @property
    def width(self) -> int:
        """The width of a state."""
        return self.W_dec.shape[1]

    @property
    def features(self) -> int:
        """How many features there are."""
        return self.W_dec.shape[0]

    @cached_property
    def name(self) -> str:
        """Content key over tensors and activation: equal dictionaries have equal names."""
        tensors = {part.name: getattr(self, part.name) for part in fields(self)}
        content = {n: tensor_sha256(t) if isinstance(t, Tensor) else t for n, t in tensors.items()}
        return content_key("dictionary", content)

    def pre_activations(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch feature"]:
        """What the activation is given, in float32."""
        state = x.float()
        centre = self.b_dec.float() if self.centred else torch.zeros_like(self.b_dec, dtype=torch.float32)
        return (state - centre) @ self.W_enc.float() + self.b_enc.float()

    def encode(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch feature"]:
        """The codes of states, in float32: zero where a feature is not active."""
        pre = self.pre_activations(x)
        if self.k is not None:
            values, at = torch.topk(pre, self.k, dim=-1, sorted=False)
            return torch.zeros_like(pre).scatter_(-1, at, values.relu())
        if self.threshold is None:
            return pre.relu()
        return pre.relu() * (pre > self.threshold.float()).float()

    def decode(self, feature_acts: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch d"]:
        """The states that codes stand for, in float32."""
        return feature_acts.float() @ self.W_dec.float() + self.b_dec.float()

    def edited(
        self, x: Float[Tensor, "*batch d"], change: Float[Tensor, "*batch feature"]
    ) -> Float[Tensor, "*batch d"]:
        """States with their codes moved by ``change``, in the states' dtype: x + change W_dec.

        That is decode(z + change) + (x - decode(z)): what the dictionary does not describe stays as it is, and no
        change leaves every bit in place.
        """
        return x + (change.float() @ self.W_dec.float()).to(x.dtype)

    def placed(self, device: torch.device | str) -> Self:
        """The same dictionary on a device."""
        moved = {
            part.name: held.to(device) for part in fields(self) if isinstance(held := getattr(self, part.name), Tensor)
        }
        return replace(self, **moved)

    def tensors(self) -> dict[str, Tensor]:
        """The weights by their names in sae_lens's files."""
        held = {"W_enc": self.W_enc, "b_enc": self.b_enc, "W_dec": self.W_dec, "b_dec": self.b_dec}
        return held if self.threshold is None else held | {"threshold": self.threshold}


def standardised(coder: SparseCoder, mean: Float[Tensor, " d"], sd: Float[Tensor, " d"]) -> SparseCoder:
    """The dictionary of raw states that does what ``coder`` does with (x - mean) / sd: same codes, states mapped back.

    W_enc <- W_enc / sd by row, W_dec <- W_dec * sd by column, b_dec <- b_dec * sd + mean; where b_dec is not taken off
    the input, b_enc <- b_enc - mean W_enc. Computed in float64, so that the codes stay what they were.
    """
    mean, sd = mean.double(), sd.double()
    W_enc = coder.W_enc.double() / sd[:, None]
    b_enc = coder.b_enc.double() if coder.centred else coder.b_enc.double() - mean @ W_enc
    dtype = coder.W_enc.dtype
    return replace(
        coder, W_enc=W_enc.to(dtype), b_enc=b_enc.to(dtype), W_dec=(coder.W_dec.double() * sd).to(dtype),
        b_dec=(coder.b_dec.double() * sd + mean).to(dtype),
    )  # fmt: skip


def rescaled(coder: SparseCoder, scale: float) -> SparseCoder:
    """The dictionary of raw states that does what ``coder`` does with ``scale`` times them.

    The decoder's bias is divided as its rows are: a state without an active feature is mapped back to the same scale.
    """
    zero = torch.zeros_like(coder.b_dec)
    return standardised(coder, zero, torch.full_like(zero, 1 / scale))
