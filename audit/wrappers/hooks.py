"""Hooks on modules: how a tap sees and changes a state as it passes, and how a block is left out or ends a pass."""

from collections.abc import Callable
from contextlib import ExitStack

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from audit.wrappers.tracing import put_state_in, put_state_out, state_in, state_out

Visit = Callable[[Tensor], Tensor | None]


class PassEnd(Exception):
    """Nothing after this block is wanted."""


class GivenState(nn.Module):
    """Stands in for a block that is not run: returns the given state, whatever comes in."""

    def __init__(self, state: Tensor) -> None:
        super().__init__()
        self.state = state

    def forward(self, *args: object, **kwargs: object) -> Tensor:
        return self.state


class SoftmaxView(TorchFunctionMode):
    """Sees the attention pattern of the block that is running: the output of its softmax, [row head pos pos].

    Where heads have a learned sink, its column stands after those of the tokens: rows of what is seen sum up to less
    than 1, and what is put in its place leaves the sink its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.visit: Visit | None = None

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: tuple[object, ...] = (), kwargs: object = None
    ) -> object:
        out = func(*args, **(kwargs if isinstance(kwargs, dict) else {}))
        if self.visit is not None and func is F.softmax and isinstance(out, Tensor) and out.ndim == 4:
            tokens = out.shape[-1] - (out.shape[-1] == out.shape[-2] + 1)
            new = self.visit(out[..., :tokens])
            return out if new is None else torch.cat([new.to(out.dtype), out[..., tokens:]], -1)
        return out


def merged_visits(visits: list[Visit]) -> Visit:
    """Several visits as one, each seeing what the one before it left."""
    if len(visits) == 1:
        return visits[0]

    def visit(state: Tensor) -> Tensor | None:
        changed = None
        for visitor in visits:
            new = visitor(state)
            if new is not None:
                state = changed = new
        return changed

    return visit


def shown_after(visit: Visit) -> Callable[..., object]:
    """A forward hook that shows a module's state to ``visit``."""

    def hook(module: nn.Module, args: object, output: object) -> object:
        state = state_out(output)
        assert state is not None, "a traced module gives a state"
        new = visit(state)
        return None if new is None else put_state_out(output, new)

    return hook


def shown_first(stack: ExitStack, module: nn.Module, visit: Visit) -> None:
    """Show a module's output to ``visit`` before any of its hooks sees it, until the stack closes."""
    inner, before = module.forward, module.__dict__.get("forward")

    def forward(*args: object, **kwargs: object) -> object:
        output = inner(*args, **kwargs)
        new = visit(output if isinstance(output, Tensor) else state_out(output))  # type: ignore[arg-type]
        return output if new is None else put_state_out(output, new)

    def restore() -> None:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before

    module.__dict__["forward"] = forward
    stack.callback(restore)


def shown_before(visit: Visit) -> Callable[..., object]:
    """A forward pre-hook that shows the state a module reads to ``visit``."""

    def hook(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        state = state_in(args, kwargs)
        assert state is not None, "a traced module reads a state"
        new = visit(state)
        if new is None:
            return None
        return put_state_in(args, kwargs, new)

    return hook


def last_of(calls: int, visit: Visit) -> Visit:
    """A visit of what a module gives the last time in a pass, of one that runs ``calls`` times in it."""
    if calls == 1:
        return visit
    left = calls

    def seen(state: Tensor) -> Tensor | None:
        nonlocal left
        left -= 1
        return visit(state) if left == 0 else None

    return seen


def end_pass(state: Tensor) -> None:
    """A visit after which nothing runs. Always raises :class:`PassEnd`."""
    raise PassEnd


def written_into(visit: Visit) -> Visit:
    """The middle of a block is read twice, by its norm and by the sum: writing into the tensor reaches both."""

    def seen(mid: Tensor) -> None:
        new = visit(mid.clone() if torch.is_grad_enabled() and mid.requires_grad else mid)
        if new is not None:
            mid.copy_(new)

    return seen
