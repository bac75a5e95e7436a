"""A PEFT adapter merged into an open model, and held to account: what is in its file is in the weights, all of it.

PEFT alone decides which tensors of the file it takes, and says nothing of those it leaves out. So the file is read
here, every tensor is given its place by name (:mod:`audit.wrappers.adapter_names`), read back after loading, and each
layer is merged by itself and held against base: LoRA by its closed form, scale * B @ A by the names in the file; all
kinds by one forward pass before and after.
"""

import logging
import re
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor
from transformers import PreTrainedModel

from audit import checkpoints
from audit.schema import AuditError, ExitCode, as_audit_error
from audit.storage import read_tensors
from audit.wrappers.adapter_experts import expert_pairs, merge_pairs
from audit.wrappers.adapter_merge import DO_MERGE, NAME, merge_layers
from audit.wrappers.adapter_names import Places, misfit, placed

log = logging.getLogger(__name__)
_ROOT = "base_model.model."
_STAMP = re.compile(
    r"^(_?name_or_path|_commit_hash|library_name|tags|license|description)$"
    r"|^(unsloth|axolotl|transformers|torch|trl|accelerate)_"
)
_TABLES = ("rank_pattern", "alpha_pattern")  # of which PEFT takes an empty one for none, and breaks on null
_ROWS, _TOKENS, _STRIDE = 2, 8, 7


