"""Edits played back on an opened model: bytes written, bytes restored, and the hooks that an edit sets.

A journal keeps the bytes that stood before; undoing copies them back and never subtracts, because adding and then
subtracting a delta in bfloat16 leaves a part of the weights changed. Tied weights: a name that an edit does not give
follows the tensor it is tied to; a tied name that an edit gives another value becomes a weight of its own (an edited
output head must not edit the embeddings), and undoing ties it again.
"""

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from audit.bench.weight_stream import same_bytes, weights
from audit.bench.writes.logit_bias import LogitBias
from audit.bench.writes.low_rank import LowRank
from audit.bench.writes.write import Write
from audit.checkpoints import delta_of
from audit.schema import AuditError, Checkpoint, EditRecord, ExitCode, Site

__all__ = ["WeightJournal", "low_rank_tensors", "opened", "played", "weights"]

_SITE = re.compile(r"(?P<tower>\w+)\.(?:(?P<block>\d+)\.)?(?P<part>[a-z_]+)")


class WeightJournal:
    """What stood in a model before it was edited. Leaving the block restores it, unless it was kept."""

    def __init__(self) -> None:
        self._bytes: list[tuple[Tensor, Tensor]] = []
        self._ties: list[tuple[nn.Module, str, nn.Parameter]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()

    @torch.no_grad()
    def overwrite(self, live: Tensor, value: Tensor) -> bool:
        """Put ``value`` into a live tensor. Does that change a byte?"""
        if same_bytes(live, value):
            return False
        self._bytes.append((live, live.detach().clone()))
        live.copy_(value)
        return True

    def untie(self, module: nn.Module, name: str, value: Tensor) -> None:
        """Give a module a parameter of its own in place of the shared one."""
        shared = module.get_parameter(name)
        self._ties.append((module, name, shared))
        setattr(module, name, nn.Parameter(value.clone(), requires_grad=shared.requires_grad))

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back as it was, last change first. Twice is once."""
        while self._ties:
            module, name, shared = self._ties.pop()
            setattr(module, name, shared)
        while self._bytes:
            live, before = self._bytes.pop()
            live.copy_(before)

    def keep(self) -> None:
        """Forget what stood before: the edits are to stay."""
        self._ties.clear()
        self._bytes.clear()


def opened(ckpt: Checkpoint, model: PreTrainedModel) -> tuple[Write, ...]:
    """Play all edits of ``ckpt`` on a freshly opened model of its parent, to stay. Returns the hooks that they set.

    AuditError: code 3 where a stored delta is not the one that its record names or does not fit the model; code 2 for
    an edit that changes no byte and sets no hook. The model is then as it was.
    """
    with WeightJournal() as journal:
        writes = _play(ckpt, model, journal)
        journal.keep()
    return writes


@contextmanager
def played(ckpt: Checkpoint, model: PreTrainedModel) -> Generator[tuple[Write, ...]]:
    """Play the edits for the length of a block; then every byte and every tie is as before, whatever happens."""
    with WeightJournal() as journal:
        yield _play(ckpt, model, journal)


def _play(ckpt: Checkpoint, model: PreTrainedModel, journal: WeightJournal) -> tuple[Write, ...]:
    writes: list[Write] = []
    for record in ckpt.edits:
        delta = delta_of(ckpt, record)
        if record.plays == "weights":
            if not _play_weights(record, delta, model, journal):
                raise AuditError(
                    f"edit {record.name!r} changes no byte of the model in {model.dtype}",
                    "open the model in the dtype that the edit was made in, or change the edit's settings",
                )
            continue
        hooks = _logit_bias(record, delta) if record.plays == "logit_bias" else _low_rank(record, delta)
        if not any(_bites(hook) for hook in hooks):
            raise AuditError(
                f"edit {record.name!r} sets no hook that changes a state", "change the edit's settings or its data"
            )
        writes += hooks
    return tuple(writes)


def _misfit(record: EditRecord, what: str) -> AuditError:
    return AuditError(
        f"the stored delta of edit {record.name!r} {what}", "write the edit again from its parent", ExitCode.INTEGRITY
    )


def _play_weights(
    record: EditRecord, delta: Mapping[str, Tensor], model: PreTrainedModel, journal: WeightJournal
) -> bool:
    """Write whole tensors by name, ties as the module says. Did any byte change?"""
    tied: dict[int, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        tied.setdefault(id(parameter), []).append((name, parameter))
    shapes = {name: parameter.shape for group in tied.values() for name, parameter in group}
    for name, value in delta.items():
        if name not in shapes:
            raise _misfit(record, f"names {name!r}, which is no parameter of this {model.config.model_type} model")
        if value.shape != shapes[name]:
            raise _misfit(record, f"holds {name!r} as {tuple(value.shape)}; the model has {tuple(shapes[name])}")
    changed = False
    for (first, live), *others in tied.values():
        if first in delta:
            changed |= journal.overwrite(live, delta[first].to(live))
        for name, _ in others:
            if name in delta and not same_bytes(live, value := delta[name].to(live)):
                module, _, attribute = name.rpartition(".")
                journal.untie(model.get_submodule(module), attribute, value)
                changed = True
    return changed


def _logit_bias(record: EditRecord, delta: Mapping[str, Tensor]) -> list[Write]:
    if set(delta) != {"bias"} or delta["bias"].ndim != 1:
        raise _misfit(record, f"should hold one vector 'bias', and holds {sorted(delta)}")
    return [LogitBias(delta["bias"])]


def low_rank_tensors(writes: Sequence[LowRank]) -> dict[str, Tensor]:
    """What ``delta.safetensors`` holds for a ``low_rank`` edit: ``<site>.u``, ``<site>.v``, ``<site>.b`` per site."""
    if any(write.rows is not None or write.site.head is not None for write in writes):
        raise AuditError("a stored low-rank edit acts on all rows and whole states", "leave out `rows` and `head`")
    if len({str(write.site) for write in writes}) != len(writes):
        raise AuditError("two low-rank edits at one site cannot be stored in one record", "store them as two edits")
    return {f"{w.site}.{letter}": t for w in writes for letter, t in (("u", w.u), ("v", w.v), ("b", w.b))}


def _low_rank(record: EditRecord, delta: Mapping[str, Tensor]) -> list[Write]:
    writes: list[Write] = []
    sites = sorted({name.rpartition(".")[0] for name in delta})
    if set(delta) != {f"{site}.{letter}" for site in sites for letter in "uvb"}:
        raise _misfit(record, f"should hold u, v and b for each site, and holds {sorted(delta)}")
    for name in sites:
        found = _SITE.fullmatch(name)
        if found is None:
            raise _misfit(record, f"names {name!r}, which is no site")
        site = Site.model_validate({key: value for key, value in found.groupdict().items() if value is not None})
        writes.append(LowRank(site, delta[f"{name}.u"], delta[f"{name}.v"], delta[f"{name}.b"]))
    return writes


def _bites(hook: Write) -> bool:
    """Can this hook change a state at all?"""
    if isinstance(hook, LogitBias):
        return bool((hook.bias != 0).any())
    assert isinstance(hook, LowRank)
    return bool((hook.b != 0).any()) or bool(((hook.u != 0).any(1) & (hook.v != 0).any(1)).any())
