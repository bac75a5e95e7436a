"""Edits played back on an opened model: bytes written, and the hooks that an edit sets.

``weights`` is the one way that is no hook; every other is the kind of a write, whose file knows how it lies on disk.
Tied weights: a name that an edit does not give follows the tensor it is tied to; a tied name that an edit gives another
value becomes a weight of its own (an edited output head must not edit the embeddings), and undoing ties it again.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from audit.bench.weight_journal import WeightJournal, same_bytes
from audit.bench.writes.logit_bias import LogitBias
from audit.bench.writes.write import Write
from audit.checkpoints import delta_of
from audit.plugins import discover
from audit.schema import AuditError, Checkpoint, EditRecord, ExitCode


def opened(ckpt: Checkpoint, model: PreTrainedModel) -> tuple[Write, ...]:
    """Play all edits of ``ckpt`` on a freshly opened model of its parent, to stay. Returns the hooks that they set.

    AuditError: code 3 where a stored delta is not the one that its record names, does not fit the model or is of a kind
    that nobody can play; code 2 for an edit that changes no byte and sets no hook. The model is then as it was.
    """
    with WeightJournal() as journal:
        writes = play(ckpt, model, journal)
        journal.keep()
    return writes


def play(ckpt: Checkpoint, model: PreTrainedModel, journal: WeightJournal) -> tuple[Write, ...]:
    """Play all edits, each change of a weight in the journal. Errors and result are those of :func:`opened`."""
    writes: list[Write] = []
    for record in ckpt.edits:
        delta = _shared_rows(delta_of(ckpt, record), ckpt, record, model)
        if record.is_hook:
            writes += _hooks(record, delta)
        elif not _play_weights(record, delta, model, journal):
            raise AuditError(
                f"edit {record.name!r} changes no byte of the model in {model.dtype}",
                "open the model in the dtype that the edit was made in, or change the edit's settings",
            )
    return tuple(writes)


def write_of_kind(plays: str) -> type[Write]:
    """The write of that kind. AuditError (code 3) where no file of the folder is called so."""
    kinds = discover("audit.bench.writes", Write)
    if plays not in kinds:
        raise AuditError(
            f"an edit plays {plays!r}, which is neither 'weights' nor a kind of write",
            f"use a version that has it, or write the edit again as one of: {', '.join(kinds)}",
            ExitCode.INTEGRITY,
        )
    return kinds[plays]


def _hooks(record: EditRecord, delta: Mapping[str, Tensor]) -> tuple[Write, ...]:
    """The writes of one stored edit, which act on every run of the model."""
    try:
        hooks = write_of_kind(record.plays).from_delta(delta)
    except ValueError as error:
        raise _misfit(record, str(error)) from None
    if any(hook.virtual_tokens() is not None or hook.other_state() is not None for hook in hooks):
        raise _misfit(record, "puts in tokens or another model's states, which only a single pass can do")
    if not any(hook.bites() for hook in hooks):
        raise AuditError(
            f"edit {record.name!r} sets no hook that changes a state", "change the edit's settings or its data"
        )
    return hooks


def _shared_rows(
    delta: Mapping[str, Tensor], ckpt: Checkpoint, record: EditRecord, model: PreTrainedModel
) -> Mapping[str, Tensor]:
    """The delta without the rows of the vocabulary that do not count in this case (:attr:`Checkpoint.vocabulary`)."""
    rows = ckpt.vocabulary
    if rows is None or (record.is_hook and write_of_kind(record.plays) is not LogitBias):
        return delta
    live = dict(model.named_parameters(remove_duplicate=False))
    sizes = {"bias": torch.Size((rows,))} if record.is_hook else {name: p.shape for name, p in live.items()}

    def is_longer(name: str, value: Tensor) -> bool:
        return sizes.get(name) == (rows, *value.shape[1:]) and len(value) > rows

    return {name: value[:rows] if is_longer(name, value) else value for name, value in delta.items()}


def _misfit(record: EditRecord, reason: str) -> AuditError:
    return AuditError(
        f"the stored delta of edit {record.name!r} {reason}", "write the edit again from its parent", ExitCode.INTEGRITY
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
