"""Small pictures of images of the data, for documents that show what is masked elsewhere."""

import base64
from io import BytesIO
from typing import Final

from jaxtyping import UInt8
from numpy import ndarray

SIDE: Final = 64
"""The most pixels a side."""


def thumbnail(pixels: UInt8[ndarray, "height width *channel"]) -> str:
    """An image of at most 64 pixels a side as the address of a PNG that holds it."""
    from PIL import Image

    flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    image = Image.fromarray(flat)
    image.thumbnail((SIDE, SIDE))
    out = BytesIO()
    image.save(out, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
