"""The residual network for images of 32 x 32 (He et al. 2016, section 4.2; arXiv 1512.03385), of 6n + 2 layers.

A convolution, three stages of n blocks with 1, 2 and 4 times the channels of the first, the mean of the last map, one
linear layer. Shortcuts have no parameters (option A): where a stage begins, every other pixel is taken, and channels of
zeros are put on both sides.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_STAGES = (1, 2, 4)


class Block(nn.Module):
    """Two convolutions of 3 x 3, added to what comes in."""

    def __init__(self, entering: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(entering, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Float[Tensor, "row entering height width"]) -> Float[Tensor, "row channel _ _"]:
        """The map after this block."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        new = y.shape[1] - x.shape[1]
        shortcut = x if self.stride == 1 else x[:, :, :: self.stride, :: self.stride]
        return F.relu(y + F.pad(shortcut, (0, 0, 0, 0, new // 2, new - new // 2)))


class CifarResNet(nn.Module):
    """Stages ``layer1``, ``layer2``, ``layer3``, each a sequence of blocks; ``linear`` reads the mean of the map."""

    def __init__(self, labels: int, channels: int, blocks: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        entering = width
        for n, times in enumerate(_STAGES, 1):
            strides = [1 if n == 1 else 2] + [1] * (blocks - 1)
            widths = [entering] + [times * width] * (blocks - 1)
            stage = [Block(before, times * width, stride) for before, stride in zip(widths, strides, strict=True)]
            self.add_module(f"layer{n}", nn.Sequential(*stage))
            entering = times * width
        self.linear = nn.Linear(entering, labels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Float[Tensor, "row channel height width"]) -> Float[Tensor, "row label"]:
        """Logits of the classes."""
        x = F.relu(self.bn1(self.conv1(x)))
        for n in range(1, len(_STAGES) + 1):
            x = self.get_submodule(f"layer{n}")(x)
        return self.linear(x.mean((2, 3)))


def build(labels: int, channels: int, depth: int = 20, width: int = 16) -> nn.Module:
    """A network of ``depth`` layers whose first stage has ``width`` channels. ValueError for a depth other than 8, 14,
    20, 26, ..."""
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1 or width < 1:
        raise ValueError(f"there is none of {depth} layers (6 n + 2) and {width} channels")
    return CifarResNet(labels, channels, blocks, width)
