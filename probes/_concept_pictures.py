"""Pictures shown otherwise: cropped, with a word drawn into them, or blank. Arrays in, arrays out; no model.

Every function keeps a picture's height, width and channels, so that an image processor sees what it saw before.
"""

from typing import Final

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray

Picture = UInt8[ndarray, "height width *channel"]
CROPS: Final = ("upper left", "upper right", "lower left", "lower right", "centre")
CROPPED: Final = 0.75
"""The share of either side that a crop shows."""
BAND: Final = 0.3
"""The share of the height, at the bottom, that a word is drawn into."""
GREY: Final = 128


def blank_like(picture: Picture) -> Picture:
    """A picture of one grey."""
    return np.full_like(picture, GREY)


def cropped(picture: Picture, window: str, share: float = CROPPED) -> Picture:
    """One of :data:`CROPS`: a window with ``share`` of either side, enlarged to the size of the picture."""
    height, width = picture.shape[:2]
    tall, wide = max(1, round(share * height)), max(1, round(share * width))
    tops = {"upper": 0, "lower": height - tall, "centre": (height - tall) // 2}
    lefts = {"left": 0, "right": width - wide, "centre": (width - wide) // 2}
    words = window.split()
    top, left = tops[words[0]], lefts[words[-1]]
    return _resized(picture[top : top + tall, left : left + wide], height, width)


def _resized(picture: UInt8[ndarray, "tall wide *channel"], height: int, width: int) -> Picture:
    from PIL import Image

    flat = picture[..., 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture
    larger = np.asarray(Image.fromarray(np.ascontiguousarray(flat)).resize((width, height), Image.Resampling.BILINEAR))
    return larger.reshape(height, width, *picture.shape[2:])


def drawable(word: str) -> bool:
    """Does the built-in font have a shape for each character of a word, and is there something to draw?"""
    return bool(word.strip()) and all(32 <= ord(character) < 127 for character in word)


def lettered(picture: Picture, word: str) -> Picture:
    """The picture with a word in black letters on a white band at its bottom, as large as fits.

    ``word`` is :func:`drawable`: the font is a small bitmap, the same on every machine.
    """
    height, width = picture.shape[:2]
    mask = _letters(word)
    scale = min(max(1, round(BAND * height)) / mask.shape[0], width / mask.shape[1])
    tall, wide = (max(1, int(side * scale)) for side in mask.shape)
    rows, columns = (np.arange(n) * side // n for n, side in zip((tall, wide), mask.shape, strict=True))
    written = picture.copy()
    written[height - tall :] = 255
    left = (width - wide) // 2
    band = written[height - tall :, left : left + wide]
    band[mask[rows][:, columns]] = 0
    return written


def _letters(word: str) -> Bool[ndarray, "height width"]:
    """The ink of a word in the built-in bitmap font, without empty rows and columns round it."""
    from PIL import Image, ImageDraw, ImageFont

    font = getattr(ImageFont, "load_default_imagefont", ImageFont.load_default)()
    left, top, right, bottom = ImageDraw.Draw(Image.new("1", (1, 1))).textbbox((0, 0), word, font=font)
    canvas = Image.new("1", (max(1, int(right - left)), max(1, int(bottom - top))))
    ImageDraw.Draw(canvas).text((-left, -top), word, fill=1, font=font)
    ink = np.asarray(canvas)
    if not ink.any():
        return np.ones((1, 1), dtype=bool)
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def mixed_letters(word: str, seed: int) -> str:
    """The letters of a word in another order, which spell something else; of one letter another one."""
    letters = list(word)
    rng = np.random.default_rng(seed)
    for _ in range(20):
        mixed = "".join(letters[n] for n in rng.permutation(len(letters)))
        if mixed != word:
            return mixed
    return "".join(chr(33 + (ord(letter) - 32) % 94) for letter in letters)
