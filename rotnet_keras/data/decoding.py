"""Decoding image files of many formats into squares of uint8 pixels."""

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

# Images that are too large are refused here, at half of what Pillow refuses itself.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

Pixels = np.ndarray

# Pillow's modes of images without colours.
GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "F")
# From this value on, an EXIF orientation exchanges height and width.
SIDEWAYS = 5


class UnreadableImage(Exception):
    """An image file that cannot be used; the message says why."""


# (top, left, height, width) of a part of an image, in pixels after its short side was resized to a known length.
Box = tuple[float, float, float, float]


def read_image(
    source: Path | BytesIO, size: int, channels: int, box: Box | None = None, side: int | None = None
) -> Pixels:
    """Decode an image file, rotate it as its EXIF tag says, and crop and resize it to a square.

    Transparent pixels become white, 16-bit values are divided by 257, and an animation gives its first frame.

    Args:
        source: a jpg, png, webp, bmp, gif or tiff file, or its bytes.
        size: length in pixels that the short side is resized to.
        channels: 1 (grey) or 3 (RGB).
        box: the crop; the central square by default. Pixels outside it are not computed.
        side: length in pixels that the crop's sides are resized to; the crop's own height by default.

    Returns:
        (side, side, channels) uint8.

    Raises:
        UnreadableImage: the file is empty, damaged, truncated, too large or not an image.
    """
    with _open(source) as image:
        # A JPEG can be decoded at a half, a quarter or an eighth of its size at a fraction of the cost.
        needed = size if box is None or side is None else math.ceil(size * max(1.0, side / min(box[2:])))
        image.draft(image.mode, (needed, needed))
        ImageOps.exif_transpose(image, in_place=True)
        return crop_and_resize(_eight_bit(image, channels), size, box, side)


def read_whole(source: Path | BytesIO, channels: int) -> Pixels:
    """Decode an image file in its own size, upright; otherwise as `read_image` does.

    Returns:
        (H, W, channels) uint8.

    Raises:
        UnreadableImage: the file is empty, damaged, truncated, too large or not an image.
    """
    with _open(source) as image:
        ImageOps.exif_transpose(image, in_place=True)
        pixels = np.asarray(_eight_bit(image, channels), np.uint8)
        return pixels[..., None] if pixels.ndim == 2 else pixels


@contextmanager
def _open(source: Path | BytesIO) -> Iterator[Image.Image]:
    """Open an image file and read its header; every error becomes an `UnreadableImage`.

    Raises:
        UnreadableImage: the file is empty, damaged, truncated, too large or not an image.
    """
    try:
        # Opening a pipe would wait for its writer.
        if isinstance(source, Path) and source.exists() and not source.is_file():
            raise UnreadableImage("it is not a regular file")
        with Image.open(source) as image:
            # JPEG is decoded at a fraction of its size where that is enough.
            if _is_large(image, 2 if image.format == "JPEG" else 1):
                raise UnreadableImage(
                    f"it has {image.width} x {image.height} pixels, which is too many; make a smaller copy of it"
                )
            yield image
    except UnreadableImage:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files.
        raise UnreadableImage(_reason(source, error)) from None


