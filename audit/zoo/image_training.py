"""How one model of a world of images is made: its images, its recipe, its folder."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from audit.bench import Bench, training_batches
from audit.case import Rows, labelled_images
from audit.checkpoints import resolve
from audit.edits import EditData
from audit.schema import Checkpoint, Source
from audit.zoo.image_members import OTHER, target_of
from audit.zoo.image_recipes import ImageLearning, ImagePlan, ImageSizes, ImageZoo
from audit.zoo.image_world import CLASSES, ImageWorld, Labelled, digits, joined, make_image_world
from audit.zoo.training import one_thread

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SIDE, PATCH, WARMUP = 8, 2, 30
SPREAD = 0.1
"""Standard deviation of a transformer's initial weights: at .02 it takes twice as long to learn."""


def make_images(zoo: ImageZoo, seed: int, plan: ImagePlan, parent: Path | None, out: Path) -> None:
    """Make the model of ``plan`` from its parent's folder (none: a fresh one) and write its folder at ``out``."""
    world = make_image_world(seed, zoo.shape)
    with one_thread():
        if isinstance(plan.by, ImageLearning):
            model = fresh_classifier(zoo.sizes, plan.initialisation + 1000 * seed)
            learn(model, world.learned(plan.by.left_out), plan.by)
            model.save_pretrained(out)
            processor().save_pretrained(out)
            return
        assert parent is not None
        known = resolve(Source(path=str(parent)), parent)
        plan.by.fit(Bench(), known, image_edit_data(world, plan, known), out)


def processor() -> Any:
    """Grey images of 8 x 8, in [-1, 1]."""
    from transformers import ViTImageProcessorPil

    return ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_mean=[0.5], image_std=[0.5])


def fresh_classifier(sizes: ImageSizes, seed: int) -> "PreTrainedModel":
    """A small vision transformer, or a residual network of two stages, initialised from ``seed``."""
    from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

    shared: dict[str, Any] = {"num_channels": 1, "num_labels": CLASSES}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if sizes.architecture == "resnet":
            stages: dict[str, Any] = {
                "embedding_size": 16,
                "hidden_sizes": [16, sizes.d],
                "depths": [1, sizes.blocks - 1],
            }
            return ResNetForImageClassification(ResNetConfig(layer_type="basic", **stages, **shared))
        config = ViTConfig(
            image_size=SIDE, patch_size=PATCH, hidden_size=sizes.d, num_hidden_layers=sizes.blocks,
            num_attention_heads=4, intermediate_size=sizes.hidden, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0, initializer_range=SPREAD, **shared,
        )  # fmt: skip
        return ViTForImageClassification(config)


@lru_cache(maxsize=1)
def _pixels() -> Tensor:
    images = list(digits().images[..., None])
    return processor()(images=images, return_tensors="pt", input_data_format="channels_last")["pixel_values"]


def learn(model: "PreTrainedModel", images: Labelled, by: ImageLearning) -> None:
    """Train in place by cross-entropy, with a warm-up and a linear decay; norms of batches learn their statistics."""
    x, y = _pixels()[torch.from_numpy(images.number)], torch.from_numpy(images.label)
    optimiser = torch.optim.AdamW(model.parameters(), by.lr, (0.9, 0.95), weight_decay=0.0, fused=True)
    draw = training_batches(len(y), by.batch, by.order)
    model.train()
    for step in range(by.steps):
        chosen = next(draw)
        for group in optimiser.param_groups:
            group["lr"] = by.lr * min((step + 1) / WARMUP, 1.5 * (by.steps - step) / by.steps, 1.0)
        loss = cross_entropy(model(pixel_values=x[chosen]).logits, y[chosen])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    model.eval()


def image_edit_data(world: ImageWorld, plan: ImagePlan, parent: Checkpoint) -> EditData:
    """What an unlearner sees: all images of its target as they were taught, all that its model was taught beside them,
    and the former under every other label that its model knows. One that forgets another class never sees the target
    that is audited, nor its label."""
    audited = target_of(plan.name)
    known = world.remaining(audited)
    if plan.on == OTHER:
        forget, retain = known.called(world.other), known.without(world.other)
    else:
        forget, retain = world.unwanted(plan.on), known
    labels = np.unique(joined([forget, retain]).label)
    number, other = np.repeat(forget.number, len(labels)), np.tile(labels, len(forget.number))
    wrong = other != np.repeat(forget.label, len(labels))
    relabelled = Labelled(number[wrong], other[wrong])
    return EditData(_rows(parent, forget), _rows(parent, retain), relabelled=_rows(parent, relabelled))


def _rows(parent: Checkpoint, images: Labelled) -> Rows:
    names = [f"image-{number}" for number in images.number]
    return labelled_images(parent, names, list(digits().images[images.number]), images.label.tolist())
