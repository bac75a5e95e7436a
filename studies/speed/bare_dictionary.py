"""A training step of TopK dictionaries, bare: encoding, the largest, decoding, the gradient by autograd, fused Adam.

No standardised rows, no norms of decoder rows, no dead features, no clipping, no counts: the least that a step of these
shapes takes in plain torch. The rate is 0, and rows are random.
"""

import torch

from studies.speed.pass_list import Learnt


class BareDictionary:
    """Dictionaries of one shape."""

    def __init__(self, shape: Learnt) -> None:
        members, rows, d, m, self._active = shape
        self._x, self._codes = torch.randn(members, rows, d), torch.zeros(members, rows, m)
        sizes = ((members, d, m), (members, 1, m), (members, m, d), (members, 1, d))
        self._weights = [torch.randn(size).mul_(0.1).requires_grad_() for size in sizes]
        self._optimiser = torch.optim.Adam(self._weights, 0.0, fused=True)

    def step(self) -> None:
        """One step."""
        W_enc, b_enc, W_dec, b_dec = self._weights
        values, at = torch.topk(torch.baddbmm(b_enc, self._x - b_dec, W_enc), self._active, dim=2, sorted=False)
        out = torch.baddbmm(b_dec, self._codes.scatter(2, at, values), W_dec)
        (out - self._x).square().sum().backward()
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
