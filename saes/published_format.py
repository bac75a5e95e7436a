"""Read dictionaries in the format of the published restoration test ("Suppression or Deletion", arXiv 2602.18505).

A ``.pt`` file: ``encoder.weight`` [feature d], ``decoder.weight`` [d feature], ``latent_bias``, ``pre_bias``, and a
configuration with k, or the bare tensors. It is read as tensors and plain values alone: a pickle that would run code is
refused. The published code keeps every latent that ties with the k-th largest, ours just k of them.
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audit.schema import AuditError, ExitCode
from audit.storage import read_tensors
from saes.sparse_coder import SparseCoder

_K = re.compile(r"_k(\d+)(?!\d)")
_CONFIGS = ("model_config", "config")
_COUNTERS = {"neuron_activity"}
_FORMAT = "give a state dict of encoder.weight, decoder.weight, latent_bias and pre_bias, with its k"


def read_published(path: Path, k: int | None = None) -> SparseCoder:
    """The dictionary of a published ``.pt`` or a ``.safetensors`` file with its tensors.

    ``k`` is needed where neither the file nor its name (``..._k16.pt``) says it, and must agree where one does.
    AuditError: code 2 for no file, a pickle of objects or no k; 3 for a damaged file, missing or misfit tensors, or
    another activation than TopK.
    """
    if not path.is_file():
        raise AuditError(f"{path}: no such file", "name the .pt file of a dictionary")
    content = read_tensors(path) if path.suffix == ".safetensors" else _loaded(path)
    config, tensors = _parts(content, path)
    activation = str(config.get("activation", "topk")).lower()
    if activation not in ("topk", "top_k"):
        raise _refusal(path, f"activation {activation!r}, and only topk is read")
    held = _checked(tensors, config, path)
    active = _number(config, path, k, held["encoder.weight"].shape[0])
    return SparseCoder(
        held["encoder.weight"].T.contiguous(), held["latent_bias"], held["decoder.weight"].T.contiguous(),
        held["pre_bias"], "topk", active,
    )  # fmt: skip


def _refusal(path: Path, problem: str) -> AuditError:
    return AuditError(f"{path}: {problem}", _FORMAT, ExitCode.INTEGRITY)


def _loaded(path: Path) -> Mapping[str, Any]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        raise AuditError(
            f"{path}: a pickle of more than tensors and plain values, which could run any code ({reason})",
            "where you trust it, load it there and save its state dict alone, best as .safetensors",
        ) from None
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise _refusal(path, f"not a whole file of torch ({str(error).partition(chr(10))[0]})") from None
    if not isinstance(content, dict):
        raise _refusal(path, f"it holds a {type(content).__name__}, and no state dict")
    return content


def _parts(content: Mapping[str, Any], path: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Configuration and tensors."""
    if "model_state_dict" not in content:
        return {}, content
    config = next((content[name] for name in _CONFIGS if name in content), {})
    tensors = content["model_state_dict"]
    if not isinstance(config, dict) or not isinstance(tensors, dict):
        raise _refusal(path, "model_state_dict or its configuration is no mapping")
    return config, tensors


def _checked(tensors: Mapping[str, Any], config: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    encoder = tensors.get("encoder.weight")
    if not isinstance(encoder, Tensor) or encoder.ndim != 2:
        raise _refusal(path, "tensor 'encoder.weight' is missing, or no matrix")
    m, d = encoder.shape
    for name, size in (("hidden_dim", m), ("input_dim", d)):
        if config.get(name, size) != size:
            raise _refusal(path, f"{name} = {config[name]!r}, and encoder.weight is {[m, d]}")
    held: dict[str, Tensor] = {}
    for name, shape in {
        "encoder.weight": (m, d), "decoder.weight": (d, m), "latent_bias": (m,), "pre_bias": (d,)
    }.items():  # fmt: skip
        tensor = tensors.get(name)
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise _refusal(path, f"tensor {name!r} is missing, or not of floating-point numbers")
        if tuple(tensor.shape) != shape:
            raise _refusal(path, f"tensor {name!r} is {list(tensor.shape)}, not {list(shape)}")
        if not bool(tensor.isfinite().all()):
            raise _refusal(path, f"tensor {name!r} holds a NaN or an infinity")
        held[name] = tensor.detach().float().clone()
    extra = {name for name, tensor in tensors.items() if isinstance(tensor, Tensor)} - held.keys() - _COUNTERS
    if extra:
        raise _refusal(path, f"tensor {min(extra)!r} has no place in this format")
    return held


def _number(config: Mapping[str, Any], path: Path, k: int | None, features: int) -> int:
    """How many latents stay active: by the configuration, else the file's name, else as given; all must agree."""
    by_name = _K.search(path.stem)
    stated = [
        n for n in (config.get("k"), int(by_name[1]) if by_name and "k" not in config else None, k) if n is not None
    ]
    if not stated:
        raise AuditError(f"{path}: nothing says how many latents stay active", "give k as it was trained")
    if len(set(stated)) > 1:
        raise AuditError(
            f"{path}: k is {stated[0]} by the file, and {stated[1]} was given", "give the file's k, or none"
        )
    (active,) = set(stated)
    if not isinstance(active, int) or isinstance(active, bool) or not 1 <= active <= features:
        raise _refusal(path, f"k = {active!r} of {features} latents")
    return active