def _first_bytes(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(4)
    except OSError:
        return b""


def _is_large(image: Image.Image, factor: int = 1) -> bool:
    """Return whether an image has more pixels than may be decoded, times a factor."""
    return Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > factor * Image.MAX_IMAGE_PIXELS


def _reason(source: Path | BytesIO, error: Exception) -> str:
    beginning = source.getvalue()[:4] if isinstance(source, BytesIO) else _first_bytes(source)
    if isinstance(error, UnidentifiedImageError) and beginning in (b"II*\0", b"MM\0*"):
        return "a TIFF file of a kind that is not read, such as one of many bands; put its pixels into an .npz file"
    if isinstance(source, BytesIO):
        return "it is empty" if not source.getbuffer() else re.sub(r" <_io\.BytesIO.*>", "", str(error))
    reason = "the file is empty" if source.is_file() and source.stat().st_size == 0 else str(error)
    return reason.replace(f" {str(source)!r}", "") or type(error).__name__


@dataclass(frozen=True)
class Header:
    """What the header of an image file says.

    Attributes:
        width: of the upright image, in pixels.
        height: of the upright image, in pixels.
        channels: 1 for a grey image, 3 for one with colours.
        plain: whether it is a JPEG file of grey or RGB pixels that are stored upright; every decoder reads it alike.
        exif_rotated: whether its EXIF tag says that it must be rotated or mirrored.
        bits: of a value: 8 or 16.
    """

    width: int
    height: int
    channels: int
    plain: bool
    exif_rotated: bool
    bits: int = 8


def read_header(source: Path | BytesIO) -> Header:
    """Read only the header of an image file.

    Raises:
        UnreadableImage: the file is empty, too large or not an image.
    """
    with _open(source) as image:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        plain = image.format == "JPEG" and image.mode in ("L", "RGB") and orientation == 1 and not _is_large(image)
        width, height = image.size if orientation < SIDEWAYS else image.size[::-1]
        return Header(
            width,
            height,
            1 if image.mode in GREY else 3,
            plain,
            orientation != 1,
            16 if image.mode.startswith("I") else 8,
        )


def highest_value(source: Path | BytesIO) -> int:
    """Return the highest value of a grey image file with more than 8 bits, before it is scaled.

    Raises:
        UnreadableImage: the file is damaged, or values are below 0 or above 65,535.
    """
    with _open(source) as image:
        return int(_sixteen_bits(image).max())


def crop_and_resize(image: Image.Image, size: int, box: Box | None = None, side: int | None = None) -> Pixels:
    """Return a crop of an image, the central square by default, as (side, side, C) uint8; see `read_image`."""
    top, left, height, width = box_in_pixels(*image.size, size, box)
    side = side or (size if box is None else round(box[2]))
    bounds = (max(0.0, left), max(0.0, top), min(image.width, left + width), min(image.height, top + height))
    if bounds != (0, 0, side, side) or image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BILINEAR, box=bounds, reducing_gap=2.0)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def box_in_pixels(width: int, height: int, size: int, box: Box | None = None) -> Box:
    """Return a box, the central square by default, in pixels of the image's own size.

    Args:
        width: of the image in its own pixels.
        height: of the image in its own pixels.
        size: length in pixels of the resized short side, in which the box counts.
    """
    short = min(width, height)
    if box is None:
        return (height - short) / 2, (width - short) / 2, short, short
    top, left, tall, wide = (length * short / size for length in box)
    return top, left, tall, wide


def resize_array(pixels: Pixels, size: int) -> Pixels:
    """Return the central square of an array (H, W, C) uint8 as (size, size, C); C may be any number."""
    if pixels.shape[:2] == (size, size):
        return pixels
    return crop_array(pixels, size)


def crop_array(pixels: Pixels, size: int, box: Box | None = None, side: int | None = None) -> Pixels:
    """Return a crop of an array (H, W, C) uint8, where C may be any number; see `read_image`."""
    images = (Image.fromarray(np.ascontiguousarray(pixels[..., c])) for c in range(pixels.shape[2]))
    return np.concatenate([crop_and_resize(image, size, box, side) for image in images], axis=-1)


def convert_channels(pixels: Pixels, channels: int) -> Pixels:
    """Convert (H, W, C) uint8 to 1 channel by luma, or to 3 by repetition; arrays with another C stay as they are."""
    if pixels.shape[-1] == 1 and channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    if pixels.shape[-1] == 3 and channels == 1:
        return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    return pixels


def _sixteen_bits(image: Image.Image) -> np.ndarray:
    """Return the values of an image (H, W) int64, 0 to 65,535."""
    values = np.asarray(image, dtype=np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableImage(
            f"its values go from {values.min():,} to {values.max():,}, and 0 to 65,535 is read; put the images into an "
            ".npz file, whose values are scaled from their own range"
        )
    return values


def _eight_bit(image: Image.Image, channels: int) -> Image.Image:
    mode = "L" if channels == 1 else "RGB"
    if image.mode.startswith("I"):
        image = Image.fromarray((_sixteen_bits(image) // 257).astype(np.uint8))
    elif image.mode == "F":
        raise UnreadableImage("its floating-point pixels have no known range; put them into an .npz file")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)
