"""Image files of many kinds, made into squares of uint8 pixels."""

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

# Images that are too large are refused here, at half of what Pillow refuses itself.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

Pixels = np.ndarray

# Pillow's modes of images without colours.
GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "F")
# From this value on an EXIF orientation has height and width exchanged.
SIDEWAYS = 5


class UnreadableImage(Exception):
    """A file that cannot be shown to the network; the message says why."""


# (top, left, height, width) of a part of an image, in its pixels once its short side is resized to a known length.
Box = tuple[float, float, float, float]


def read_image(
    source: Path | BytesIO, size: int, channels: int, box: Box | None = None, side: int | None = None
) -> Pixels:
    """Decode a file, turn it as its EXIF tag says, and cut and resize it to a square.

    Transparent parts become white, 16-bit values are divided by 257, of an animation the first picture
    counts.

    Args:
        source: jpg, png, webp, bmp, gif or tiff, or its bytes.
        size: what the short side is resized to, in pixels.
        channels: 1 (grey) or 3 (RGB).
        box: the part of that to return, the central square by default; the rest of it is never computed.
        side: what the part is resized to; its own height by default.

    Returns:
        (side, side, channels) uint8.

    Raises:
        UnreadableImage: it is empty, damaged, truncated, too large or not an image.
    """
    with _opened(source) as image:
        # A JPEG can be decoded at a half, a quarter or an eighth of its size at a fraction of the cost.
        needed = size if box is None or side is None else math.ceil(size * max(1.0, side / min(box[2:])))
        image.draft(image.mode, (needed, needed))
        ImageOps.exif_transpose(image, in_place=True)
        return cut(_eight_bit(image, channels), size, box, side)


def read_whole(source: Path | BytesIO, channels: int) -> Pixels:
    """Decode all of a file in its own size, upright; otherwise as `read_image`.

    Returns:
        (H, W, channels) uint8.

    Raises:
        UnreadableImage: it is empty, damaged, truncated, too large or not an image.
    """
    with _opened(source) as image:
        ImageOps.exif_transpose(image, in_place=True)
        pixels = np.asarray(_eight_bit(image, channels), np.uint8)
        return pixels[..., None] if pixels.ndim == 2 else pixels


@contextmanager
def _opened(source: Path | BytesIO) -> Iterator[Image.Image]:
    """An image whose header is read, and whatever goes wrong with it told as one kind of error.

    Raises:
        UnreadableImage: it is empty, damaged, truncated, too large or not an image.
    """
    try:
        # To open a pipe would be to wait for whoever fills it.
        if isinstance(source, Path) and source.exists() and not source.is_file():
            raise UnreadableImage("it is no regular file")
        with Image.open(source) as image:
            if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise UnreadableImage(f"it has {image.width} x {image.height} pixels: too many")
            yield image
    except UnreadableImage:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files.
        raise UnreadableImage(_reason(source, error)) from None


def _reason(source: Path | BytesIO, error: Exception) -> str:
    if isinstance(source, BytesIO):
        return "it is empty" if not source.getbuffer() else re.sub(r" <_io\.BytesIO.*>", "", str(error))
    reason = "the file is empty" if source.is_file() and source.stat().st_size == 0 else str(error)
    return reason.replace(f" {str(source)!r}", "") or type(error).__name__


@dataclass(frozen=True)
class Header:
    """What an image file says of itself.

    Attributes:
        width: of the image as it is to be seen, in pixels.
        height: likewise.
        channels: 1 where it is grey, 3 where it has colours.
        plain: whether it is a JPEG file of grey or RGB pixels that are upright as they are stored, which any decoder
            reads alike.
        turned: whether its EXIF tag says that it is to be turned or mirrored.
    """

    width: int
    height: int
    channels: int
    plain: bool
    turned: bool


def look_at(source: Path | BytesIO) -> Header:
    """Read a file's header alone.

    Raises:
        UnreadableImage: it is empty, too large or not an image.
    """
    with _opened(source) as image:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        plain = image.format == "JPEG" and image.mode in ("L", "RGB") and orientation == 1
        width, height = image.size if orientation < SIDEWAYS else image.size[::-1]
        return Header(width, height, 1 if image.mode in GREY else 3, plain, orientation != 1)


def cut(image: Image.Image, size: int, box: Box | None = None, side: int | None = None) -> Pixels:
    """A part of an image, by default its central square, at (side, side, C) uint8; see `read_image`."""
    top, left, height, width = place(*image.size, size, box)
    side = side or (size if box is None else round(box[2]))
    bounds = (max(0.0, left), max(0.0, top), min(image.width, left + width), min(image.height, top + height))
    if bounds != (0, 0, side, side) or image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BILINEAR, box=bounds, reducing_gap=2.0)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def place(width: int, height: int, size: int, box: Box | None = None) -> Box:
    """Where a box, by default the central square, lies in an image as it is stored, in its pixels.

    Args:
        size: what the short side is resized to.
    """
    short = min(width, height)
    if box is None:
        return (height - short) / 2, (width - short) / 2, short, short
    top, left, tall, wide = (length * short / size for length in box)
    return top, left, tall, wide


def square_array(pixels: Pixels, size: int) -> Pixels:
    """The same for (H, W, C) uint8 with any number of channels."""
    if pixels.shape[:2] == (size, size):
        return pixels
    return cut_array(pixels, size)


def cut_array(pixels: Pixels, size: int, box: Box | None = None, side: int | None = None) -> Pixels:
    """A part of (H, W, C) uint8 with any number of channels; see `read_image`."""
    images = (Image.fromarray(np.ascontiguousarray(pixels[..., c])) for c in range(pixels.shape[2]))
    return np.concatenate([cut(image, size, box, side) for image in images], axis=-1)


def match_channels(pixels: Pixels, channels: int) -> Pixels:
    """(H, W, C) uint8 with C made 1 or 3 as asked, by luma or by repetition; other C are left alone."""
    if pixels.shape[-1] == 1 and channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    if pixels.shape[-1] == 3 and channels == 1:
        return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    return pixels


def _eight_bit(image: Image.Image, channels: int) -> Image.Image:
    mode = "L" if channels == 1 else "RGB"
    if image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.int64)
        image = Image.fromarray((np.clip(values, 0, 65535) // 257).astype(np.uint8))
    elif image.mode == "F":
        raise UnreadableImage("floating-point pixels have no known range: put them into an .npz file")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)
