"""One tiny forward of the model below its head, watched: what its modules read and give, and with some outputs changed.

Two rows are run that differ in one token (or patch), so that whatever mixes positions shows itself.
"""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from audit.schema import AuditError, as_audit_error

Change = Callable[[Tensor], Tensor]
Entering = tuple[tuple[object, ...], dict[str, object]]
"""A module's positional and named arguments."""
_TINY = (2, 7)
"""Rows and positions of :func:`tiny_ids`."""
_NO_TOKEN = 1.0625
"""An embedding times this is that of no token."""


class Streams(NamedTuple):
    """How many streams a block hands on, and where they stand: ``after`` [row pos n d], ``before`` [n row pos d]."""

    n: int = 1
    place: Literal["after", "before"] = "after"

    def shown(self, state: Tensor) -> Float[Tensor, "row pos width"]:
        """The streams of every position side by side."""
        if self.n == 1:
            return state
        return state.flatten(2) if self.place == "after" else state.movedim(0, 2).flatten(2)

    def handed(self, state: Float[Tensor, "row pos width"]) -> Tensor:
        """The same as a block hands it on."""
        if self.n == 1:
            return state
        parted = state.unflatten(2, (self.n, -1))
        return parted if self.place == "after" else parted.movedim(2, 0)


class Subject(NamedTuple):
    """The model below its head, run on two tiny rows: of a causal model they differ in their first position, else in
    their last one alone."""

    core: nn.Module
    run: Callable[[], object]
    causal: bool = True

    @property
    def untouched(self) -> int:
        """A position that is the same in both rows until attention mixes positions."""
        return 1 if self.causal else 0

    def streams(self, state: Tensor) -> Streams | None:
        """How a block hands on this state; None where it is not one of every position of both rows."""
        if not self.causal or (state.ndim == 3 and state.shape[:2] == _TINY):
            return Streams()
        if state.ndim == 4 and state.shape[:2] == _TINY:
            return Streams(state.shape[2], "after")
        return Streams(state.shape[0], "before") if state.ndim == 4 and state.shape[1:3] == _TINY else None


class Call(NamedTuple):
    """One module call: its path, its state in and out as values, and the live tensors (some families add in place)."""

    path: str
    module: nn.Module
    inp: Tensor
    out: Tensor
    live_inp: Tensor
    live_out: Tensor


def state_in(args: tuple[object, ...], kwargs: dict[str, object]) -> Tensor | None:
    """The hidden state among a module's arguments."""
    if args and isinstance(args[0], Tensor):
        return args[0]
    hidden = kwargs.get("hidden_states")
    if isinstance(hidden, Tensor):
        return hidden
    return next((v for v in kwargs.values() if isinstance(v, Tensor) and v.is_floating_point() and v.ndim == 3), None)


def state_out(output: object) -> Tensor | None:
    """The hidden state in a module's output: blocks return tensors, tuples or lists, by release and family."""
    if isinstance(output, tuple | list) and output:
        output = cast("tuple[object, ...]", output)[0]
    return output if isinstance(output, Tensor) else None


def put_state_out(output: object, new: Tensor) -> object:
    """A module's output with another state in the place of :func:`state_out`'s."""
    if isinstance(output, tuple | list):
        rest = cast("tuple[object, ...]", output)[1:]
        if hasattr(output, "_fields"):
            return type(output)(new, *rest)  # pyright: ignore[reportCallIssue] a named tuple takes its entries
        return (new, *rest) if isinstance(output, tuple) else [new, *rest]
    return new


def close(a: Tensor, b: Tensor) -> bool:
    """Equal within the rounding of their dtype, relative to their scale."""
    return a.shape == b.shape and gap(a, b) <= (2e-2 if a.element_size() < 4 else 1e-4)


def overflown(scores: Tensor) -> bool:
    """Are some of these no numbers? Minus infinity forbids a word, as some heads do; nothing but it does not."""
    return bool((scores.isnan() | (scores == torch.inf)).any()) or not bool(scores.isfinite().any())


