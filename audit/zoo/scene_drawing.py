"""Pictures of 32 x 32 from what they show: shapes by inequalities, so that every machine draws the same bytes."""

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from audit.zoo.scene_words import ConceptKind

SIDE = 32
FINE = 4
"""So many samples a pixel and direction, so that edges are soft."""
Across = Float[ndarray, "1 x"]
Down = Float[ndarray, "y 1"]

_COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (225, 40, 40), "green": (40, 185, 60), "blue": (50, 80, 235), "yellow": (235, 220, 50),
    "purple": (150, 50, 200), "orange": (245, 140, 30), "white": (240, 240, 240), "cyan": (60, 215, 220),
}  # fmt: skip
_SHADE = 0.45
"""The dark parts of a texture have this part of the colour's light."""
_SIZES = {"one": 16, "two": 12, "three": 12, "four": 12}
_PLACES: Mapping[str, tuple[tuple[float, float], ...]] = {
    "one": ((0.5, 0.5),), "two": ((0.0, 0.5), (1.0, 0.5)), "three": ((0.5, 0.0), (0.0, 1.0), (1.0, 1.0)),
    "four": ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)),
}  # fmt: skip
"""Where copies lie within their region, as parts of what it leaves free: x to the right, y down."""
_REGION = 24
_AWAY: Mapping[str, tuple[int, int]] = {
    "left": (0, 1), "right": (2, 1), "top": (1, 0), "bottom": (1, 2)
}  # fmt: skip
"""Where the region lies: 0 at the left or top edge, 1 between, 2 at the other edge."""


def _star(x: Across, y: Down) -> Bool[ndarray, "y x"]:
    angle = np.arctan2(x, -y) % (2 * np.pi / 5) - np.pi / 5
    tip, inner = 1.05, 0.42
    # the edge between a tip and a notch, as a line in polar coordinates
    t = np.pi / 5 - np.abs(angle)
    width = np.sin(np.pi / 5)
    edge = tip * inner * width / (inner * np.sin(np.pi / 5 - t) + tip * np.sin(t))
    return np.hypot(x, y) < edge


_SHAPES: Mapping[str, Callable[[Across, Down], Bool[ndarray, "y x"]]] = {
    "disc": lambda x, y: np.hypot(x, y) < 0.95,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) < 0.82,
    "triangle": lambda x, y: (np.abs(x) < 0.58 * (y + 0.9)) & (y < 0.8),
    "cross": lambda x, y: (np.minimum(np.abs(x), np.abs(y)) < 0.28) & (np.maximum(np.abs(x), np.abs(y)) < 0.95),
    "ring": lambda x, y: (np.hypot(x, y) < 0.98) & (np.hypot(x, y) > 0.58),
    "star": _star,
    "heart": lambda x, y: (np.hypot(np.abs(x) - 0.45, y + 0.3) < 0.5) | ((np.abs(x) < 0.62 * (0.95 - y)) & (y > -0.3)),
    "moon": lambda x, y: (np.hypot(x, y) < 0.95) & (np.hypot(x - 0.5, y) > 0.7),
}
_TEXTURES: Mapping[str, Callable[[ndarray, ndarray], Bool[ndarray, "y x"]]] = {
    "plain": lambda x, y: np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=bool),
    "striped": lambda x, y: (y % 4 < 2) & (x >= 0),
    "dotted": lambda x, y: (x % 4 < 2) & (y % 4 < 2),
    "checked": lambda x, y: (x // 4 + y // 4) % 2 == 0,
    "hatched": lambda x, y: (x + y) % 4 < 2,
}
"""Which pixels are dark, by their place in the picture."""


@cache
def _cover(shape: str, size: int) -> Float[ndarray, "y x"]:
    """How much of every pixel of a square of ``size`` pixels a shape covers."""
    centre = (np.arange(size * FINE) + 0.5) / (size * FINE) * 2 - 1
    inside = _SHAPES[shape](centre[None, :], centre[:, None])
    return inside.reshape(size, FINE, size, FINE).mean((1, 3))


def picture(scene: Mapping[ConceptKind, str], seed: int) -> UInt8[ndarray, "32 32 3"]:
    """What a scene looks like. ``seed`` draws what it does not say: the ground and the light."""
    rng = np.random.default_rng(seed)
    size, cover = _SIZES[scene["count"]], np.zeros((SIDE, SIDE))
    free, margin = _REGION - size, SIDE - _REGION
    left, top = (steps * (margin // 2) for steps in _AWAY[scene["position"]])
    for part_x, part_y in _PLACES[scene["count"]]:
        x, y = left + round(part_x * free), top + round(part_y * free)
        cover[y : y + size, x : x + size] = _cover(scene["shape"], size)
    at = np.arange(SIDE)
    dark = _TEXTURES[scene["texture"]](at[None, :], at[:, None])
    light = np.where(dark, _SHADE, 1.0)[..., None] * np.array(_COLOURS[scene["colour"]]) * rng.uniform(0.9, 1.0)
    ground = rng.uniform(15, 55) + rng.normal(0, 4, (SIDE, SIDE, 1))
    mixed = cover[..., None] * light + (1 - cover[..., None]) * ground
    return np.clip(mixed.round(), 0, 255).astype(np.uint8)
