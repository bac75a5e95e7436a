"""MLPs that are mixtures of experts, as one sum of value vectors.

A mixture writes  sum over experts e of p_e(x) (m_e(x) V_e + b_e)  and, in some families, a shared expert beside it. So
every expert's hidden unit has a value vector, and its coefficient is its activation times the weight that the router
gives its expert: 0 where the token is not sent there. The hidden units of a block are those of the shared expert, then
those of the routed experts in their order. What the MLP writes is linear in the coefficients, so that writing them
needs no other way through the model: the difference times the value vectors is added to what it wrote.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from audit.wrappers.hooks import Visit, shown_before, shown_first
from audit.wrappers.tracing import close, state_in, state_out

_TINY = 1e-30


class ValueTensor(NamedTuple):
    """A parameter that holds value vectors: of one MLP, [unit d] if ``by_unit``, else [d unit]; of several experts
    [expert unit d] or [expert d unit]."""

    weight: Float[Tensor, "*expert rows columns"]
    by_unit: bool

    @property
    def vectors(self) -> Float[Tensor, "unit d"]:
        """The value vectors, one expert's after the other's: a view of one MLP's, and where they are kept by unit."""
        return self._by_unit.reshape(-1, self._by_unit.shape[-1])

    @property
    def _by_unit(self) -> Float[Tensor, "*expert unit d"]:
        return self.weight if self.by_unit else self.weight.mT

    def vector(self, unit: int) -> Float[Tensor, " d"]:
        """A view of one value vector."""
        return self._by_unit[divmod(unit, self._by_unit.shape[-2])] if self.weight.ndim == 3 else self._by_unit[unit]

    def stored(self, vectors: Float[Tensor, "unit d"]) -> Tensor:
        """Value vectors as the parameter holds them."""
        shaped = vectors.reshape(self._by_unit.shape)
        return shaped if self.by_unit else shaped.mT

    @property
    def units(self) -> int:
        """How many there are."""
        return self.weight.numel() // self._by_unit.shape[-1]

    def written(self, coefficients: Float[Tensor, "*batch unit"]) -> Float[Tensor, "*batch d"]:
        """The sum of coefficients times value vectors."""
        if self.weight.ndim == 2:
            return coefficients @ self._by_unit
        return torch.einsum("...eu,eud->...d", coefficients.unflatten(-1, self._by_unit.shape[:2]), self._by_unit)


class DenseUnits(NamedTuple):
    """The hidden units of a block with one MLP: what its last matrix reads."""

    down: nn.Module

    @property
    def tensors(self) -> tuple[ValueTensor, ...]:
        """Its value vectors."""
        return (value_tensor(self.down),)

    def show(self, stack: ExitStack, visit: Visit) -> None:
        """Show the units to ``visit`` until the stack closes."""
        handle = self.down.register_forward_pre_hook(shown_before(visit), with_kwargs=True)
        stack.callback(handle.remove)


