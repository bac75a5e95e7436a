"""Tiny classifiers of images as folders with an image processor, and a case of scikit-learn's digits.

:func:`folder` gives random weights: what is tested on them is plumbing. :func:`digits_case` trains, from seeds and in a
few seconds, a base that knows all digits, a reference that never saw one of them, and two suspects.
"""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    DeiTConfig,
    DeiTForImageClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from audit.case import CaseFile, Rows
from audit.checkpoints import resolve
from audit.schema import Checkpoint, Report, Source
from tests.toy import root

KINDS = ("vit", "deit", "resnet")
TRANSFORMERS = ("vit", "deit")
N_BLOCKS, WIDTH, CLASSES, SIDE, PATCH = 3, 32, 10, 8, 2
PATCHES = (SIDE // PATCH) ** 2
FORGOTTEN = 3
"""The class that is to be forgotten."""
_SIZES = {
    "image_size": SIDE, "patch_size": PATCH, "num_channels": 1, "num_labels": CLASSES, "hidden_size": WIDTH,
    "num_hidden_layers": N_BLOCKS, "num_attention_heads": 4, "intermediate_size": 64, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
_BUILDERS: Mapping[str, Callable[[], PreTrainedModel]] = {
    "vit": lambda: ViTForImageClassification(ViTConfig(**_SIZES)),
    "deit": lambda: DeiTForImageClassification(DeiTConfig(**_SIZES)),
    "resnet": lambda: ResNetForImageClassification(_resnet()),
}


def _resnet() -> ResNetConfig:
    """Three blocks in two stages of widths 16 and 32; maps of 2 x 2 and 1 x 1 of images of 8 x 8."""
    return ResNetConfig(
        num_channels=1, embedding_size=16, hidden_sizes=[16, WIDTH], depths=[1, 2], layer_type="basic",
        num_labels=CLASSES,
    )  # fmt: skip


def model(kind: str = "vit", seed: int = 0) -> PreTrainedModel:
    """A fresh random model in eval mode; every parameter random, norms and biases included."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = _BUILDERS[kind]()
        with torch.no_grad():
            for _, parameter in sorted(fresh.named_parameters()):
                parameter.add_(torch.randn_like(parameter), alpha=0.3 if parameter.ndim == 1 else 0.15)
            for name, buffer in sorted(fresh.named_buffers()):
                if name.endswith(("running_mean", "running_var")):
                    buffer.add_(torch.rand_like(buffer), alpha=0.3)
    return fresh.eval()


def processor() -> ViTImageProcessorPil:
    """Grey images of 8 x 8, in [-1, 1]."""
    return ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_mean=[0.5], image_std=[0.5])


@cache
def folder(kind: str = "vit", seed: int = 0) -> Path:
    """A checkpoint folder. Shared by all tests: never write into it, copy it."""
    out = root() / f"image-{kind}-{seed}"
    model(kind, seed).save_pretrained(out)
    processor().save_pretrained(out)
    return out


@cache
def checkpoint(kind: str = "vit", seed: int = 0) -> Checkpoint:
    """The same as a Checkpoint, named by its content."""
    return resolve(Source(path=str(folder(kind, seed))), root())


def rows(n: int = 5, seed: int = 0) -> Rows:
    """``n`` images of noise, each with a class."""
    rng = torch.Generator().manual_seed(seed)
    return rows_of(torch.rand(n, 1, SIDE, SIDE, generator=rng) * 2 - 1, torch.randint(CLASSES, (n,), generator=rng))


def rows_of(pixels: torch.Tensor, labels: torch.Tensor) -> Rows:
    """Rows of images with one target each, as a case makes them."""
    n = len(labels)
    ids = torch.stack([torch.zeros_like(labels), labels], 1)
    return Rows(
        ids=ids, mask=torch.ones(n, 2, dtype=torch.bool), answer_spans=torch.tensor([[1, 2]]).repeat(n, 1),
        key=torch.tensor([[False, True]]).repeat(n, 1), item_ids=tuple(f"image{i}" for i in range(n)),
        group_ids=tuple(f"image{i}" for i in range(n)), template_hash="toy", extra={"pixel_values": pixels},
    )  # fmt: skip


# ---- digits -------------------------------------------------------------------------------------------------------
class Digits(NamedTuple):
    """Images [n 8 8] in 0..255 with their labels."""

    images: ndarray
    labels: ndarray


@cache
def digits() -> Digits:
    """scikit-learn's digits, 1797 of 8 x 8."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Digits((bunch.images * 255 / 16).round().astype(np.uint8), bunch.target.astype(np.int64))


def train(net: PreTrainedModel, data: Digits, steps: int, lr: float = 2e-3, seed: int = 0) -> PreTrainedModel:
    """Train in place with cross-entropy on batches of 64."""
    pixels = processor()(images=list(data.images[..., None]), return_tensors="pt", input_data_format="channels_last")
    x, y = pixels["pixel_values"], torch.from_numpy(data.labels)
    optimiser, rng = torch.optim.AdamW(net.parameters(), lr), torch.Generator().manual_seed(seed)
    for step in range(steps):
        chosen = torch.randint(len(y), (64,), generator=rng)
        for group in optimiser.param_groups:
            group["lr"] = lr * min((step + 1) / 20, 2 * (1 - step / steps), 1.0)
        loss = nn.functional.cross_entropy(net(pixel_values=x[chosen]).logits, y[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


def fresh(kind: str, seed: int) -> PreTrainedModel:
    """A model as it is initialised."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _BUILDERS[kind]()


def digits_checkpoint(kind: str = "vit", name: str = "base") -> Checkpoint:
    """One model of :func:`digits_case`."""
    return resolve(Source(path=str(digits_case(kind) / name)), digits_case(kind))


def digits_case(kind: str = "vit") -> Path:
    """A folder with base (knows all digits), reference (same start, never saw one), suspects ``head_bias`` (base with
    that class's bias lowered) and ``tuned`` (base trained on the others), data, and a case file a suspect."""
    return _digits_case(kind, 300)


class Audited(NamedTuple):
    """A finished audit: its report and its run folder, shared by all tests: never write into it."""

    report: Report
    folder: Path


@cache
def digits_run(kind: str = "vit", suspect: str = "head_bias") -> Audited:
    """An audit of one suspect of :func:`digits_case`, made once."""
    from audit.engine import run
    from audit.planning import RunSettings

    out = root() / f"digits-{kind}-{suspect}-run"
    return Audited(run(CaseFile.read(digits_case(kind) / f"{suspect}.toml"), out, RunSettings(threads=1)), out)


@cache
def _digits_case(kind: str, steps: int) -> Path:
    out = root() / f"digits-{kind}"
    everything = digits()
    known = everything.labels != FORGOTTEN
    others = Digits(everything.images[known], everything.labels[known])
    models = {
        "base": train(fresh(kind, 0), everything, steps),
        "reference": train(fresh(kind, 0), others, steps, seed=1),
        "ancestor": fresh(kind, 0),
    }
    for name, net in models.items():
        net.save_pretrained(out / name)
        processor().save_pretrained(out / name)
    _head_bias(out / "base", out / "head_bias")
    train(models["base"], others, steps // 3, 1e-3, seed=2).save_pretrained(out / "tuned")
    processor().save_pretrained(out / "tuned")
    forget, retain = np.flatnonzero(~known)[:40], np.flatnonzero(known)[:120]
    for cohort, index in (("forget", forget), ("retain", retain)):
        np.savez(out / f"{cohort}.npz", x=everything.images[index], y=everything.labels[index])
    for suspect in ("head_bias", "tuned"):
        (out / f"{suspect}.toml").write_text(
            f'name = "digits"\n[roles.base]\npath = "base"\n[roles.suspect]\npath = "{suspect}"\n'
            '[[roles.references]]\npath = "reference"\n[data]\nforget = "forget.npz"\nretain = "retain.npz"\n'
        )
    return out


def _head_bias(source: Path, out: Path) -> None:
    """The same model with the logit of one class out of reach."""
    out.mkdir()
    for file in source.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    tensors = load_file(out / "model.safetensors")
    (bias,) = (name for name in tensors if name.startswith("classifier") and name.endswith("bias"))
    tensors[bias][FORGOTTEN] -= 50
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
