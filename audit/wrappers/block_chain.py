"""Which list of modules are the blocks, what they hand on, and which module after them the head reads.

The blocks are the longest list whose modules run once each, one after the other, and give one state of every position;
lists inside another list (experts, adapters) are none. What a block hands on is a stream of states, or several streams
beside one another (hyper-connections), shown as one stream that is so many times as wide.
"""

from contextlib import ExitStack
from typing import NamedTuple

from torch import Tensor, nn

from audit.schema import AuditError
from audit.wrappers.tracing import Call, Subject, close, state_in, state_out

_OTHER_TOWERS = ("experts", "vision", "visual", "audio")


class End(NamedTuple):
    """The module whose output the head reads (None: the last block), the width of that output, how often the module
    runs in a pass, and whether it reads what the last block gives as it is."""

    module: nn.Module | None
    width: int
    calls: int = 1
    reads_stream: bool = True


def block_lists(model: nn.Module, others: tuple[str, ...] = _OTHER_TOWERS) -> list[nn.ModuleList]:
    """The lists that may be the blocks, the longest first; those of one class before those of several. AuditError
    (code 2) when there is none."""
    lists: list[nn.ModuleList] = []
    inside: set[int] = set()
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or len(module) == 0 or any(word in name for word in others):
            continue
        if id(module) not in inside:
            lists.append(module)
            inside |= {id(inner) for inner in module.modules()}
    if not lists:
        raise AuditError(
            f"no list of blocks was found in {type(model).__name__}: a ModuleList outside experts and towers of images",
            "audit a decoder whose layers are a ModuleList",
        )
    return sorted(lists, key=lambda entries: (-len(entries), len({type(entry) for entry in entries})))


def blocks_of(model: nn.Module, subject: Subject) -> nn.ModuleList:
    """The blocks. AuditError (code 2) that says what was looked for where no list runs like them."""
    lists = block_lists(model) if subject.causal else block_lists(model, ("experts",))
    number = {id(entry): (n, m) for n, entries in enumerate(lists) for m, entry in enumerate(entries)}
    ran: list[list[int]] = [[] for _ in lists]
    complete: list[bool] = [True] * len(lists)

    def hook(module: nn.Module, _args: object, output: object) -> None:
        which, place = number[id(module)]
        ran[which].append(place)
        state = state_out(output)
        complete[which] &= state is not None and subject.streams(state) is not None

    with ExitStack() as stack:
        for entries in lists:
            for entry in entries:
                stack.callback(entry.register_forward_hook(hook).remove)
        subject.run()
    for n, entries in enumerate(lists):
        if complete[n] and ran[n] == list(range(len(entries))):
            return entries
    tried = ", ".join(_said(*pair) for pair in zip(lists, ran, strict=True))
    raise AuditError(
        f"{type(subject.core).__name__}: no list of blocks was found in it whose modules run once each, one after the "
        f"other, and give one state of every token ({tried})",
        "audit a decoder whose tokens pass one list of blocks once",
    )


def _said(entries: nn.ModuleList, ran: list[int]) -> str:
    return f"{len(entries)} x {type(entries[0]).__name__} ran {len(ran)} times"


def end_of(subject: Subject, blocks: nn.ModuleList) -> End:
    """The module after the last block whose output is the base model's output. AuditError (code 2) for a core that
    gives no final state."""
    core = subject.core
    inside = {id(m) for m in blocks.modules()}
    after: list[Call] = []

    def hook(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> None:
        inp, out = state_in(args, kwargs), state_out(output)
        if inp is not None and out is not None:
            after.append(Call("", module, inp, out, inp, out))

    with ExitStack() as stack:
        for module in core.modules():
            if module is not core and id(module) not in inside:
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        last = blocks[-1].register_forward_hook(hook, with_kwargs=True)
        stack.callback(last.remove)
        last_hidden: Tensor | None = getattr(subject.run(), "last_hidden_state", None)
    order = [c.module for c in after]
    if last_hidden is None or blocks[-1] not in order:
        raise AuditError(
            f"the blocks of {type(core).__name__} do not hand on one state to one another and to the head",
            "audit a decoder that transformers builds as base model and head",
        )
    width = last_hidden.shape[-1]
    tail = after[order.index(blocks[-1]) :]
    norm = next((c for c in tail[1:] if close(c.inp, tail[0].out) and close(c.out, last_hidden)), None)
    if norm is not None:
        return End(norm.module, width, order.count(norm.module))
    last_read = next((c for c in reversed(tail[1:]) if close(c.out, last_hidden)), None)
    if close(tail[0].out, last_hidden) or last_read is None:
        return End(None, width)
    return End(last_read.module, width, order.count(last_read.module), reads_stream=False)


def kinds_of(blocks: nn.ModuleList) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which block is of which kind, and the first block of each: of one kind are blocks whose modules and parameters
    are of the same classes, names and shapes."""
    first: dict[object, int] = {}
    number: list[int] = []
    for n, block in enumerate(blocks):
        modules = tuple((name, type(module)) for name, module in block.named_modules())
        shapes = tuple((name, parameter.shape) for name, parameter in block.named_parameters())
        first.setdefault((modules, shapes), n)
        number.append(list(first).index((modules, shapes)))
    return tuple(number), tuple(first.values())