def gap(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest entry."""
    scale = max(float(a.abs().max()), float(b.abs().max()), 1e-12)
    return float((a.float() - b.float()).abs().max()) / scale


class _Halt(BaseException):
    """Ends a traced forward once its block is done."""


def put_state_in(args: tuple[object, ...], kwargs: dict[str, object], new: Tensor) -> Entering:
    """A module's arguments with another state in the place of :func:`state_in`'s."""
    state = state_in(args, kwargs)
    if args and args[0] is state:
        return (new, *args[1:]), kwargs
    return args, {name: new if value is state else value for name, value in kwargs.items()}


def trace(subject: Subject, block: nn.Module, edits: dict[str, Change], given: Tensor | None = None) -> list[Call]:
    """Calls inside ``block`` in order of return; ``edits`` change the output of the named modules on the way, and
    ``given`` enters the block instead of what the one before it gave."""
    calls: list[Call] = []

    def entered(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> Entering | None:
        return None if given is None else put_state_in(args, kwargs, given.clone())

    def seen(path: str) -> Callable[..., object]:
        def hook(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> object:
            inp, out = state_in(args, kwargs), state_out(output)
            if inp is None or out is None:
                return None
            new = edits[path](out) if path in edits else out
            calls.append(Call(path, module, inp.clone(), new.clone(), inp, new))
            if path == "":
                raise _Halt
            return new if path in edits else None

        return hook

    with ExitStack() as stack:
        stack.callback(block.register_forward_pre_hook(entered, with_kwargs=True).remove)
        for path, module in block.named_modules():
            handle = module.register_forward_hook(seen(path), with_kwargs=True)
            stack.callback(handle.remove)
        with suppress(_Halt):
            subject.run()
    return calls


def on_embeddings(core: nn.Module, embeds: Float[Tensor, "row pos d"]) -> Subject:
    """A language model run on the input embeddings of :func:`tiny_ids`. Running it raises AuditError (code 2) for a
    model that does not run on embeddings alone."""

    def run() -> object:
        name, do = type(core).__name__, "audit a decoder that runs on embeddings alone; it has no place for hooks"
        with as_audit_error(f"{name} does not run on input embeddings", do):
            return core(inputs_embeds=embeds, use_cache=False)

    return Subject(core, run)


def on_ids(core: nn.Module, ids: Int[Tensor, "row pos"]) -> Subject:
    """A language model run on tokens. Running it raises AuditError (code 2) for a model that does not run on them."""

    def run() -> object:
        with as_audit_error(f"{type(core).__name__} does not run on tokens alone", "audit a decoder that does"):
            return core(input_ids=ids, use_cache=False)

    return Subject(core, run)


def reads_ids(core: nn.Module, ids: Int[Tensor, "row pos"], embeds: Float[Tensor, "row pos d"]) -> bool:
    """Does a language model read more of its tokens than their embeddings (routing by token, embeddings a block)? Asked
    with embeddings of tokens, and with others beside them: some look up which token an embedding is of."""
    plain: Any = on_ids(core, ids).run()
    try:
        by_embeddings: Any = on_embeddings(core, torch.cat([embeds, embeds * _NO_TOKEN])).run()
    except AuditError:  # whatever it misses in embeddings, it is not there
        return True
    states = getattr(plain, "last_hidden_state", None)
    return states is not None and not close(states, by_embeddings.last_hidden_state[: len(ids)])


def on_pixels(core: nn.Module, pixels: Float[Tensor, "row channel height width"]) -> Subject:
    """A classifier run on two images that differ in their last patch alone. Running it raises AuditError (code 2) for a
    model that does not run on pixels alone."""

    def run() -> object:
        name, do = type(core).__name__, "audit a classifier that runs on pixel values alone"
        with as_audit_error(f"{name} does not run on pixel values", do):
            return core(pixel_values=pixels)

    return Subject(core, run, causal=False)


def tiny_ids(vocab: int) -> Int[Tensor, "row pos"]:
    """Two rows that differ in their first token only."""
    row = torch.arange(_TINY[1]) % max(vocab - 1, 1)
    return torch.stack([row, torch.cat([row[:1] + 1, row[1:]])])
