"""Decoding image files of many formats into squares of uint8 pixels.

There is one decoder and one way to resample, for training and for everything that a trained network is applied to: the
antialiased bilinear filter of Pillow, whose width follows the scale.
"""

import math
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from rotnet_keras.data.image_files import UnreadableImage as UnreadableImage
from rotnet_keras.data.image_files import (
    decoded,
    open_image,
    orientation_of,
    stored_corners,
    stored_orientation,
    transpose,
    upright_size,
)

Pixels = np.ndarray

# Changes with the pixels that a file is decoded to, so that resumed runs can tell.
DECODER = 3
# Pillow's modes of images without colours.
GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "F")
# Before an image is resampled, whole blocks of its pixels may be averaged, by a JPEG's transform or after decoding, if
# this many times the pixels of the result are left. The mean difference from one step is below a level.
SPARE = 2

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
    with open_image(source) as image:
        orientation = orientation_of(image)
        scale = 1.0 if box is None or side is None else side / min(box[2:])
        needed = math.ceil(SPARE * size * scale)
        # A JPEG is decoded at a half, a quarter or an eighth of its size, at a fraction of the cost, where that is
        # enough. Its sides are then no whole numbers of pixels.
        reduced = image.draft(image.mode, (needed, needed))
        extent = image.size if reduced is None else reduced[1][2:]
        with decoded(image):
            return crop_and_resize(_eight_bit(image, channels), size, box, side, extent, orientation)


def read_center(source: Path | BytesIO, size: int, channels: int, side: int) -> Pixels:
    """Decode the central crop of an image file, as evaluation does; otherwise as `read_image` does.

    Args:
        source: a file or its bytes.
        size: length in pixels that the short side is resized to.
        channels: 1 (grey) or 3 (RGB).
        side: of the crop in pixels, at most `size`.

    Returns:
        (side, side, channels) uint8.

    Raises:
        UnreadableImage: the file is empty, damaged, truncated, too large or not an image.
    """
    header = read_header(source)
    scale, start = size / min(header.width, header.height), (size - side) // 2
    top, left = ((length * scale - size) / 2 + start for length in (header.height, header.width))
    return read_image(source, size, channels, (top, left, float(side), float(side)))


def read_whole(source: Path | BytesIO, channels: int) -> Pixels:
    """Decode an image file in its own size, upright; otherwise as `read_image` does.

    Returns:
        (H, W, channels) uint8.

    Raises:
        UnreadableImage: the file is empty, damaged, truncated, too large or not an image.
    """
    with open_image(source) as image:
        orientation = orientation_of(image)
        with decoded(image):
            pixels = np.asarray(transpose(_eight_bit(image, channels), orientation), np.uint8)
            return pixels[..., None] if pixels.ndim == 2 else pixels


@dataclass(frozen=True)
class Header:
    """What the header of an image file says.

    Attributes:
        width: of the upright image, in pixels.
        height: of the upright image, in pixels.
        channels: 1 for a grey image, 3 for one with colours.
        orientation: EXIF's, 1 to 8: how the stored pixels are to be rotated or mirrored; 1 is upright.
        bits: of a value: 8 or 16.
    """

    width: int
    height: int
    channels: int
    orientation: int = 1
    bits: int = 8

    @property
    def exif_rotated(self) -> bool:
        """Whether the EXIF tag says that the stored pixels must be rotated or mirrored."""
        return self.orientation != 1


def read_header(source: Path | BytesIO) -> Header:
    """Read only the header of an image file.

    Raises:
        UnreadableImage: the file is empty, too large or not an image.
    """
    with open_image(source) as image:
        deep = _has_sixteen_bits(image)  # Looking for the orientation may decode the image.
        width, height = upright_size(image.size, orientation_of(image))
        return Header(
            int(width),
            int(height),
            1 if image.mode in GREY else 3,
            stored_orientation(image),
            16 if deep else 8,
        )


def highest_value(source: Path | BytesIO) -> int:
    """Return the highest value of an image file of 16 bits, before it is scaled.

    Of colours Pillow reads the upper 8 bits: the highest value that the brightest pixel can have is returned.

    Raises:
        UnreadableImage: the file is damaged, or values are below 0 or above 65,535.
    """
    with open_image(source) as image, decoded(image):
        if image.mode.startswith("I"):
            return int(_sixteen_bits(image).max())
        upper = max(np.asarray(image.getchannel(band)).max() for band in image.getbands() if band != "A")
        return 256 * int(upper) + 255 if upper else 0


def _has_sixteen_bits(image: ImageFile.ImageFile) -> bool:
    """Return whether the values in an open file that is not decoded yet have more than 8 bits."""
    return image.mode.startswith("I") or any(";16" in str(tile.args) for tile in image.tile)


def crop_and_resize(
    image: Image.Image,
    size: int,
    box: Box | None = None,
    side: int | None = None,
    extent: tuple[float, float] | None = None,
    orientation: int = 1,
) -> Pixels:
    """Return a crop of an image, the central square by default; see `read_image`.

    Args:
        image: the stored pixels, grey or RGB.
        size: length in pixels that the short side is resized to.
        box: the crop of the upright image.
        side: length in pixels that the crop's sides are resized to.
        extent: the part of the width and height that shows something; all of them by default.
        orientation: EXIF's; only the result is transposed.

    Returns:
        (side, side, C) uint8.
    """
    stored = extent or image.size
    upright = upright_size(stored, orientation)
    top, left, height, width = box_in_pixels(*upright, size, box)
    side = side or (size if box is None else round(box[2]))
    ((top, left, bottom, right),) = stored_corners([(top, left, top + height, left + width)], upright, orientation)
    bounds = (max(0.0, left), max(0.0, top), min(stored[0], right), min(stored[1], bottom))
    if bounds != (0, 0, side, side) or image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BILINEAR, box=bounds, reducing_gap=float(SPARE))
    pixels = np.asarray(transpose(image, orientation), dtype=np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def box_in_pixels(width: float, height: float, size: int, box: Box | None = None) -> Box:
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
    """Return the values of an image (H, W) of integers, 0 to 65,535."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableImage(
            f"its values go from {values.min():,} to {values.max():,}, and 0 to 65,535 is read; put the images into an "
            ".npz file, whose values are scaled from their own range"
        )
    return values


def _eight_bit(image: Image.Image, channels: int) -> Image.Image:
    """Return decoded pixels as grey or RGB with 8 bits.

    Raises:
        UnreadableImage: their values have no known range, or there is no rule for their colours.
    """
    mode = "L" if channels == 1 else "RGB"
    if image.mode.startswith("I"):
        image = Image.fromarray((_sixteen_bits(image) // 257).astype(np.uint8))
    elif image.mode == "F":
        raise UnreadableImage("its floating-point pixels have no known range; put them into an .npz file")
    elif image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    try:
        return image if image.mode == mode else image.convert(mode)
    except ValueError:
        raise UnreadableImage(f"its colours are of a kind that is not read ({image.mode}); save it in RGB") from None
