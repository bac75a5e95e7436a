"""Which settings of a config change what a model computes? Asked of every causal family, by changing each of them.

A family is built tiny. Each of its settings is given other values, one at a time; where a model of the changed config
takes the same weights, its logits are held against those before. What moves logits has to be among the settings that
:mod:`audit.checkpoints.architecture` compares.
"""

import copy
import dataclasses
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from audit.checkpoints.architecture import meaning_of, setting_differences
from audit.schema import AuditError, as_audit_error
from studies.families.tiny_configs import FAMILIES, tiny_config, tiny_model

TABLE = Path(__file__).parent / "expected" / "unmoved_settings.json"
"""By family: compared settings whose change moves no logit; and families that are not swept, with the reason."""
LARGEST = 7_000_000
"""Families whose tiny model has more parameters are not swept."""
LENGTH = 24
_MOVED = 1e-6
_WORDS = {
    "silu": ("relu",), "gelu": ("relu",), "relu": ("silu",), "softmax": ("sigmoid",), "sigmoid": ("softmax",),
    "full_attention": ("sliding_attention",), "sliding_attention": ("full_attention",), "rope": ("alibi",),
    "noaux_tc": ("greedy",), "greedy": ("group_limited_greedy",),
}  # fmt: skip


class Change(NamedTuple):
    """One changed setting of one family: does it move logits, and is it one that is compared?"""

    family: str
    setting: str
    value: object
    moves: bool
    compared: bool


def changes(family: str) -> Iterator[Change]:
    """Every change of the family's settings that its weights fit; of each setting the first that moves logits, else
    the last. Raises whatever the family raises as it stands."""
    config = tiny_config(family)
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in _built(_read_back(config)).parameters())
    if size > LARGEST:
        raise ValueError(f"its tiny model has {size} parameters")
    weights = tiny_model(family).state_dict()
    model = _built(_read_back(config))
    model.load_state_dict(weights)
    before, prefix = logits(model), logits(model, LENGTH - 1)
    if float((before[:, : LENGTH - 1] - prefix).abs().max()) > 1e-4 * float(before.abs().max()):
        raise ValueError("no causal model: what a position says depends on what follows it")
    for path, value in settings_of(config):
        found: Change | None = None
        for other in others(path.rpartition(".")[2], value):
            after = _with(family, config, path, other, weights)
            if after is None:
                continue
            changed, out = after
            moves = out.shape != before.shape or float((out - before).abs().max()) > _MOVED * float(before.abs().max())
            compared = bool(setting_differences(meaning_of(_read_back(config)), meaning_of(_read_back(changed))))
            found = Change(family, path, other, moves, compared)
            if moves:
                break
        if found is not None:
            yield found


def settings_of(config: PreTrainedConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The names and values of a config's settings, those within others by dotted names, entries of tables too."""
    shared = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    inside = config.get_text_config(decoder=True)
    for field in dataclasses.fields(config):
        value = vars(config).get(field.name)
        if isinstance(value, PreTrainedConfig):
            if value is inside or config is inside:
                yield from settings_of(value, f"{prefix}{field.name}.")
        elif field.name not in shared:
            yield f"{prefix}{field.name}", value


def others(name: str, value: Any) -> list[Any]:
    """Other values of a setting's kind."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [n for n in (value + 1, value - 1, 2 * value, value // 2) if n not in (value, 0) and n > -2]
    if isinstance(value, float):
        return [0.3] if value == 0 else [1.7 * value, 0.5 * value] if abs(value) > 1e-2 else [3e-2]
    if isinstance(value, str):
        return ["relu", "tanh"] if "act" in name else list(_WORDS.get(value, ()))
    if value is None:
        return [2.0, 3, True, "relu"] if "act" in name else [2.0, 3, True]
    if isinstance(value, dict):
        return list(_tables(value))
    if isinstance(value, list | tuple) and value:
        return [list(value[1:]) + [value[0]], [_next(v) for v in value]]
    return []


def _tables(table: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            for inner in _tables(value):
                yield table | {key: inner}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield table | {key: 0.5 * value}


def _next(value: Any) -> Any:
    return (not value) if isinstance(value, bool) else value + 1 if isinstance(value, int) else value


def _with(
    family: str, config: PreTrainedConfig, path: str, value: Any, weights: dict[str, torch.Tensor]
) -> tuple[PreTrainedConfig, torch.Tensor] | None:
    """The config with another value, and the logits of its model with these weights; None where they do not fit."""
    changed: Any = copy.deepcopy(config)
    *outer, last = path.split(".")
    inside = changed
    for name in outer:
        inside = getattr(inside, name)
    try:
        with warnings.catch_warnings(), as_audit_error("the family does not take it", "give another value"):
            warnings.simplefilter("ignore")
            setattr(inside, last, value)
            rebuilt = _read_back(changed)
            model = _built(rebuilt)
            model.load_state_dict(weights)
            return rebuilt, logits(model)
    except AuditError:  # a value that the family does not take, or weights of another shape
        return None


def _built(config: PreTrainedConfig) -> PreTrainedModel:
    """A model of the config; with eager attention, which leaves nothing out that a config asks for."""
    try:
        made = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=torch.float32, attn_implementation="eager")
    except ValueError:
        made = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=torch.float32)
    return made.eval()


def _read_back(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config as it would be read from its file."""
    return type(config).from_dict(config.to_dict())


def logits(model: PreTrainedModel, length: int = LENGTH) -> torch.Tensor:
    """Logits of two rows of ids, longer than any window of the tiny configs, none of which stands for an image."""
    ids = (torch.arange(2 * LENGTH).reshape(2, LENGTH) * 7 + 3) % 80 + 3
    ids = ids[:, :length]
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits.float()


class Swept(NamedTuple):
    """What came of a family: settings that move logits and are not compared, and compared ones that move none."""

    uncompared: tuple[str, ...]
    unmoved: tuple[str, ...]
    settings: int


def swept(family: str) -> Swept:
    """Every setting of a family, sorted by what its change does."""
    found = list(changes(family))
    uncompared = tuple(sorted(change.setting for change in found if change.moves and not change.compared))
    unmoved = tuple(sorted(change.setting for change in found if change.compared and not change.moves))
    return Swept(uncompared, unmoved, len(found))


def table() -> dict[str, dict[str, list[str] | str]]:
    """The committed table."""
    return json.loads(TABLE.read_text())


def main() -> None:
    """Write what is found of the named families, or of all, into the table."""
    stored = table() if TABLE.is_file() else {"unmoved": {}, "not swept": {}}
    unmoved, left = cast("dict[str, Any]", stored["unmoved"]), cast("dict[str, Any]", stored["not swept"])
    for family in sys.argv[1:] or FAMILIES:
        left.pop(family, None)
        unmoved.pop(family, None)
        try:
            with as_audit_error(family, "leave it out"):
                found = swept(family)
        except AuditError as error:
            left[family] = error.what.removeprefix(f"{family}: ")[:120]
        else:
            unmoved[family] = list(found.unmoved)
            sys.stdout.write(f"{family}: {found}\n")
            sys.stdout.flush()
        TABLE.write_text(json.dumps({k: dict(sorted(v.items())) for k, v in stored.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
