"""Open a classifier of images that is a module of torch: safetensors only, its code only where the case allows it."""

from typing import ClassVar

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from audit import checkpoints
from audit.schema import AuditError, Checkpoint, Modality, as_audit_error
from audit.wrappers import torch_modules
from audit.wrappers.accounting import account
from audit.wrappers.family import Family
from audit.wrappers.image_inputs import made_up_images
from audit.wrappers.loading import dtype_of
from audit.wrappers.placement import Placement


class TorchModule(Family):
    """Modules of torch whose blocks are named by their config.json."""

    modality: ClassVar[Modality] = "image"
    model_types: ClassVar[tuple[str, ...]] = (checkpoints.TORCH_MODULE,)

    def open_model(self, ckpt: Checkpoint, placement: Placement, dtype: str, attention: str) -> PreTrainedModel:
        chosen, folder = dtype_of(dtype), checkpoints.weights_folder(ckpt)
        if not placement.whole:
            raise AuditError(
                f"{ckpt.source}: a module of torch is opened whole", "leave out --device-map, and run it in one process"
            )
        if ckpt.adapter is not None:
            raise AuditError(f"{ckpt.source}: adapters of torch modules are not merged", "merge it and save the model")
        checkpoints.check_permitted(folder, ckpt.code)
        checkpoints.verify(ckpt)
        model = torch_modules.loaded(folder, chosen)
        account(model, folder)
        checkpoints.verify(ckpt)  # what was read is what was hashed: nothing was written in between
        model.to(device=placement.device).eval().requires_grad_(False)  # pyright: ignore[reportCallIssue]
        do = "run it on an image by itself; it may take other channels or another size than config.json says"
        with torch.inference_mode(), as_audit_error(f"{ckpt.source}: the module does not run on an image", do):
            model(made_up_images(model, 1))
        return model

    def fresh(self, config: PreTrainedConfig) -> PreTrainedModel:
        return torch_modules.built(config)
