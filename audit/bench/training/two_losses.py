"""Two losses, two gradients, one step: the backward passes of recipes that weigh gradients against each other."""

from collections.abc import Mapping

import torch
from torch import Tensor

from audit.bench.training.recipe import SecondLoss


def backward(
    first: Tensor, second: Tensor, chosen: Mapping[str, Tensor], combination: SecondLoss, optimiser: torch.optim.AdamW
) -> None:
    """Take the gradients of two losses one after the other and leave their combination on the parameters."""
    grads = [
        torch.autograd.grad(
            loss, list(chosen.values()), retain_graph=loss is first, allow_unused=True, materialize_grads=True
        )
        for loss in (first, second)
    ]
    first_grads, second_grads = (dict(zip(chosen, got, strict=True)) for got in grads)
    size = {name: torch.hypot(first_grads[name], second_grads[name]) for name in chosen}
    for name, grad in combination.combine(first_grads, second_grads, adam_scale(optimiser, chosen, size)).items():
        chosen[name].grad = grad


def adam_scale(
    optimiser: torch.optim.AdamW, chosen: Mapping[str, Tensor], grads: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """1 / (sqrt(v) + eps) of every entry: v is what a step along ``grads`` would make of it, bias-corrected as in Adam.

    It is what Adam multiplies that step's gradient by, where ``betas[0]`` is 0.
    """
    group, scales = optimiser.param_groups[0], dict[str, Tensor]()
    beta, eps = group["betas"][1], group["eps"]
    for name, parameter in chosen.items():
        state = optimiser.state.get(parameter, {})
        fresh = (1 - beta) * grads[name].square()
        moment = beta * state["exp_avg_sq"] + fresh if state else fresh
        corrected = moment / (1 - beta ** (1 + float(state.get("step", 0))))
        scales[name] = 1 / (corrected.sqrt() + eps)
    return scales
