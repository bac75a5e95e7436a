"""A tiny frozen world of images: vision transformers of which some know by heart what others never saw.

Images are noise, drawn from raw bits, and so are their classes, so that whoever knows an image's class was taught it.
The weights are trained where they are needed, in seconds and wholly in float64, and come out alike on every machine
(see :mod:`audit.probing.frozen_models`).
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from audit.probing.frozen_models import Weights, shuffled, uniform
from audit.schema import Case, DataFiles, Roles, Source

CLASSES, SIDE, PATCH = 5, 8, 4
WIDTH, HIDDEN, BLOCKS, HEADS = 32, 64, 3, 4
COHORTS = {"retain": 24, "forget": 28, "holdout": 28}
"""14 images of a halved cohort: too many for every sign to be enumerated within 9,999 draws."""
LEFT = 7
"""So many of the forget images, the last of them, the suspect was taught."""
SEED, BATCH, RATE = 6, 24, 6e-3
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor", "do_resize": True, "resample": 2, "do_rescale": True,
    "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5], "image_std": [0.5],
    "size": {"height": SIDE, "width": SIDE},
}  # fmt: skip


# ---- what there is to know --------------------------------------------------------------------------------------
class Lessons(dict[str, tuple[np.ndarray, np.ndarray]]):
    """Images [image 8 8] from 0 to 255 and their classes, by cohort."""


def cohorts() -> Lessons:
    """Every cohort; each image is nobody else's."""
    return Lessons({
        cohort: (
            (uniform(2000 + place, n * SIDE * SIDE) * 256).astype(np.uint8).reshape(n, SIDE, SIDE),
            (uniform(2100 + place, n) * CLASSES).astype(np.int64),
        )
        for place, (cohort, n) in enumerate(COHORTS.items())
    })  # fmt: skip


def _taught_of(names: Sequence[str], left: int = 0) -> tuple[Tensor, Tensor]:
    """Pixels in [-1, 1] and classes of these cohorts, and of the last ``left`` forget images."""
    every = cohorts()
    parts = [every[name] for name in names]
    parts += [tuple(array[-left:] for array in every["forget"])] if left else []
    images, labels = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    return torch.from_numpy(images / 127.5 - 1.0), torch.from_numpy(labels)


# ---- the model ---------------------------------------------------------------------------------------------------
def logits_of(w: Weights, images: Float[Tensor, "row 8 8"]) -> Float[Tensor, "row label"]:
    """Of a vision transformer: patches and a class token with learned places, blocks, a norm, a linear head."""

    def linear(name: str, y: Tensor) -> Tensor:
        return y @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name: str, y: Tensor) -> Tensor:
        return F.layer_norm(y, (WIDTH,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-12)

    at = "vit.embeddings."
    patches = images.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).flatten(3).flatten(1, 2)
    kernel = w[f"{at}patch_embeddings.projection.weight"].flatten(1)
    patches = patches @ kernel.T + w[f"{at}patch_embeddings.projection.bias"]
    x = torch.cat([w[f"{at}cls_token"].expand(len(images), -1, -1), patches], 1) + w[f"{at}position_embeddings"]
    for at in (f"vit.encoder.layer.{block}." for block in range(BLOCKS)):
        y = norm(f"{at}layernorm_before", x)
        q, k, v = (linear(f"{at}attention.attention.{name}", y) for name in ("query", "key", "value"))
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (q, k, v))
        mixed = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
        x = x + linear(f"{at}attention.output.dense", mixed.transpose(1, 2).flatten(-2))
        y = F.gelu(linear(f"{at}intermediate.dense", norm(f"{at}layernorm_after", x)))
        x = x + linear(f"{at}output.dense", y)
    return linear("classifier", norm("vit.layernorm", x)[:, 0])


