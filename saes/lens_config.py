"""What a ``cfg.json`` of sae_lens says, and the dictionary that it makes of named tensors.

sae_lens drops every key that its class does not know. Here a key that may change the code is understood or refused: an
activation under its old names, a scale of the inputs, a training form whose decoder norms are not folded yet.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Never

import torch
from torch import Tensor

from audit.schema import AuditError, ExitCode
from saes.sparse_coder import Activation, SparseCoder, rescaled

SCALER = "activation_scaler.json"
IN_MEMORY = Path("the trained autoencoder")
"""Stands for the file of a dictionary that comes from none."""
_FIRST_FORMAT = 6
_ACTIVATIONS: dict[str, Activation] = {
    "standard": "relu", "topk": "topk", "batchtopk": "jumprelu", "jumprelu": "jumprelu"
}  # fmt: skip
_COMMON = frozenset({
    "architecture", "d_in", "d_sae", "dtype", "device", "apply_b_dec_to_input", "normalize_activations",
    "reshape_activations", "metadata", "sae_lens_version", "sae_lens_training_version",
})  # fmt: skip
_TRAINED_BY = frozenset({
    "decoder_init_norm", "use_sparse_activations", "aux_loss_coefficient", "topk_threshold_lr", "l0_coefficient",
    "l0_warm_up_steps", "jumprelu_init_threshold", "jumprelu_bandwidth", "jumprelu_sparsity_loss_mode",
    "pre_act_loss_coefficient", "jumprelu_tanh_scale", "jumprelu_ste_to_input", "target_l0", "l1_coefficient",
    "l1_warm_up_steps", "lp_norm",
})  # fmt: skip
_OF_A_CODE = frozenset({"k", "rescale_acts_by_decoder_norm"})
_OLD_NAMES = ("activation_fn", "activation_fn_str")
_FOREIGN = "open it with the program that wrote it, or convert it to sae_lens's topk, jumprelu or standard format"


class CodeSettings(NamedTuple):
    """What of a configuration makes the code. ``scale``: what inputs are multiplied by before they are encoded."""

    architecture: str
    activation: Activation
    width: int
    features: int
    k: int | None
    centred: bool
    norm_scaled: bool
    scale: float


class _Refusal:
    """Says what is wrong with one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, problem: str, do: str = _FOREIGN) -> Never:
        raise AuditError(f"{self.path}: {problem}", do, ExitCode.INTEGRITY)


def read_settings(path: Path, folder: Path) -> CodeSettings:
    """The settings of a configuration file. AuditError (code 3) for what is damaged or not understood."""
    refuse = _Refusal(path)
    if not path.is_file():
        refuse("is missing", "copy the folder again from where it was whole")
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, UnicodeDecodeError) as error:
        refuse(f"not whole JSON ({error})", "copy the folder again from where it was whole")
    if not isinstance(config, dict):
        refuse("not a configuration of sae_lens: it holds no object")
    return _settings(config, refuse, folder)


def _settings(config: dict[str, Any], refuse: _Refusal, folder: Path) -> CodeSettings:
    old = _is_old(config, refuse)
    architecture = config.get("architecture", "standard" if old else None)
    if not isinstance(architecture, str) or architecture not in _ACTIVATIONS:
        refuse(f"architecture {architecture!r} is none of {', '.join(_ACTIVATIONS)}")
    k = config.get("k")
    stated, arguments = _old_activation(config, refuse), config.get("activation_fn_kwargs") or {}
    if stated == "topk" and architecture == "standard":
        architecture = "topk"
        k = arguments.get("k") if isinstance(arguments, dict) else None
    _check_activation(architecture, stated, config, refuse)
    if not old:
        unknown = config.keys() - _COMMON - _TRAINED_BY - _OF_A_CODE - set(_OLD_NAMES) - {"activation_fn_kwargs"}
        if unknown:
            refuse(f"unknown settings {', '.join(sorted(unknown))}, which may change the code")
    if config.get("finetuning_scaling_factor"):
        refuse("finetuning_scaling_factor is set, and such a scale is not read")
    if config.get("reshape_activations", "none") != "none" or "hook_z" in str(config.get("hook_name", "")):
        refuse("reshape_activations: it reads the heads of an attention layer side by side")
    width, features = _size(config, "d_in", refuse), _size(config, "d_sae", refuse)
    return CodeSettings(
        architecture, _ACTIVATIONS[architecture], width, features, _number(architecture, k, features, refuse),
        _flag(config, "apply_b_dec_to_input", True, refuse),
        _flag(config, "rescale_acts_by_decoder_norm", False, refuse), _scale(config, refuse, folder),
    )  # fmt: skip


def _is_old(config: dict[str, Any], refuse: _Refusal) -> bool:
    """Was it written before sae_lens 6, whose configurations name the activation apart from the architecture?"""
    metadata = config.get("metadata") or {}
    if not isinstance(metadata, dict):
        refuse("metadata is no object")
    stated = config.get("sae_lens_version") or metadata.get("sae_lens_version")
    major = re.match(r"\d+", str(stated))
    return major is None or int(major[0]) < _FIRST_FORMAT


