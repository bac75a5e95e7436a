"""Which backends there are, and how a checkpoint is opened behind one.

A backend is named here and imported when it is first used, because the libraries behind two of them take seconds.
"""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from audit.schema import AuditError, Checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from audit.wrappers.interface import Wrapper

BACKENDS = {
    "native": ("native", "NativeWrapper"),
    "transformer_lens": ("lens_bridge", "LensBridgeWrapper"),
    "nnsight": ("nnsight_trace", "NNsightWrapper"),
}
"""Backend name -> module of this package, and the Wrapper class in it: ``Class(model, attention=...)``."""


def _unchanged(model: "PreTrainedModel") -> None:
    """Opening a checkpoint without edits changes nothing."""


def wrap(model: "PreTrainedModel", backend: str = "native", attention: str = "default") -> "Wrapper":
    """Put an open model behind a backend. Raises AuditError for a name that is no backend, naming those that are."""
    if backend not in BACKENDS:
        raise AuditError(f"there is no backend {backend!r}", f"choose one of: {', '.join(BACKENDS)}")
    module, name = BACKENDS[backend]
    return getattr(importlib.import_module(f"audit.wrappers.{module}"), name)(model, attention=attention)


def open_wrapper(
    ckpt: Checkpoint, backend: str = "native", device: str = "cpu", dtype: str = "float32",
    attention: str = "default", prepare: "Callable[[PreTrainedModel], None]" = _unchanged,
) -> "Wrapper":  # fmt: skip
    """Open a checkpoint behind a backend.

    ``prepare`` sees the model before the backend does: there edits of weights are played, because a backend may copy or
    split the parameters. AuditError for an unknown backend, and for whatever :mod:`audit.wrappers.families.causal_lm`
    refuses.
    """
    if backend not in BACKENDS:
        raise AuditError(f"there is no backend {backend!r}", f"choose one of: {', '.join(BACKENDS)}")
    from audit.wrappers.families.causal_lm import open_model

    model = open_model(ckpt, device, dtype, attention)
    prepare(model)
    return wrap(model, backend, attention)
