"""Writes down the model passes of an audit as they are made, from outside: nothing of Residua knows that it is watched.

``python -m studies.speed.pass_recorder LIST run CASE -o OUT ...`` runs ``residua run CASE -o OUT ...`` in this process
and writes the list (:class:`studies.speed.pass_list.PassList`). Models of transformers are marked when they are built;
then every call of a block, of the module around the blocks and of the head is seen where torch calls modules, every
backward pass where autograd is entered, and every step of an optimiser or of a dictionary's training. So a pass counts
whoever makes it, with as many blocks as it really ran. Which unit it belongs to is said by the audit's own meter.
"""

import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge
from torch.optim.optimizer import register_optimizer_step_pre_hook

from studies.speed.pass_list import (
    BETWEEN,
    Back,
    Event,
    Head,
    Learnt,
    ModelKind,
    Opened,
    PassList,
    Run,
    Stepped,
    UnitPasses,
)

_MARK: Final = "_residua_recorded"
_SEEN: Final = "residua recorded"
_Place = tuple[str, int, int]
"""What a module is (block, core or head), of which kind of model, and which block."""


class PassRecorder:
    """Keeps what is seen, by unit."""

    def __init__(self) -> None:
        self.kinds: dict[ModelKind, int] = {}
        self.units: dict[str, list[Event]] = {}
        self.unit = BETWEEN
        self._going: int | None = None
        """The place of the run that goes on, in the list of the unit."""
        self._weighed = False
        """Whether a gradient of a model's weights was taken since the last step."""

    @property
    def events(self) -> list[Event]:
        """Of the unit that is under way."""
        return self.units.setdefault(self.unit, [])

    @contextmanager
    def within(self, unit: str) -> Generator[None]:
        """What is seen in this block belongs to a unit."""
        before, self.unit, self._going = self.unit, unit, None
        try:
            yield
        finally:
            self.unit, self._going = before, None

    def passes(self) -> PassList:
        """Everything so far."""
        return PassList(list(self.kinds), [UnitPasses(name, list(events)) for name, events in self.units.items()])

    # ---- models --------------------------------------------------------------------------------------------------
    def marks(self, model: Any, folder: str = "") -> int:
        """Mark the modules of a model; returns its kind."""
        config = model.config.get_text_config()
        config_text = "" if folder else f"{type(model).__name__} {model.config.to_json_string(use_diff=False)}"
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        model_kind = ModelKind(folder, str(getattr(config, "_attn_implementation", "")), dtype, config_text)
        kind = self.kinds.setdefault(model_kind, len(self.kinds))
        for name, module in model.named_modules():
            if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] in ("layers", "h", "layer", "blocks"):
                model.get_submodule(name.rpartition(".")[0]).__dict__[_MARK] = ("core", kind, 0)
                for n, block in enumerate(module):
                    block.__dict__[_MARK] = ("block", kind, n)
        head = model.get_output_embeddings()
        if head is not None:
            head.__dict__[_MARK] = ("head", kind, 0)
        return kind

    # ---- passes --------------------------------------------------------------------------------------------------
    def calls(self, place: _Place, states: Any, past: int) -> int | None:
        """A marked module is about to run; returns the place of what is written down, None for a core."""
        role, kind, number = place
        if role == "core":
            self._going = None
            return None
        if role == "head":
            self.events.append(Head(kind, states.shape[:-1].numel()))
            return len(self.events) - 1
        going = None if self._going is None else self.events[self._going]
        shape = (states.shape[0], states.shape[1], past)
        follows = isinstance(going, Run) and (going.rows, going.width, going.past) == shape and going.kind == kind
        if self._going is not None and follows and isinstance(going, Run) and number == going.last + 1:
            self.events[self._going] = going._replace(last=number)
            return self._going
        self.events.append(Run(kind, number, number, *shape, follows=follows and number > 0))
        self._going = len(self.events) - 1
        return self._going

    def gave(self, place: _Place, at: int, output: object) -> None:
        """What a marked module returned: gradients that flow through it are to be recognised."""
        state = output if isinstance(output, Tensor) else output[0] if isinstance(output, tuple) else None
        if isinstance(state, Tensor) and state.grad_fn is not None:
            _kept_with(state.grad_fn).setdefault(_SEEN, set()).add((self.unit, at, place[2]))

    # ---- gradients -----------------------------------------------------------------------------------------------
    def goes_back(self, outputs: Iterable[Tensor], inputs: Iterable[Tensor] | None, again: bool) -> None:
        """A backward pass from some tensors to some others, or to every leaf."""
        sources = None if inputs is None else {get_gradient_edge(t).node for t in inputs if t.requires_grad}
        reached, leaves = _reached([t.grad_fn for t in outputs if t.grad_fn is not None], sources)
        weights = any(isinstance(getattr(leaf, "variable", None), nn.Parameter) for leaf in leaves)
        touched: dict[int, int] = {}
        for unit, at, block in reached:
            if unit == self.unit:
                touched[at] = min(block, touched.get(at, block))
        for at, block in touched.items():
            event = self.events[at]
            if isinstance(event, Run):
                lowest = block if event.lowest < 0 else min(block, event.lowest)
                self.events[at] = event._replace(lowest=lowest, weights=event.weights or weights)
        runs = [at for at in touched if isinstance(self.events[at], Run)]
        for at in touched:
            event = self.events[at]
            if isinstance(event, Head) and event.of < 0:
                self.events[at] = event._replace(of=max((run for run in runs if run < at), default=-1))
        if touched:
            self._weighed |= weights
            self.events.append(Back(tuple(sorted(touched)), again, weights))

    def steps(self, optimiser: torch.optim.Optimizer) -> None:
        """An optimiser is about to step."""
        given = [p for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
        self.events.append(Stepped(type(optimiser).__name__, sum(p.numel() for p in given), self._weighed))
        self._weighed = False


def _kept_with(node: Any) -> dict[str, set[tuple[str, int, int]]]:
    """What is written down beside a node of autograd, as long as its graph lives."""
    return node.metadata


def _reached(roots: list[Node], sources: set[Node] | None) -> tuple[set[tuple[str, int, int]], list[Node]]:
    """The marks of the nodes through which a gradient flows from the roots, and the leaves at which it ends: those
    above a source, or all where none is named."""
    needed: dict[Node, bool] = {}
    stack: list[tuple[Node, bool]] = [(root, False) for root in roots]
    marks: set[tuple[str, int, int]] = set()
    leaves: list[Node] = []
    while stack:
        node, done = stack.pop()
        below = [other for other, _ in node.next_functions if other is not None]
        if not done:
            if node not in needed:
                needed[node] = False
                stack += [(node, True), *((other, False) for other in below)]
            continue
        flows = any(needed[other] for other in below)
        ends = not below if sources is None else node in sources
        needed[node] = flows or ends
        if flows:
            marks |= _kept_with(node).get(_SEEN, set())
        if ends:
            leaves.append(node)
    return marks, leaves


# ---- watching ---------------------------------------------------------------------------------------------------
@contextmanager
def watched() -> Generator[PassRecorder]:
    """Everything that runs in this block is seen by the recorder; then torch and transformers are as before."""
    from transformers import PreTrainedModel

    from saes.stacked_training import StackedTraining

    recorder, undo = PassRecorder(), list[tuple[Any, str, Any]]()

    def put(owner: Any, name: str, wrapped: Callable[[Any], Any]) -> None:
        before = owner.__dict__[name]
        undo.append((owner, name, before))
        setattr(owner, name, wrapped(before))

    put(nn.Module, "__call__", lambda inner: _seen_call(inner, recorder))
    put(torch.autograd, "grad", lambda inner: _seen_grad(inner, recorder))
    put(torch.autograd, "backward", lambda inner: _seen_backward(inner, recorder))
    put(StackedTraining, "step", lambda inner: _seen_learning(inner, recorder))
    put(PreTrainedModel, "post_init", lambda inner: _seen_built(inner, recorder))
    put(PreTrainedModel, "from_pretrained", lambda inner: _seen_opened(inner, recorder))
    hook = register_optimizer_step_pre_hook(lambda optimiser, *_: recorder.steps(optimiser))
    try:
        yield recorder
    finally:
        hook.remove()
        for owner, name, before in reversed(undo):
            setattr(owner, name, before)


def _seen_call(inner: Callable[..., Any], recorder: PassRecorder) -> Callable[..., Any]:
    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        place = module.__dict__.get(_MARK)
        if place is None:
            return inner(module, *args, **kwargs)
        states = args[0] if args else kwargs.get("hidden_states")
        cache = kwargs.get("past_key_values")
        past = 0 if cache is None or place[0] != "block" else int(cache.get_seq_length(place[2]))
        at = recorder.calls(place, states, past) if isinstance(states, Tensor) or place[0] == "core" else None
        output = inner(module, *args, **kwargs)
        if at is not None:
            recorder.gave(place, at, output)
        return output

    return call


def _tensors(given: Any) -> list[Tensor]:
    return [given] if isinstance(given, Tensor) else [] if given is None else list(given)


def _seen_grad(inner: Callable[..., Any], recorder: PassRecorder) -> Callable[..., Any]:
    def grad(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        again = bool(kwargs.get("retain_graph") or kwargs.get("create_graph"))
        recorder.goes_back(_tensors(outputs), _tensors(inputs), again)
        return inner(outputs, inputs, *args, **kwargs)

    return grad


def _seen_backward(inner: Callable[..., Any], recorder: PassRecorder) -> Callable[..., Any]:
    def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        again = bool(kwargs.get("retain_graph") or kwargs.get("create_graph"))
        recorder.goes_back(_tensors(tensors), None, again)
        return inner(tensors, *args, **kwargs)

    return backward


def _seen_learning(inner: Callable[..., Any], recorder: PassRecorder) -> Callable[..., Any]:
    def step(training: Any, batches: Any) -> Any:
        settings = training.settings
        rows, width = batches[0].shape
        recorder.events.append(Learnt(len(batches), rows, width, settings.features, settings.k))
        return inner(training, batches)

    return step


def _seen_built(inner: Callable[..., Any], recorder: PassRecorder) -> Callable[..., Any]:
    def post_init(model: Any) -> Any:
        result = inner(model)
        if (
            hasattr(model, "generate") or model.get_output_embeddings() is not None
        ):  # the outermost, not the blocks' own
            recorder.marks(model)
        return result

    return post_init


def _seen_opened(inner: Any, recorder: PassRecorder) -> Any:
    def from_pretrained(cls: type, where: Any, *args: Any, **kwargs: Any) -> Any:
        opened = inner.__func__(cls, where, *args, **kwargs)
        model = opened[0] if isinstance(opened, tuple) else opened
        weights = sorted(Path(where).glob("*.safetensors"))
        folder = str(weights[0].resolve().parent) if weights else str(where)
        recorder.events.append(Opened(recorder.marks(model, folder)))
        return opened

    return classmethod(from_pretrained)


def metered(recorder: PassRecorder) -> None:
    """Let the audit's meter say which unit is under way."""
    from audit.planning import Meter

    inner: Any = Meter.unit

    @contextmanager
    def unit(self: Any, name: str) -> Generator[None]:
        with recorder.within(name), inner(self, name):
            yield

    setattr(Meter, "unit", unit)  # noqa: B010 - a method of another module's class, replaced in this process


def main() -> int:
    """Run the command with everything seen, and write the list."""
    from audit.cli import main as residua

    path, words = Path(sys.argv[1]), sys.argv[2:]
    torch.set_num_threads(1)
    with watched() as recorder:
        metered(recorder)
        code = residua(words)
        recorder.passes().write(path)
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main())
