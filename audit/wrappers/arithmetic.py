"""By which implementation of attention and of experts a checkpoint's model computes: what ``default`` stands for.

It depends on the model's class and on the library, never on what a checkpoint's settings wish for.
"""

from typing import Any

import torch

from audit.checkpoints import TORCH_MODULE
from audit.schema import Checkpoint
from audit.wrappers.backends import backend_class, fresh_model


def arithmetic_of(ckpt: Checkpoint, backend: str = "native", attention: str = "default") -> str:
    """The implementations by name, such as ``sdpa``, part by part where the parts of a model differ.

    No weight is read: the model is built without values. AuditError where its config builds none.
    """
    own = getattr(backend_class(backend, ckpt.modality), "attention", "")
    if own or ckpt.family == TORCH_MODULE:
        return own or "the module's own"
    with torch.device("meta"):
        model: Any = fresh_model(ckpt)
    configs = {"": model.config} | {name: getattr(model.config, name, None) for name in model.config.sub_configs}
    parts = {name: part for name, part in configs.items() if part is not None and (name or len(configs) == 1)}
    used = {name: str(_chosen(part, attention)) for name, part in parts.items()}
    names = set(used.values())
    words = names.pop() if len(names) == 1 else ", ".join(f"{attention} ({name})" for name, attention in used.items())
    return f"{words}, experts {model.config._experts_implementation}" if _has_experts(model) else words


def _chosen(config: Any, attention: str) -> object:
    return config._attn_implementation if attention == "default" else attention


def _has_experts(model: Any) -> bool:
    """Does the library choose how this model's experts are computed?"""
    return any(type(m)._can_set_experts_implementation() for m in model.modules() if hasattr(m, "config_class"))
