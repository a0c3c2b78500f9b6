"""Image files of many kinds, made into squares of uint8 pixels."""

import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

Pixels = np.ndarray


class UnreadableImage(Exception):
    """A file that cannot be shown to the network; the message says why."""


# (top, left, side) of a part of a square, in its pixels.
Window = tuple[int, int, int]


def read_image(path: Path, size: int, channels: int, window: Window | None = None) -> Pixels:
    """Decode a file, turn it as its EXIF tag says, and cut and resize it to a square.

    Transparent parts become white, 16-bit values are divided by 257, of an animation the first picture
    counts.

    Args:
        path: jpg, png, webp, bmp, gif or tiff.
        size: side in pixels. The short side is resized to it and the central square kept.
        channels: 1 (grey) or 3 (RGB).
        window: the part of that square to return; the rest of it is never computed.

    Returns:
        (size, size, channels) uint8, or (side, side, channels) of a window.

    Raises:
        UnreadableImage: it is empty, damaged, truncated, too large or not an image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                # A JPEG can be decoded at a half, a quarter or an eighth of its size at a fraction of the cost.
                image.draft(image.mode, (size, size))
                ImageOps.exif_transpose(image, in_place=True)
                return square(_eight_bit(image, channels), size, window)
    except UnreadableImage:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files.
        raise UnreadableImage(_reason(path, error)) from None


def _reason(path: Path, error: Exception) -> str:
    reason = "the file is empty" if path.is_file() and path.stat().st_size == 0 else str(error)
    return reason.replace(f" {str(path)!r}", "") or type(error).__name__


def file_channels(path: Path) -> int | None:
    """1 for a grey file, 3 for one with colours, None where it cannot be opened."""
    try:
        with Image.open(path) as image:
            return 1 if image.mode in ("1", "L", "LA", "I", "I;16", "I;16B", "F") else 3
    except Exception:
        return None


def look_at(path: Path) -> tuple[int, int] | None:
    """Read a file's header alone.

    Returns:
        (width, height) of a JPEG file of grey or RGB pixels that are upright as they are stored, which any
        decoder reads alike; None of all other images.

    Raises:
        UnreadableImage: it is empty, too large or not an image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                plain = image.format == "JPEG" and image.mode in ("L", "RGB")
                upright = plain and image.getexif().get(ExifTags.Base.Orientation, 1) == 1
                return image.size if upright else None
    except Exception as error:
        raise UnreadableImage(_reason(path, error)) from None


def square(image: Image.Image, size: int, window: Window | None = None) -> Pixels:
    """The central square of an image at (size, size, C) uint8, or a window of it."""
    side = window[2] if window else size
    left, top, extent = place(*image.size, size, window)
    box = (left, top, left + extent, top + extent)
    if box != (0, 0, side, side) or image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def place(width: int, height: int, size: int, window: Window | None = None) -> tuple[float, float, float]:
    """Where the central square, or a window of it, lies in an image: left, top and side, in its pixels.

    Args:
        size: side that the whole square is resized to.
    """
    top, left, side = window or (0, 0, size)
    scale = min(width, height) / size
    return (width - size * scale) / 2 + left * scale, (height - size * scale) / 2 + top * scale, side * scale


def square_array(pixels: Pixels, size: int) -> Pixels:
    """The same for (H, W, C) uint8 with any number of channels."""
    if pixels.shape[:2] == (size, size):
        return pixels
    planes = [square(Image.fromarray(np.ascontiguousarray(pixels[..., c])), size) for c in range(pixels.shape[2])]
    return np.concatenate(planes, axis=-1)


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