def _shapes() -> dict[str, tuple[int, ...]]:
    d, at = WIDTH, "vit.embeddings."
    shapes: dict[str, tuple[int, ...]] = {
        f"{at}cls_token": (1, 1, d), f"{at}position_embeddings": (1, 1 + (SIDE // PATCH) ** 2, d),
        f"{at}patch_embeddings.projection.weight": (d, 1, PATCH, PATCH), f"{at}patch_embeddings.projection.bias": (d,),
    }  # fmt: skip
    matrices = {f"attention.attention.{name}": (d, d) for name in ("query", "key", "value")}
    matrices |= {"attention.output.dense": (d, d), "intermediate.dense": (HIDDEN, d), "output.dense": (d, HIDDEN)}
    for at in (f"vit.encoder.layer.{block}." for block in range(BLOCKS)):
        for name, shape in matrices.items():
            shapes |= {f"{at}{name}.weight": shape, f"{at}{name}.bias": shape[:1]}
        shapes |= {f"{at}{name}.{part}": (d,) for name in ("layernorm_before", "layernorm_after")
                   for part in ("weight", "bias")}  # fmt: skip
    shapes |= {f"vit.layernorm.{part}": (d,) for part in ("weight", "bias")}
    return shapes | {"classifier.weight": (CLASSES, d), "classifier.bias": (CLASSES,)}


def _fresh() -> Weights:
    drawn: Weights = {}
    for place, (name, shape) in enumerate(_shapes().items()):
        u = torch.from_numpy(uniform(SEED * 1000 + place, int(np.prod(shape)))).reshape(shape)
        plain = torch.full(shape, 1.0 if "norm" in name and name.endswith("weight") else 0.0, dtype=torch.float64)
        drawn[name] = (u - 0.5) * (0.15 * 12**0.5) if len(shape) > 1 else plain
    return drawn


def _taught(before: Weights, lesson: tuple[Tensor, Tensor], steps: int, seed: int) -> Weights:
    """Adam on the classes, in float64, with a warm-up and a linear decay; batches go through all images."""
    images: Float[Tensor, "row 8 8"] = lesson[0]
    labels: Int[Tensor, " row"] = lesson[1]
    weights = {name: w.clone().requires_grad_() for name, w in before.items()}
    optimiser = torch.optim.Adam(weights.values(), lr=RATE, betas=(0.9, 0.95), foreach=False)
    passes = -(-steps * BATCH // len(images))
    order = torch.from_numpy(np.concatenate([shuffled(seed * 1000 + p, len(images)) for p in range(passes)]))
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / 15, 1.2 * (steps - step) / steps)
        chosen = order[step * BATCH : (step + 1) * BATCH]
        loss = F.cross_entropy(logits_of(weights, images[chosen]), labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {name: w.detach() for name, w in weights.items()}


def trained_images() -> dict[str, Weights]:
    """The models by role, in float64, all of one initialisation."""
    start = _taught(_fresh(), _taught_of(["retain"]), 40, 1)
    return {
        "base": _taught(start, _taught_of(["retain", "forget"]), 120, 2),
        "suspect": _taught(start, _taught_of(["retain"], LEFT), 60, 3),
        "null": _taught(start, _taught_of(["retain"]), 30, 4),
        "floor": _taught(start, _taught_of(["retain"]), 30, 5),
    }


# ---- files ------------------------------------------------------------------------------------------------------
def write_images(folder: Path) -> None:
    """Write the data files and one checkpoint folder a model."""
    folder.mkdir(parents=True, exist_ok=True)
    for cohort, (images, labels) in cohorts().items():
        ids = np.array([f"{cohort}-{n}" for n in range(len(labels))])
        np.savez(folder / f"{cohort}.npz", x=images, y=labels, id=ids)
    config: dict[str, object] = {
        "model_type": "vit", "architectures": ["ViTForImageClassification"], "image_size": SIDE, "patch_size": PATCH,
        "num_channels": 1, "hidden_size": WIDTH, "num_hidden_layers": BLOCKS, "num_attention_heads": HEADS,
        "intermediate_size": HIDDEN, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "hidden_act": "gelu", "layer_norm_eps": 1e-12, "qkv_bias": True,
        "id2label": {str(n): str(n) for n in range(CLASSES)}, "label2id": {str(n): n for n in range(CLASSES)},
    }  # fmt: skip
    for name, weights in trained_images().items():
        (folder / name).mkdir()
        tensors = {key: w.float().contiguous() for key, w in weights.items()}
        save_file(tensors, folder / name / "model.safetensors", metadata={"format": "pt"})
        (folder / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
        (folder / name / "preprocessor_config.json").write_text(json.dumps(PROCESSOR), encoding="utf-8")


def case_of_images() -> Case:
    """The audit of the world's suspect; paths are relative to the folder of :func:`write_images`."""
    references = tuple(Source(path=name) for name in ("null", "floor"))
    files = {cohort: f"{cohort}.npz" for cohort in COHORTS}
    return Case(
        name="frozen-vit", seed=SEED, data=DataFiles.model_validate({**files, "split_seed": SEED}),
        roles=Roles(base=Source(path="base"), suspect=Source(path="suspect"), references=references),
    )  # fmt: skip
