"""A LoRA of a model with fused experts, merged by the names in its file.

PEFT rewrites the targets of such an adapter for the fused tensors and says nothing of what it leaves out: routed
experts in some families, shared and dense layers in others. So nothing is left to it here. Every pair of matrices is
given its place by name: a layer of the model, one expert's matrix under the name that it has in files (the library's
own rule for saving takes fused tensors apart), or a whole tensor of experts. Then base + scale * B @ A is written, read
back by the same names, and held against the pair.
"""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import JsonValue
from torch import Tensor, nn
from transformers import PreTrainedModel

from audit.schema import AuditError, ExitCode
from audit.wrappers.adapter_merge import DO_MERGE, VARIANTS, Rounded, held_against
from audit.wrappers.adapter_names import without_wrappers
from audit.wrappers.block_matrices import FUSED
from audit.wrappers.reading_rules import ReadingRules

_ROOT, _A, _B, _INNER = "base_model.model.", ".lora_A.weight", ".lora_B.weight", ".base_layer"


class Pair(NamedTuple):
    """The two matrices of a layer as the file holds them: [rank in] and [out rank], of fused experts [rank * expert in]
    and [out rank * expert]."""

    a: Tensor
    b: Tensor


class _Alone(NamedTuple):
    """A parameter that one pair changes: a matrix, or all experts in one tensor ([expert in out] if ``turned``)."""

    name: str
    parameter: Tensor
    layer: str
    turned: bool = False

    @property
    def layers(self) -> tuple[str, ...]:
        """The one layer that it holds."""
        return (self.layer,)

    def read(self, tensor: Tensor) -> dict[str, Tensor]:
        """Its matrix."""
        return {self.layer: tensor}

    def put(self, matrices: Mapping[str, Tensor]) -> None:
        """Change the parameter."""
        self.parameter.copy_(matrices[self.layer])


class _Split(NamedTuple):
    """A tensor of experts that a pair an expert changes: by the names that their matrices have in files."""

    name: str
    parameter: Tensor
    rules: ReadingRules
    turned: bool = False

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers whose matrices it holds; none where files keep it whole."""
        return tuple(self.read(torch.empty_like(self.parameter, device="meta")))

    def read(self, tensor: Tensor) -> dict[str, Tensor]:
        """One matrix an expert, as the library would write them."""
        pieces = self.rules.stored(self.name, tensor)
        return {piece.removesuffix(".weight"): part for piece, part in pieces.items() if part.ndim == 2}

    def put(self, matrices: Mapping[str, Tensor]) -> None:
        """Change the parameter, as the library would read these."""
        pieces = {f"{layer}.weight": partial(Tensor.clone, matrix) for layer, matrix in matrices.items()}
        self.parameter.copy_(self.rules.built(self.name, pieces)[self.name])


_Place = _Alone | _Split


def fused_experts(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that hold the matrices of several experts in one tensor, by path."""
    return {
        path: module for path, module in model.named_modules()
        if any(isinstance(p := getattr(module, name, None), Tensor) and p.ndim == 3 for name in FUSED)
    }  # fmt: skip


def expert_pairs(
    model: PreTrainedModel, tensors: Mapping[str, Tensor], settings: Mapping[str, JsonValue], path: Path
) -> dict[str, Pair]:
    """The pairs of a plain LoRA's file by the layer that each names, where base has fused experts; empty where PEFT can
    be asked: no such base, or no pair of matrices alone and none of experts.

    AuditError (code 2) for experts that are adapted in another way than by plain pairs.
    """
    if not fused_experts(model):
        if settings.get("target_parameters"):
            problem = f"{path}: target_parameters adapts bare parameters, and base has no fused experts"
            raise AuditError(problem, DO_MERGE)
        return {}
    names = {without_wrappers(name, "lora_"): name for name in tensors}
    layers = {name.removesuffix(_A) for name in names if name.endswith(_A)}
    others = sorted(set(names) - {layer + end for layer in layers for end in (_A, _B)})
    halves = sorted(layer for layer in layers if layer + _B not in names)
    variants = sorted(entry for entry in (*VARIANTS, "fan_in_fan_out", "lora_bias") if settings.get(entry))
    if settings.get("peft_type") == "LORA" and layers and not (others or halves or variants):
        return {
            layer.removeprefix(_ROOT): Pair(tensors[names[layer + _A]], tensors[names[layer + _B]]) for layer in layers
        }
    if any(".experts" in name for name in names):
        reason = f"as {settings.get('peft_type')}" if not variants else f"with {', '.join(variants)}"
        extra = f"; {len(others)} tensors belong to no pair (first: {others[0]})" if others else ""
        problem = f"{path}: adapts experts {reason}, and only plain pairs on experts can be checked{extra}"
        raise AuditError(problem, DO_MERGE)
    return {}


@torch.no_grad()
def merge_pairs(model: PreTrainedModel, pairs: Mapping[str, Pair], config: Any, path: Path) -> bool:
    """Merge every pair into the model's own weights. Does any weight change? ``config``: PEFT's, as the file has it.

    AuditError (code 3): a pair without a place, a place without a pair, shapes that differ, a change that is not
    scale * B @ A.
    """
    places = {layer: place for place in _places(model, pairs) for layer in place.layers}
    _check_complete(model, pairs, places, config, path)
    bites, rounded = False, Rounded()
    for place in {place.name: place for layer, place in places.items() if layer in pairs}.values():
        wanted = {layer: _product(place, layer, pairs[layer], config, path) for layer in place.layers if layer in pairs}
        before = place.parameter.detach().clone()
        place.put({
            layer: (matrix.to(wanted[layer].dtype) + wanted[layer]).to(matrix.dtype) if layer in wanted else matrix
            for layer, matrix in place.read(before).items()
        })  # fmt: skip
        rounded = rounded.plus(_missed(place, before, wanted, path))
        bites |= not torch.equal(before, place.parameter)
    rounded.warn(path)
    return bites


