"""Does hooking tell the truth on this model? Checked when it is opened, on a few tokens, or a few made-up images.

Hooking changes nothing; every block patched with its own output changes nothing and patched with another state moves
the logits, the last block included; the head on ``final_in`` gives the model's own logits; padding on the right does
not reach real positions of texts. One row a block: each row is patched at its own block, so that a failure names the
block. A model that reads images and words is asked in words alone, and then with images what is said of them.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from audit.schema import AuditError, ExitCode, SilentModelError, Site, as_audit_error
from audit.wrappers.interface import Batch, Tap, Wrapper
from audit.wrappers.tracing import overflown

_MOST_ROWS, _PADDED = 16, 4


def _tolerance(dtype: torch.dtype) -> float:
    return 1e-4 if torch.finfo(dtype).bits >= 32 else 5e-2


def _wrong(wrapper: Wrapper, symptom: str) -> AuditError:
    return AuditError(
        f"{wrapper.name}: the hooks do not see what this model computes: {symptom}",
        "open it with another backend, or report the model's class with this message",
    )


def _gap(a: Tensor, b: Tensor) -> Tensor:
    """Largest difference in each row, relative to the largest entry."""
    a, b = a.float(), b.float()
    return (a - b).abs().flatten(1).amax(1) / torch.maximum(a.abs().max(), b.abs().max()).clamp_min(1e-12)


def _seen(wrapper: Wrapper, batch: Batch, taps: list[Tap]) -> Tensor:
    """The states that the head reads, under some taps."""
    final: list[Tensor] = []
    wrapper.forward(batch, [*taps, Tap(Site(part="final_in"), lambda state: final.append(state.clone()))])
    if len(final) != 1:
        raise _wrong(wrapper, "the final norm was not seen once in a pass")
    return final[0]


@torch.inference_mode()
def check(wrapper: Wrapper) -> None:
    """Raises AuditError naming what fails, and at which block: code 2, or 3 for outputs that say nothing."""
    fault = f"{wrapper.name}: the checks of its hooks do not run on it"
    with as_audit_error(fault, "open it with another backend, or report the model's class with this message"):
        _check(wrapper)


def _check(wrapper: Wrapper) -> None:
    for first in range(0, wrapper.n_blocks, _MOST_ROWS):
        blocks = range(first, min(first + _MOST_ROWS, wrapper.n_blocks))
        batch = wrapper.trial(len(blocks))
        plain = _seen(wrapper, batch, [])
        if first == 0:
            _check_says(wrapper, _logits(wrapper, plain))
            _check_head(wrapper, batch, plain)
            if wrapper.tower().by_token:
                _check_padding(wrapper, batch, plain)
                _check_whole(wrapper, batch, plain)
        _check_blocks(wrapper, batch, plain, blocks)
    if wrapper.towers.keys() >= {"vision", "text"}:
        _check_images(wrapper)


def _logits(wrapper: Wrapper, final: Tensor) -> Tensor:
    """What the head makes of the final states that it reads."""
    tower = wrapper.tower()
    return wrapper.head(final if tower.summary is None else tower.summarised(final))


def _check_says(wrapper: Wrapper, logits: Tensor) -> None:
    """Are the outputs numbers, and do they depend on what is read? AuditError (code 3) if not."""
    scores = logits.flatten(0, -2)
    if overflown(scores):
        raise AuditError(
            f"{wrapper.name}: its outputs are no numbers: they overflow in {wrapper.dtype}",
            "fetch or save the checkpoint again, or give another --dtype",
            ExitCode.INTEGRITY,
        )
    if len(scores) > 1 and bool((scores == scores[0]).all()):
        problem = f"{wrapper.name}: it says the same whatever it reads: weights on the way to its outputs are zero"
        raise SilentModelError(problem, "fetch or save the checkpoint again", ExitCode.INTEGRITY)


def _check_head(wrapper: Wrapper, batch: Batch, plain: Tensor) -> None:
    """The head on what it reads, against the model itself."""
    model: Callable[..., object] | None = getattr(wrapper, "model", None)
    if model is not None:
        own: Tensor = model(**wrapper.own_inputs(batch)).logits  # type: ignore[attr-defined]
        if float(_gap(_logits(wrapper, plain), own).max()) > _tolerance(wrapper.dtype):
            raise _wrong(wrapper, "the head on final_in does not give the model's own logits")


def _check_padding(wrapper: Wrapper, batch: Batch, plain: Tensor) -> None:
    """Padding on the right reaches no real position."""
    ids, length = batch.ids, batch.ids.shape[1]
    padded = torch.cat([ids, ids[:, -_PADDED:].flip(1)], 1)
    mask = torch.arange(padded.shape[1], device=ids.device).expand_as(padded) < length
    final: list[Tensor] = []
    wrapper.forward(
        Batch(padded, mask, None, batch.extra), [Tap(Site(part="final_in"), lambda state: final.append(state.clone()))]
    )
    if float(_gap(final[0][:, :length], plain).max()) > _tolerance(wrapper.dtype):
        raise _wrong(wrapper, "tokens to the right of a position change its state (not a causal model)")


def _check_whole(wrapper: Wrapper, batch: Batch, plain: Tensor) -> None:
    """What a row's last block gives is all that its final states are made of: rows that change places there change
    places in what the head reads."""
    last = Site(part="resid_out", block=wrapper.n_blocks - 1)
    final = _seen(wrapper, batch, [Tap(last, lambda state: state.roll(1, 0))])
    if float(_gap(final, plain.roll(1, 0)).max()) > _tolerance(wrapper.dtype):
        raise _wrong(wrapper, f"block {last.block} hands on more than the state that is hooked")


def _check_images(wrapper: Wrapper) -> None:
    """Of a model that reads images and words: the same with an image, and an edit of every vision block that is read
    moves the logits of each image, while one of a block above them moves none."""
    batch = wrapper.trial_seen(2)
    plain = _seen(wrapper, batch, [])
    _check_head(wrapper, batch, plain)
    _check_padding(wrapper, batch, plain)
    wrapper.check_attention(batch)
    vision = wrapper.tower("vision")
    for block in (*vision.read, *range(vision.read[-1] + 1, vision.n_blocks)[:1]):
        site = Site(part="resid_out", block=block, tower="vision")
        edited = _seen(wrapper, batch, [Tap(site, lambda state: state.roll(1, -1) * 1.5)])
        moved = _gap(_logits(wrapper, edited), _logits(wrapper, plain))
        if block in vision.read and float(moved.min()) == 0:
            raise _wrong(wrapper, f"an edit of vision block {block}'s output does not move the logits")
        if block not in vision.read and float(moved.max()) > 0:
            raise _wrong(
                wrapper, f"an edit of vision block {block}'s output moves the logits, and nothing should read it"
            )


def _check_blocks(wrapper: Wrapper, batch: Batch, plain: Tensor, blocks: range) -> None:
    """Row r is patched at block ``blocks[r]``: with its own state, then with another."""
    small = _tolerance(wrapper.dtype)
    states: dict[int, Tensor] = {}

    def keeping(block: int) -> Callable[[Tensor], None]:
        return lambda state: states.update({block: state.clone()})

    def patching(row: int, block: int, change: float) -> Callable[[Tensor], Tensor]:
        def visit(state: Tensor) -> Tensor:
            state = state.clone()
            state[row] = states[block][row].roll(1, -1) if change else states[block][row]
            return state

        return visit

    watched = _seen(wrapper, batch, [Tap(Site(part="resid_out", block=b), keeping(b)) for b in blocks])
    if float(_gap(watched, plain).max()) > 0:
        raise _wrong(wrapper, "reading the residual stream changes the output")
    for change in (0.0, 1.0):
        taps = [Tap(Site(part="resid_out", block=b), patching(row, b, change)) for row, b in enumerate(blocks)]
        moved = _gap(_logits(wrapper, _seen(wrapper, batch, taps)), _logits(wrapper, plain))
        for row, block in enumerate(blocks):
            if not change and float(moved[row]) > small:
                raise _wrong(wrapper, f"block {block} patched with its own output changes the logits")
            if change and float(moved[row]) == 0:
                raise _wrong(wrapper, f"an edit of block {block}'s output does not move the logits")
