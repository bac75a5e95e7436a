"""Tiny checkpoints that are modules of torch: a residual network that ships, and modules of a user's own."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from audit.checkpoints import resolve
from audit.schema import Checkpoint, Source
from audit.wrappers.architectures import cifar_resnet
from tests import image_toy
from tests.toy import root

BLOCKS = ("layer1.0", "layer2.0", "layer3.0")
WIDTH = 16
"""Channels of the last map, which the head reads; the maps are 8 x 8, 4 x 4 and 2 x 2."""
RESNET: Mapping[str, Any] = {
    "model_type": "torch_module", "module": "cifar_resnet", "arguments": {"depth": 8, "width": 4}, "blocks": BLOCKS,
    "head": "linear", "stream": "map", "num_channels": 1, "image_size": image_toy.SIDE, "num_labels": image_toy.CLASSES,
}  # fmt: skip
TOKENS: Mapping[str, Any] = RESNET | {
    "module": "own_tokens:Mixer", "arguments": {}, "blocks": ("first", "later.0", "later.1"), "head": "out",
    "norm": "norm", "stream": "tokens", "summary": 0,
}  # fmt: skip
OWN = '''
import torch
from torch import nn


class Block(nn.Module):
    """Mixes positions, then channels."""

    def __init__(self, d: int, n: int) -> None:
        super().__init__()
        self.norm, self.places, self.channels = nn.LayerNorm(d), nn.Linear(n, n), nn.Linear(d, d)

    def forward(self, x):
        x = x + self.places(self.norm(x).mT).mT
        return x + self.channels(torch.tanh(x))


class Mixer(nn.Module):
    """Patches of 4 x 4 and a summary; some of its tensors stand at the root, one is saved nowhere."""

    def __init__(self, summary: int | str = 0, normed: bool = True, labels: int = 10, d: int = 12) -> None:
        super().__init__()
        n = 4 + (summary == 0)
        self.summary = summary
        self.token = nn.Parameter(torch.zeros(1, 1, d)) if summary == 0 else None
        self.register_buffer("places", torch.linspace(0, 1, n)[:, None], persistent=False)
        self.register_buffer("scale", torch.ones(d))
        self.patch = nn.Conv2d(1, d, 4, 4)
        self.first = Block(d, n)
        self.later = nn.Sequential(Block(d, n), Block(d, n))
        self.norm = nn.LayerNorm(d) if normed else None
        self.out = nn.Linear(d, labels)

    def forward(self, images):
        x = self.patch(images).flatten(2).mT * self.scale
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = nn.functional.dropout(x + self.places, 0.5, self.training)
        x = self.later(self.first(x))
        x = x if self.norm is None else self.norm(x)
        return self.out(x[:, 0] if self.summary == 0 else x.mean(1))
'''
"""A module whose blocks hand on tokens, as the text of ``own_tokens.py``."""


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in eval mode with random values everywhere, norms and their statistics included."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in sorted(module.state_dict().items()):
            if "running_var" in name:
                value.copy_(torch.rand(value.shape, generator=rng) + 0.5)
            elif value.is_floating_point():
                value.copy_(torch.randn(value.shape, generator=rng) * 0.3 + 0.1 * name.endswith("weight"))
    return module.eval()


def write(out: Path, module: nn.Module, settings: Mapping[str, Any]) -> Path:
    """A checkpoint folder with the module's state dict, its settings, and an image processor."""
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(dict(settings)))
    image_toy.processor().save_pretrained(out)
    return out


def resnet(seed: int = 0) -> nn.Module:
    """The network of :data:`RESNET`, every value random."""
    return randomised(cifar_resnet.build(image_toy.CLASSES, 1, depth=8, width=4), seed)


@cache
def folder(seed: int = 0) -> Path:
    """A checkpoint folder of :func:`resnet`. Shared by all tests: never write into it, copy it."""
    return write(root() / f"torch-module-{seed}", resnet(seed), RESNET)


@cache
def checkpoint(seed: int = 0) -> Checkpoint:
    """The same as a Checkpoint, named by its content."""
    return resolve(Source(path=str(folder(seed))), root())


def changed(out: Path, source: Path, settings: Mapping[str, Any], lose: tuple[str, ...] = ()) -> Path:
    """A copy of a folder with some settings changed, and without those in ``lose``."""
    stated = json.loads((source / "config.json").read_text()) | dict(settings)
    out.mkdir(parents=True)
    save_file(load_file(source / "model.safetensors"), out / "model.safetensors")
    (out / "config.json").write_text(json.dumps({key: value for key, value in stated.items() if key not in lose}))
    image_toy.processor().save_pretrained(out)
    return out