class Mixture(NamedTuple):
    """The hidden units of a block whose MLP is a mixture: ``shared`` and its last matrix ``down``, then ``experts``."""

    mlp: nn.Module
    experts: Any
    shared: nn.Module | None
    down: nn.Module | None

    @property
    def tensors(self) -> tuple[ValueTensor, ...]:
        """Value vectors in the order of the hidden units."""
        routed = ValueTensor(self.experts.down_proj, self.experts.is_transposed)
        return (routed,) if self.down is None else (value_tensor(self.down), routed)

    def written(self, coefficients: Float[Tensor, "*batch unit"]) -> Float[Tensor, "*batch d"]:
        """What these coefficients write to the stream, without the biases of the experts."""
        tensors = self.tensors
        parts = coefficients.split([tensor.units for tensor in tensors], -1)
        return torch.stack([t.written(part) for t, part in zip(tensors, parts, strict=True)]).sum(0)

    def show(self, stack: ExitStack, visit: Visit) -> None:
        """Show the coefficients [row pos unit] to ``visit`` until the stack closes; what it returns acts in their
        place. While gradients are on, what the MLP writes depends on the coefficients that were shown."""

        def after(shape: torch.Size, seen: _Seen) -> Tensor | None:
            shown = seen.units.view(*shape, -1)
            new = visit(shown)
            if torch.is_grad_enabled():
                rest = (seen.leaving - self.written(seen.units) - seen.biases).detach()
                return self.written((shown if new is None else new).flatten(0, -2)) + seen.biases + rest
            if new is None:
                return None
            return seen.leaving + self.written((new - shown).flatten(0, -2).to(seen.leaving.dtype))

        self.watch(stack, after)

    def watch(self, stack: ExitStack, after: "Callable[[torch.Size, _Seen], Tensor | None]") -> None:
        """Have ``after`` see what passed, with [row pos] as the shape of the tokens, and put something else in place of
        what the MLP wrote, until the stack closes."""
        parts, shapes = dict[str, Tensor](), list[torch.Size]()

        def routed(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> None:
            routing = _routing(args, kwargs)
            parts["units"] = routed_coefficients(self.experts, routing)
            parts["biases"] = routed_biases(self.experts, routing)
            parts["routed"] = _flat(output)

        def enter(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
            entering = state_in(args, kwargs)
            assert entering is not None, "an MLP reads a state"
            shapes.append(entering.shape[:-1])

        def leave(leaving: Tensor) -> Tensor | None:
            seen = self._seen(parts, leaving.reshape(-1, leaving.shape[-1]))
            parts.clear()
            new = after(shapes.pop(), seen)
            return None if new is None else new.to(leaving.dtype).view_as(leaving)

        handles = [self.experts.register_forward_hook(routed, with_kwargs=True)]
        if self.shared is not None and self.down is not None:
            handles.append(self.down.register_forward_hook(lambda _, args, __: parts.update(hidden=_flat(args[0]))))
            handles.append(self.shared.register_forward_hook(lambda _, __, out: parts.update(shared=_flat(out))))
        handles.append(self.mlp.register_forward_pre_hook(enter, with_kwargs=True))
        for handle in handles:
            stack.callback(handle.remove)
        shown_first(stack, self.mlp, leave)

    def _seen(self, parts: Mapping[str, Tensor], leaving: Float[Tensor, "token d"]) -> "_Seen":
        """The coefficients of the shared expert are its hidden units times the factor by which it is added, token by
        token."""
        if self.shared is None:
            return _Seen(parts["units"], parts["biases"], leaving)
        own, added = parts["shared"].float(), (leaving - parts["routed"]).float()
        factor = (added * own).sum(1, keepdim=True) / own.square().sum(1, keepdim=True).clamp_min(_TINY)
        shared = parts["hidden"] * factor.to(leaving.dtype)
        return _Seen(torch.cat([shared, parts["units"]], 1), parts["biases"], leaving)


class _Seen(NamedTuple):
    """One pass of an MLP of experts: coefficients, what the experts' biases add, and what it writes in all."""

    units: Float[Tensor, "token unit"]
    biases: Float[Tensor, "token d"]
    leaving: Float[Tensor, "token d"]


class _Routing(NamedTuple):
    """What experts are given: the tokens' states, to which experts each is sent, and with which weights."""

    states: Float[Tensor, "token d"]
    chosen: Int[Tensor, "token k"]
    weights: Float[Tensor, "token k"]


HiddenUnits = DenseUnits | Mixture


def value_tensor(down: nn.Module) -> ValueTensor:
    """The value vectors of a plain last matrix."""
    from transformers.pytorch_utils import Conv1D

    return ValueTensor(down.get_parameter("weight"), isinstance(down, Conv1D))


def routed_coefficients(experts: Any, routing: _Routing) -> Float[Tensor, "token unit"]:
    """Every expert's activations times the weight of its routing, 0 where a token is not sent to it."""
    name = "gate_up_proj" if experts.has_gate else "up_proj"
    matrix: Tensor = getattr(experts, name)
    width = experts.down_proj.shape[1 if experts.is_transposed else 2]
    units = routing.states.new_zeros(len(routing.states), len(matrix), width)
    for expert in routing.chosen.unique().tolist():
        if expert >= len(matrix):  # how places that are masked are marked
            continue
        token, place = torch.where(routing.chosen == expert)
        bias = getattr(experts, f"{name}_bias")[expert] if experts.has_bias else None
        by_output = matrix[expert].T if experts.is_transposed else matrix[expert]
        inner = functional.linear(routing.states[token], by_output, bias)
        active = experts._apply_gate(inner) if experts.has_gate else experts.act_fn(inner)
        units[token, expert] = (active * routing.weights[token, place, None]).to(units.dtype)
    return units.flatten(1)


def routed_biases(experts: Any, routing: _Routing) -> Float[Tensor, "token d"]:
    """What the biases of the experts add to each token."""
    if not experts.has_bias:
        return torch.zeros_like(routing.states)
    added: Tensor = experts.down_proj_bias[routing.chosen.clamp_max(len(experts.down_proj_bias) - 1)]
    return (added * routing.weights[..., None]).sum(1).to(routing.states.dtype)


def _routing(args: tuple[object, ...], kwargs: Mapping[str, object]) -> _Routing:
    """The arguments of experts, in whichever way they are handed over."""
    states, *others = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    index = next(value for value in others if not value.is_floating_point())
    weights = next(value for value in others if value.is_floating_point())
    return _Routing(_flat(states), index, weights)


# ---- finding them -----------------------------------------------------------------------------------------------
def hidden_units(mlps: Sequence[nn.Module], run: Callable[[], object]) -> tuple[HiddenUnits, ...]:
    """The hidden units of every block's MLP, found by structure and held against ``run``, a tiny pass: coefficients
    times value vectors (and biases) are what the MLP writes. Empty where no MLP has experts, or that is not so in every
    block."""
    experts = [_experts(mlp) for mlp in mlps]
    if not any(experts):
        return ()
    outputs = _outputs(mlps, run)
    units = [_units(mlp, each, outputs) for mlp, each in zip(mlps, experts, strict=True)]
    complete = tuple(each for each in units if each is not None)
    return complete if len(complete) == len(units) and _checks_out(complete, run) else ()


def _experts(mlp: nn.Module) -> nn.Module | None:
    """The one module of experts in an MLP whose class says how its tensors are kept."""
    stated = [
        module for module in mlp.modules()
        if isinstance(getattr(module, "is_transposed", None), bool) and hasattr(module, "down_proj")
        and not getattr(module, "has_post_expert_norm", False)
    ]  # fmt: skip
    return stated[0] if len(stated) == 1 else None


def _outputs(mlps: Sequence[nn.Module], run: Callable[[], object]) -> dict[nn.Module, Tensor]:
    """What every module inside the MLPs gives in a tiny pass, token by token."""
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _: object, output: object) -> None:
        state = state_out(output)
        if state is not None and state.ndim > 1:
            outputs[module] = state.reshape(-1, state.shape[-1])

    with ExitStack() as stack, torch.no_grad():
        for module in (inner for mlp in mlps for inner in mlp.modules()):
            stack.callback(module.register_forward_hook(keep).remove)
        run()
    return outputs


def _units(mlp: nn.Module, experts: nn.Module | None, outputs: Mapping[nn.Module, Tensor]) -> HiddenUnits | None:
    if experts is None:
        down = _last_matrix(mlp, outputs)
        return None if down is None else DenseUnits(down)
    beside = [
        (child, down) for child in mlp.children()
        if child in outputs and mlp in outputs and outputs[child].shape == outputs[mlp].shape
        and all(inner is not experts for inner in child.modules()) and (down := _last_matrix(child, outputs))
    ]  # fmt: skip
    if len(beside) > 1:
        return None
    shared, down = beside[0] if beside else (None, None)
    return Mixture(mlp, experts, shared, down)


def _last_matrix(mlp: nn.Module, outputs: Mapping[nn.Module, Tensor]) -> nn.Module | None:
    """The last matrix inside an MLP whose output is the MLP's."""
    from transformers.pytorch_utils import Conv1D

    inside = [m for m in mlp.modules() if isinstance(m, nn.Linear | Conv1D) and m in outputs and mlp in outputs]
    return next((m for m in reversed(inside) if close(outputs[m], outputs[mlp])), None)


def _checks_out(units: Sequence[HiddenUnits], run: Callable[[], object]) -> bool:
    """Do coefficients, value vectors and biases give what every mixture writes?"""
    agree: list[bool] = []
    with ExitStack() as stack, torch.no_grad():
        for mixture in (each for each in units if isinstance(each, Mixture)):

            def compare(_: torch.Size, seen: _Seen, mixture: Mixture = mixture) -> None:
                agree.append(close(mixture.written(seen.units) + seen.biases, seen.leaving))

            mixture.watch(stack, compare)
        run()
    return len(agree) == sum(isinstance(each, Mixture) for each in units) and all(agree)


def _flat(output: object) -> Tensor:
    state = state_out(output)
    assert state is not None, "experts read and write states"
    return state.reshape(-1, state.shape[-1])