@torch.no_grad()
def merged(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model with the adapter in ``folder`` merged into its weights. ``model`` is taken apart on the way.

    AuditError 2: the adapter cannot be merged into this model, or changes nothing; 3: a tensor of the file has no
    place, a place gets no tensor, shapes differ, or the merged model is not the one with the adapter beside it.
    """
    settings, path = checkpoints.adapter_settings(folder), checkpoints.adapter_weights(folder)
    if getattr(model, "is_quantized", False):
        problem = f"{folder}: its base is quantised, and merging rounds the adapter away with the weights"
        raise AuditError(problem, "give base unquantised, or merge the adapter into it and audit the merged model")
    with _silent():
        tensors = read_tensors(path)
        if pairs := expert_pairs(model, tensors, settings, path):
            bites = merge_pairs(model, pairs, _config(settings, path), path)
            return _checked(model, bites, path)
        own = model.state_dict()
        peft = _attached(model, settings, path)
        by_place = _named(peft, tensors, path)
        bites = _overwrites(by_place, own)
        del own
        _fill(peft, by_place, path)
        beside = _logits(peft)
        bites |= merge_layers(peft, by_place, settings, path)
        with as_audit_error(f"{path}: cannot be merged", DO_MERGE):
            inside: PreTrainedModel = peft.merge_and_unload()
    _check_same(beside, _logits(inside), inside.dtype, path)
    return _checked(inside, bites, path)


def _checked(inside: PreTrainedModel, bites: bool, path: Path) -> PreTrainedModel:
    """The merged model. AuditError (code 2) where nothing changed; 3 where it says no numbers."""
    if not bites:
        raise AuditError(
            f"{path}: the adapter changes no byte of base as {str(inside.dtype).removeprefix('torch.')}",
            "give the adapter that training saved (one that was never trained holds zeros)"
            + ("" if inside.dtype == torch.float32 else ", or open both as float32"),
        )
    if not bool(_logits(inside).isfinite().all()):
        raise AuditError(f"{path}: merged, the model's logits are NaN or infinite", DO_MERGE, ExitCode.INTEGRITY)
    return inside.eval()


@contextmanager
def _silent() -> Generator[None]:
    """What PEFT warns of is checked here; the rest are notes to its developers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _attached(model: PreTrainedModel, settings: Mapping[str, JsonValue], path: Path) -> Any:
    """The model with places for the adapter, still as they are initialised. Its entries must all be understood."""
    config = _config(settings, path)
    with as_audit_error(f"{path}: the adapter does not fit base", "give the base that it was trained on as `path`"):
        from peft import PeftModel

        return PeftModel(model, config, NAME).eval()


def _config(settings: Mapping[str, JsonValue], path: Path) -> Any:
    """PEFT's form of the settings. AuditError (code 2) where PEFT is not installed, or does not know all of them."""
    try:
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    except ImportError:
        raise AuditError(
            f"{path}: an adapter needs PEFT, which is not installed", "pip install residua[peft]"
        ) from None
    kind = str(settings["peft_type"])
    if kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise AuditError(f"{path}: the installed PEFT has no adapters of type {kind}", "install a newer peft")
    dropped = {"runtime_config", *(name for name in _TABLES if settings.get(name) is None)}
    entries: dict[str, Any] = {k: v for k, v in settings.items() if k not in dropped} | {"inference_mode": True}
    config_class: Any = PEFT_TYPE_TO_CONFIG_MAPPING[kind]  # pyright: ignore[reportArgumentType]
    if unknown := _unknown_entries(config_class, entries):
        raise AuditError(
            f"{path.parent}: its adapter_config.json has entries that the installed PEFT does not know and would "
            f"leave out: {', '.join(unknown)}",
            "install the newer peft that it was saved with",
        )
    with as_audit_error(f"{path}: the adapter does not fit base", "give the base that it was trained on as `path`"):
        return config_class.from_peft_type(**entries)


def _unknown_entries(config_class: Any, entries: Mapping[str, Any]) -> list[str]:
    """Entries with a meaning (not null, false or empty, no stamp of a tool) that PEFT would drop."""
    known = getattr(config_class, "__dataclass_fields__", {}).keys() | {"peft_version", "auto_mapping"}
    return sorted(name for name, value in entries.items() if value and name not in known and not _STAMP.search(name))


def _named(peft: Any, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The file's tensors under the names of their places, each of the right shape."""
    places = _places(peft)
    names = placed(tensors.keys(), places)
    if names is None:
        raise AuditError(
            f"{path}: {misfit(tensors.keys(), places)}",
            "give the adapter as PEFT's save_pretrained writes it, beside the base that it was trained on",
            ExitCode.INTEGRITY,
        )
    if moved := sorted(old for old, new in names.items() if old != new):
        log.warning(
            "%s: %d of %d keys were renamed as a whole, and all find their place (%s -> %s)",
            path, len(moved), len(names), moved[0], names[moved[0]],
        )  # fmt: skip
    by_place = {new: tensors[old] for old, new in names.items()}
    if peft.peft_config[NAME].peft_type != "ADALORA":  # whose ranks are resized while it is loaded
        _check_shapes(peft, by_place, path)
    return by_place


def _places(peft: Any) -> Places:
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    wanted = frozenset(_own_state(peft))
    kind = peft.peft_config[NAME].peft_type
    prefix: str = PEFT_TYPE_TO_PREFIX_MAPPING.get(kind, "")
    allowed = frozenset(name for name in peft.state_dict() if f".{NAME}" not in name) - wanted
    return Places(wanted, allowed, prefix, peft.get_base_model().base_model_prefix)


def _own_state(peft: Any) -> dict[str, Tensor]:
    """What PEFT would save of the adapter, under the names of its file."""
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(peft, adapter_name=NAME, save_embedding_layers=False)


def _check_shapes(peft: Any, by_place: Mapping[str, Tensor], path: Path) -> None:
    places = peft.state_dict() | _own_state(peft)
    for name, tensor in sorted(by_place.items()):
        theirs, ours = list(tensor.shape), list(places[name].shape)
        if theirs == ours:
            continue
        problem, do = f"{path}: {name} is {theirs}, its place in base {ours}", "give the base that it was trained on"
        differ = [size for size, wanted in zip(theirs, ours, strict=False) if size != wanted]
        if len(differ) == 1 and _is_vocabulary(peft, name):
            problem += ": the vocabulary was resized in training"
            do = (
                f"resize base and references alike (resize_token_embeddings({differ[0]})), save them with the "
                "adapter's tokenizer, and give those"
            )
        raise AuditError(problem, do, ExitCode.INTEGRITY)


def _is_vocabulary(peft: Any, name: str) -> bool:
    """Has the tensor a row for each token?"""
    model = peft.get_base_model()
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    paths = [path for path, module in model.named_modules() if any(module is end for end in ends)]
    return any(name.removeprefix(_ROOT).startswith(f"{path}.") for path in paths)


def _overwrites(by_place: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    """Does a tensor of base that the file brings whole differ from base's?"""
    for name, tensor in by_place.items():
        before = own.get(name.removeprefix(_ROOT).replace(".base_layer.", "."))
        if before is not None and not torch.equal(before, tensor.to(before)):
            return True
    return False


def _fill(peft: Any, by_place: dict[str, Tensor], path: Path) -> None:
    """Load the tensors, and read all of them back."""
    from peft import set_peft_model_state_dict

    with as_audit_error(f"{path}: cannot be loaded", DO_MERGE, ExitCode.INTEGRITY):
        result: Any = set_peft_model_state_dict(peft, by_place, adapter_name=NAME)
    state = peft.state_dict() | _own_state(peft)
    lost = sorted(result.unexpected_keys)
    lost += sorted(n for n, t in by_place.items() if n not in state or not torch.equal(t.to(state[n]), state[n]))
    if lost:
        problem = f"{path}: {len(lost)} tensors do not arrive in the model (first: {lost[0]})"
        raise AuditError(problem, DO_MERGE, ExitCode.INTEGRITY)


def _logits(model: Any) -> Tensor:
    """Of two short rows, [row, token, vocabulary]."""
    span = max(int(model.get_input_embeddings().weight.shape[0]) - 1, 1)
    ids = (torch.arange(_ROWS * _TOKENS).view(_ROWS, -1) * _STRIDE + 1).remainder(span).to(model.device)
    return model(input_ids=ids, use_cache=False).logits.float()


def _check_same(beside: Tensor, inside: Tensor, dtype: torch.dtype, path: Path) -> None:
    """The adapter beside the weights and in them: one model, to the rounding of the dtype. AuditError (3) if not."""
    scale = torch.maximum(beside.abs().max(), inside.abs().max()).clamp_min(1e-12)
    gap = float((beside - inside).abs().max() / scale)
    if not gap <= (1e-4 if torch.finfo(dtype).bits >= 32 else 5e-2):
        problem = (
            f"{path}: merged, the model's logits are {gap:.1e} of their size from those with the adapter beside it"
        )
        raise AuditError(problem, DO_MERGE, ExitCode.INTEGRITY)
