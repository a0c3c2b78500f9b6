"""Small pictures for pages that hold them inside."""

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from rotnet_keras.data.decoding import UnreadableImage, read_image

# In pixels.
SIDE = 160


def thumbnail(file: Path, quarters: int = 0) -> str:
    """The central square of a picture as a small JPEG file in base64; empty where it cannot be read.

    Args:
        quarters: turns by 90 degrees, counter-clockwise.
    """
    written = BytesIO()
    try:
        pixels = np.rot90(read_image(file, SIDE, 3), quarters)
    except UnreadableImage:
        return ""
    Image.fromarray(np.ascontiguousarray(pixels)).save(written, "JPEG", quality=85)
    return base64.b64encode(written.getvalue()).decode()
