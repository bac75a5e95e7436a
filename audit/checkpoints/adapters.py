"""Which PEFT adapters can be merged into a model's weights: said from ``adapter_config.json``, before a model is built.

An audit reads weights, so an adapter is merged before anything is measured. Methods that act elsewhere (learned tokens
before the text, states that are switched on by a phrase) leave the weights as base has them: audited by their weights
they would be base. No torch import.
"""

import re
from pathlib import Path

from pydantic import JsonValue

from audit.checkpoints.folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, is_adapter, read_json
from audit.schema import AuditError

# merged == unmerged and saved == reopened were measured for each with peft 0.21.2 on toy models
MERGED_TYPES = frozenset({
    "ADALORA", "ADAMSS", "BEFT", "BOFT", "BONE", "C3A", "DEFT", "DELORA", "FOURIERFT", "FROD", "GLORA", "GRALORA",
    "HIRA", "HRA", "IA3", "LN_TUNING", "LOHA", "LOKR", "LORA", "MISS", "OFT", "PEANUT", "PSOFT", "PVERA",
    "RANDLORA", "ROAD", "SHIRA", "SUPERTUNING", "TINYLORA", "TRAINABLE_TOKENS", "UNILORA", "VBLORA", "VERA", "WAVEFT",
})  # fmt: skip
_PREFIX = "puts learned states before the text and changes no weight"
_ROUTED = "mixes several adapters anew for every input, so that no single set of weights is the model"
_UNMERGEABLE = {
    "PROMPT_TUNING": _PREFIX, "MULTITASK_PROMPT_TUNING": _PREFIX, "P_TUNING": _PREFIX, "PREFIX_TUNING": _PREFIX,
    "CPT": _PREFIX, "CARTRIDGE": _PREFIX,
    "ADAPTION_PROMPT": "adds learned tokens inside attention, beside the weights",
    "XLORA": _ROUTED, "POLY": _ROUTED, "SHADOW": "runs a network of its own beside the model",
    "LILY": "has no merged form in PEFT", "OSF": "takes the weights apart and has no merged form layer by layer",
}  # fmt: skip
_RETRAIN = "audit weights that hold the edit: train it as LoRA or on the weights themselves"
_CONVERT = (
    "save it again with save_pretrained(..., path_initial_model_for_weight_conversion=...), or merge it where it was "
    "trained (merge_and_unload) and audit the merged model"
)
# LoRA entries that are refused: (entry, what it does, what to do)
_LORA_ENTRIES = (
    ("alora_invocation_tokens", "switches the adapter on only after a phrase in the text (activated LoRA), which no "
     "merged weights do; PEFT refuses to merge it", _RETRAIN),
    ("layer_replication", "repeats blocks of base, so that the model has more blocks than base", "audit the merged "
     "model with a base of as many blocks"),
)  # fmt: skip
_OTHER_BASE = re.compile(r"pissa_niter_|corda|loftq|lora_ga")
_TRAINER_STEP = re.compile(r"(last-)?checkpoint([-_]\w+)?")


def adapter_settings(folder: Path) -> dict[str, JsonValue]:
    """The adapter's ``adapter_config.json``, of a kind that can be merged.

    AuditError (code 2): no adapter here, several of them, a method or an entry that cannot be merged or that would be
    opened as another model; code 3: broken JSON.
    """
    beside = _subfolders(folder)
    if not is_adapter(folder):
        raise _none_here(folder, beside)
    if beside:
        raise AuditError(
            f"{folder}: holds an adapter of its own and others in subfolders ({', '.join(beside)}), of which only the "
            "first would be opened",
            f'say which: adapter = "{folder / beside[0]}" for that one; for the one on top, copy its '
            f"{ADAPTER_CONFIG} and {ADAPTER_WEIGHTS} into a folder of their own",
        )
    settings, path = read_json(folder / ADAPTER_CONFIG), folder / ADAPTER_CONFIG
    kind = settings.get("peft_type")
    if not isinstance(kind, str):
        raise AuditError(f"{path}: no peft_type in it", "give the folder that PEFT's save_pretrained wrote")
    if kind in _UNMERGEABLE:
        problem = f"{path}: an adapter of type {kind} {_UNMERGEABLE[kind]}: it cannot be merged into base"
        raise AuditError(problem, _RETRAIN)
    if kind not in MERGED_TYPES:
        do = f"merge it where it was trained and audit the merged model; known are {', '.join(sorted(MERGED_TYPES))}"
        raise AuditError(f"{path}: {kind!r} is no type of adapter that is known here", do)
    if kind == "LORA":
        _check_lora(settings, path)
    return settings


def adapter_weights(folder: Path) -> Path:
    """The file with the adapter's tensors, the one that its fingerprint covers."""
    return folder / ADAPTER_WEIGHTS


def _check_lora(settings: dict[str, JsonValue], path: Path) -> None:
    """Does opening give the model that was trained?"""
    for entry, problem, do in _LORA_ENTRIES:
        if settings.get(entry):
            raise AuditError(f"{path}: {entry} {problem}", do)
    start = settings.get("init_lora_weights")
    if isinstance(start, str) and _OTHER_BASE.match(start.lower()):
        raise AuditError(
            f"{path}: init_lora_weights = {start!r}: the adapter was trained beside a changed base, which cannot be "
            "made again from base and adapter alone: it would open as another model",
            _CONVERT,
        )


def _subfolders(folder: Path) -> list[str]:
    """Further adapters below, in name order; a trainer's steps (``checkpoint-500``, ``last-checkpoint``) are none."""
    names = sorted(path.parent.name for path in folder.glob(f"*/{ADAPTER_CONFIG}"))
    return [name for name in names if not _TRAINER_STEP.fullmatch(name)]


def _none_here(folder: Path, beside: list[str]) -> AuditError:
    """Whole weights beside the adapter, adapters in subfolders, or none at all."""
    if beside:
        do = f'say which: adapter = "{folder / beside[0]}"'
        return AuditError(f"{folder}: its adapters are in subfolders ({', '.join(beside)})", do)
    if (folder / ADAPTER_CONFIG).is_file():
        problem = f"{folder}: holds the weights of a whole model beside {ADAPTER_CONFIG}"
        return AuditError(problem, "give a folder with the adapter's two files alone, or audit the whole model")
    return AuditError(f"{folder}: no adapter ({ADAPTER_CONFIG}) in it", "give the folder that PEFT wrote")