def _old_activation(config: dict[str, Any], refuse: _Refusal) -> str | None:
    """The activation by its old names, ``relu`` and ``topk`` being understood."""
    stated = {str(config[name]) for name in _OLD_NAMES if config.get(name) is not None}
    if len(stated) > 1 or stated - {"relu", "topk"}:
        refuse(f"activation {' and '.join(sorted(stated))}: neither relu nor topk alone")
    return next(iter(stated), None)


def _check_activation(architecture: str, stated: str | None, config: dict[str, Any], refuse: _Refusal) -> None:
    """Do all that name an activation name the same? What a dictionary was trained as is what it is opened as."""
    if stated == "topk" and architecture != "topk":
        refuse(f"architecture {architecture!r} with the activation topk")
    if "k" in config and architecture not in ("topk", "batchtopk"):
        refuse(f"architecture {architecture!r} with k = {config['k']!r}: a TopK code would be opened as a dense one")
    trained = (config.get("metadata") or {}).get("training_architecture")
    saved_as = {"topk": ("topk",), "batchtopk": ("batchtopk", "jumprelu")}
    if trained in saved_as and architecture not in saved_as[trained]:
        refuse(f"trained as {trained} and saved as {architecture!r}")


def _size(config: dict[str, Any], name: str, refuse: _Refusal) -> int:
    size = config.get(name)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        refuse(f"{name} = {size!r} is no size")
    return size


def _flag(config: dict[str, Any], name: str, default: bool, refuse: _Refusal) -> bool:
    flag = config.get(name, default)
    if not isinstance(flag, bool):
        refuse(f"{name} = {flag!r} is neither true nor false")
    return flag


def _number(architecture: str, k: object, features: int, refuse: _Refusal) -> int | None:
    if architecture != "topk":
        return None
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= features:
        refuse(f"a TopK dictionary of {features} features with k = {k!r}")
    return k


def _scale(config: dict[str, Any], refuse: _Refusal, folder: Path) -> float:
    """What inputs are multiplied by: nothing, or the average that a training in progress keeps in a file of its own."""
    norm = config.get("normalize_activations")
    if norm in (None, False, "none"):
        return 1.0
    if norm not in (True, "expected_average_only_in"):
        refuse(f"normalize_activations = {norm!r}, which is not folded into the weights")
    path = folder / SCALER
    try:
        scale = json.loads(path.read_bytes())["scaling_factor"]
    except (OSError, ValueError, KeyError, TypeError):
        refuse(f"inputs are to be scaled ({norm}), and {SCALER} does not say by what")
    if not isinstance(scale, int | float) or not 0 < scale < float("inf"):
        refuse(f"inputs are to be scaled by {scale!r}")
    return float(scale)


# ---- weights ----------------------------------------------------------------------------------------------------
def coder_from(settings: CodeSettings, tensors: Mapping[str, Tensor], path: Path) -> SparseCoder:
    """The dictionary of these tensors. AuditError (code 3) for one that is missing, left over or of another shape."""
    refuse = _Refusal(path)
    held = _with_thresholds(dict(tensors), settings, refuse)
    d, m = settings.width, settings.features
    shapes = {"W_enc": (d, m), "b_enc": (m,), "W_dec": (m, d), "b_dec": (d,)}
    if settings.activation == "jumprelu":
        shapes["threshold"] = (m,)
    for name, shape in shapes.items():
        if name not in held:
            refuse(f"tensor {name!r} is missing")
        if tuple(held[name].shape) != shape:
            refuse(f"tensor {name!r} is {list(held[name].shape)}, the configuration says {list(shape)}")
        if not held[name].is_floating_point():
            refuse(f"tensor {name!r} is {held[name].dtype}, and no floating-point number")
    if held.keys() - shapes.keys():
        refuse(f"tensor {min(held.keys() - shapes.keys())!r} has no place in a {settings.architecture} dictionary")
    ready = {name: tensor.float() for name, tensor in held.items()}
    if settings.norm_scaled:
        ready = _norms_folded(ready)
    threshold = ready.get("threshold")
    coder = SparseCoder(
        ready["W_enc"], ready["b_enc"], ready["W_dec"], ready["b_dec"], settings.activation, settings.k, threshold,
        settings.centred,
    )  # fmt: skip
    return coder if settings.scale == 1 else rescaled(coder, settings.scale)


def _with_thresholds(tensors: dict[str, Tensor], settings: CodeSettings, refuse: _Refusal) -> dict[str, Tensor]:
    """The one threshold of BatchTopK in training, or the logarithms of an old JumpReLU, as one number a feature."""
    if settings.architecture == "batchtopk":
        one_for_all = tensors.pop("topk_threshold", None)
        if one_for_all is None or one_for_all.numel() != 1:
            refuse("tensor 'topk_threshold' is missing, without which a BatchTopK code has no threshold")
        tensors["threshold"] = torch.full((settings.features,), float(one_for_all))
    elif settings.architecture == "jumprelu" and "log_threshold" in tensors:
        tensors["threshold"] = tensors.pop("log_threshold").float().exp()
    return tensors


def _norms_folded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Codes are compared after they are multiplied by their decoder norms: into the encoder with these."""
    norms = tensors["W_dec"].norm(dim=-1).clamp_min(1e-8)
    folded = {
        "W_enc": tensors["W_enc"] * norms, "b_enc": tensors["b_enc"] * norms, "W_dec": tensors["W_dec"] / norms[:, None]
    }  # fmt: skip
    return tensors | folded
