"""Image files of every kind that is read, whole and spoilt."""

import functools
import io
import time

import numpy as np
from hypothesis import strategies as st
from PIL import Image
from support.bad_recipes import SOON

from rotnet_keras.data.decoding import UnreadableImage, read_header, read_image, read_whole

# What Pillow calls the formats, and the modes that each can hold.
FORMATS = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("L", "P"),
    "TIFF": ("1", "L", "RGB", "RGBA", "CMYK", "F", "I;16"),
}
SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff")


@functools.cache
def encoded(kind, mode, width, height):
    """The bytes of a file of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    elif image.mode != mode:
        image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@st.composite
def bad_images(draw):
    """(suffix, bytes) of an image, perhaps cut off, with other bytes in it, or called after another kind."""
    kind = draw(st.sampled_from(sorted(FORMATS)))
    width, height = (draw(st.sampled_from([1, 2, 7, 40, 3000])) for _ in range(2))
    content = encoded(kind, draw(st.sampled_from(FORMATS[kind])), min(width, 10**5 // height), height)
    for _ in range(draw(st.integers(0, 4))):
        first = draw(st.integers(0, len(content)))
        last = draw(st.integers(first, min(len(content), first + 64)))
        content = content[:first] + draw(st.binary(max_size=64)) + content[last:]
    if draw(st.booleans()):
        content = content[: draw(st.integers(0, len(content)))]
    return draw(st.sampled_from(SUFFIXES)), content


def check_image(folder, suffix, content):
    """Read a file in all ways; whether it is an image."""
    path = folder / f"image.{suffix}"
    path.write_bytes(content)
    start = time.process_time()
    try:
        seen = read_header(path)
        assert seen.width > 0 and seen.height > 0
        for channels in (1, 3):
            pixels = read_image(path, 8, channels)
            assert pixels.shape == (8, 8, channels) and pixels.dtype == "uint8"
            whole = read_whole(path, channels)
            assert whole.shape == (seen.height, seen.width, channels) and whole.dtype == "uint8"
        return True
    except UnreadableImage as error:
        assert str(error).strip()
        return False
    finally:
        assert time.process_time() - start < SOON, "slow"
        path.unlink()
