"""Which backends there are, and how a checkpoint is opened behind one.

A backend is named here and imported when it is first used, because the libraries behind two of them take seconds.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from audit.checkpoints import TORCH_MODULE, check_permitted, library_config, modality_of, weights_folder
from audit.schema import AuditError, Checkpoint, Modality, as_audit_error
from audit.wrappers.family import family_of
from audit.wrappers.placement import Placement, away, device_map_of
from audit.wrappers.vision_kinds import NO_BRIDGE

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from audit.wrappers.interface import Wrapper

BACKENDS = {
    "native": ("native", "NativeWrapper"),
    "transformer_lens": ("lens_bridge", "LensBridgeWrapper"),
    "nnsight": ("nnsight_trace", "NNsightWrapper"),
}
"""Backend name -> module of this package, and the Wrapper class in it: ``Class(model, attention=...)``."""
OF_IMAGES = {
    "native": ("native_image", "NativeImageWrapper"),
    "nnsight": ("nnsight_image", "NNsightImageWrapper"),
}
"""The same for models that read images alone."""
OF_BOTH = {
    "native": ("native_vlm", "VisionLanguageWrapper"),
    "nnsight": ("nnsight_vlm", "NNsightVisionLanguageWrapper"),
}
"""The same for models that read images and text."""
_OF: Mapping[Modality, tuple[Mapping[str, tuple[str, str]], str]] = {
    "text": (BACKENDS, "text"), "image": (OF_IMAGES, "images"), "image+text": (OF_BOTH, "images and text"),
}  # fmt: skip


def _unchanged(model: "PreTrainedModel") -> None:
    """Opening a checkpoint without edits changes nothing."""


def backend_class(backend: str, modality: Modality = "text") -> "type[Wrapper]":
    """The wrapper class of a backend for models of a modality. AuditError for a name that is no backend, naming those
    that are, and for a backend that cannot open such models."""
    if backend not in BACKENDS:
        raise AuditError(f"there is no backend {backend!r}", f"choose one of: {', '.join(BACKENDS)}")
    if modality == "image+text" and backend == "transformer_lens":
        raise AuditError(NO_BRIDGE, "use the native backend")
    opened, reads = _OF[modality]
    if backend not in opened:
        raise AuditError(f"the {backend} backend opens no model of {reads}", f"choose one of: {', '.join(opened)}")
    module, name = opened[backend]
    return getattr(importlib.import_module(f"audit.wrappers.{module}"), name)


def wrap(model: "PreTrainedModel", backend: str = "native", attention: str = "default") -> "Wrapper":
    """Put an open model behind a backend. Raises AuditError for a name that is no backend, naming those that are, and
    for a model that no installed family opens."""
    backend_class(backend)
    config = model.config.to_dict() | {"architectures": [type(model).__name__]}
    modality = modality_of(config)
    family_of(modality, model.config.model_type)
    opened = backend_class(backend, modality)
    if modality != "text":
        return opened.behind(model, attention)
    kind = f"{type(model).__name__} ({model.config.model_type})"
    with as_audit_error(f"{kind}: no place for hooks was found in it", "use another backend, or report this message"):
        return opened.behind(model, attention)


def open_wrapper(
    ckpt: Checkpoint, backend: str = "native", device: str | Placement = "cpu", dtype: str = "float32",
    attention: str = "default", prepare: "Callable[[PreTrainedModel], None]" = _unchanged,
) -> "Wrapper":  # fmt: skip
    """Open a checkpoint behind a backend, whole on a device or placed otherwise.

    ``prepare`` sees the model before the backend does: there edits of weights are played, because a backend may copy or
    split the parameters. AuditError for an unknown backend, for a model that no installed family opens, and for
    whatever its family refuses.
    """
    backend_class(backend, ckpt.modality)  # a wrong name is said before anything is loaded
    from audit.wrappers.vocabulary_rows import cut_vocabulary

    placement = device if isinstance(device, Placement) else Placement(device)
    if not placement.whole and backend != "native":
        raise AuditError(f"the {backend} backend opens models whole, on one device", "use the native backend")
    model = family_of(ckpt.modality, ckpt.family).open_model(ckpt, placement, dtype, attention)
    if ckpt.vocabulary is not None:
        cut_vocabulary(model, ckpt.vocabulary, ckpt.source)
    prepare(model)
    return wrap(model, backend, attention)


def fresh_model(ckpt: Checkpoint) -> "PreTrainedModel":
    """A model of the checkpoint's architecture as it is initialised, from torch's generator and on its default device.

    AuditError for a model that no installed family opens, and for a config that transformers cannot read or build.
    """
    from audit.wrappers.vocabulary_rows import cut_vocabulary

    family, folder = family_of(ckpt.modality, ckpt.family), weights_folder(ckpt)
    config = library_config(folder)
    if config.model_type == TORCH_MODULE:
        check_permitted(folder, ckpt.code)
    with as_audit_error(f"no model can be built by {folder / 'config.json'}", "check the config"):
        model = family.fresh(config)
    if ckpt.vocabulary is not None:
        cut_vocabulary(model, ckpt.vocabulary, ckpt.source)
    return model


def settled_placement(placement: Placement, ckpt: Checkpoint, dtype: str) -> Placement:
    """The placement with what of this checkpoint's model it leaves away from the devices that compute; no weight is
    read. AuditError (code 2) where its device map is none."""
    import torch

    from audit.wrappers.loading import dtype_of

    if placement.device_map is None:
        return placement
    with torch.device("meta"):
        skeleton = fresh_model(ckpt)
    return placement._replace(away=away(device_map_of(placement, skeleton, dtype_of(dtype))))