def _places(model: PreTrainedModel, pairs: Mapping[str, Pair]) -> Iterator[_Place]:
    """Every parameter of the model that pairs can be of."""
    experts, rules = fused_experts(model), ReadingRules(model)
    for name, parameter in model.named_parameters():
        home, _, last = name.rpartition(".")
        if parameter.ndim == 2 and last == "weight" and not isinstance(model.get_submodule(home), nn.Embedding):
            yield _Alone(name, parameter, home)
        elif parameter.ndim == 3 and home in experts:
            turned = bool(getattr(experts[home], "is_transposed", False))
            layer = _layer_of_whole(home, parameter, turned, pairs)
            yield _Split(name, parameter, rules) if layer is None else _Alone(name, parameter, layer, turned)


def _layer_of_whole(home: str, parameter: Tensor, turned: bool, pairs: Mapping[str, Pair]) -> str | None:
    """The name under which a pair adapts all experts of a tensor at once: PEFT nests one wrapper in another, so that
    only the sizes tell which tensor of a module is meant."""
    count, rows, columns = parameter.shape
    out, inputs = (columns, rows) if turned else (rows, columns)
    for layer, pair in pairs.items():
        nested = layer
        while nested.endswith(_INNER):
            nested = nested.removesuffix(_INNER)
        if nested == home and pair.a.shape[1] == inputs and pair.b.shape[0] == out and not len(pair.a) % count:
            return layer
    return None


def _check_complete(
    model: PreTrainedModel, pairs: Mapping[str, Pair], places: Mapping[str, _Place], config: Any, path: Path
) -> None:
    """AuditError (code 3) unless each pair has a place, and each place that the config names has a pair."""
    from peft.tuners.tuners_utils import check_target_module_exists

    linear = {layer for layer, module in model.named_modules() if isinstance(module, nn.Linear)} & places.keys()
    split = {layer for layer, place in places.items() if isinstance(place, _Split)}
    if not split & pairs.keys():  # trained on fused tensors, where no expert is a layer
        split = set()
    listed = config.target_modules and config.target_modules != "all-linear"
    wanted = {layer for layer in linear | split if listed and check_target_module_exists(config, layer)}
    lacking = wanted - pairs.keys() | {
        name for name, _ in model.named_parameters() for target in config.target_parameters or ()
        if (name == target or name.endswith(f".{target}")) and all(name != place.name for place in places.values())
    }  # fmt: skip
    problems = [
        f"{len(names)} {problem} (first: {min(names)})"
        for names, problem in (
            (pairs.keys() - places.keys(), f"of its {len(pairs)} pairs of matrices have no place in the model"),
            (lacking, "places that its config names get no pair"),
        )
        if names
    ]
    if problems:
        do = "give the adapter as PEFT's save_pretrained writes it, beside the base that it was trained on"
        raise AuditError(f"{path}: {' and '.join(problems)}", do, ExitCode.INTEGRITY)


def _product(place: _Place, layer: str, pair: Pair, config: Any, path: Path) -> Tensor:
    """scale * B @ A in float32 or wider, in the shape of the place. AuditError (code 3) where it does not fit."""
    from peft.utils.other import get_pattern_key

    exact = torch.promote_types(place.parameter.dtype, torch.float32)
    a, b, target = pair.a.to(exact), pair.b.to(exact), place.read(place.parameter.detach())[layer]
    count, patterns = (len(target) if target.ndim == 3 else 1), dict(config.alpha_pattern or {})
    rank = len(a) // count
    alpha = patterns.get(get_pattern_key(list(patterns), place.name if target.ndim == 3 else layer), config.lora_alpha)
    if b.shape[1] != len(a):
        raise _misfit(path, layer, [len(b), a.shape[1]], target)
    if target.ndim == 3:
        by_expert = b.reshape(len(b), rank, count).permute(2, 0, 1) @ a.reshape(count, rank, -1)
        product = by_expert.mT if place.turned else by_expert
    else:
        product = b @ a
    if product.shape != target.shape:
        raise _misfit(path, layer, list(product.shape), target)
    return alpha / (math.sqrt(rank) if config.use_rslora else rank) * product


def _misfit(path: Path, layer: str, shape: list[int], target: Tensor) -> AuditError:
    problem = f"{path}: {layer} is {shape}, its place in base {list(target.shape)}"
    return AuditError(problem, "give the base that it was trained on", ExitCode.INTEGRITY)


def _missed(place: _Place, before: Tensor, wanted: Mapping[str, Tensor], path: Path) -> Rounded:
    """Is what changed under each name scale * B @ A, to the rounding of the weights, and nothing else? AuditError
    (code 3) if not."""
    after, old = (place.read(tensor) for tensor in (place.parameter.detach(), before))
    rounded = Rounded()
    for layer, matrix in after.items():
        product = wanted.get(layer, torch.zeros((), dtype=torch.promote_types(matrix.dtype, torch.float32)))
        rounded = rounded.plus(held_against(product, old[layer], matrix, f"{path}: {layer}"))
    return rounded
