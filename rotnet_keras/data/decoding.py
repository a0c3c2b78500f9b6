"""Decoding image files of many formats into images of one shape: bytes, or the numbers of files with more bits.

There is one decoder and one way to resample, for training and for everything that a trained network is applied to: the
antialiased bilinear filter of Pillow, whose width follows the scale.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from rotnet_keras.data.crops import Box as Box
from rotnet_keras.data.crops import Fit, center_crops
from rotnet_keras.data.image_files import (
    SIDEWAYS,
    decoded,
    frames_note,
    open_image,
    orientation_of,
    stored_corners,
    stored_orientation,
    transpose,
    upright_size,
)
from rotnet_keras.data.image_files import UnreadableImage as UnreadableImage
from rotnet_keras.data.values.files import ValueFile, read_values, value_header
from rotnet_keras.data.values.ranges import displayed

Pixels = np.ndarray
# The side of a square, height and width, or a fit.
Size = int | Sequence[int] | Fit

# Changes with the pixels that a file is decoded to, so that resumed runs can tell.
DECODER = 3
# Pillow's modes of images without colours.
GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "F")
# Before an image is resampled, whole blocks of its pixels may be averaged, by a JPEG's transform or after decoding, if
# this many times the pixels of the result are left. The mean difference from one step is below a level.
SPARE = 2
LUMA = (0.299, 0.587, 0.114)
# The most bits of a whole number that is scaled to a byte.
MOST_BITS = 16


def read_image(
    source: Path | BytesIO,
    size: Size,
    channels: int,
    box: Box | None = None,
    side: int | tuple[int, int] | None = None,
    deep: bool = False,
) -> Pixels:
    """Decode an image file, rotate it as its EXIF tag says, and crop and resize it to one shape.

    Transparent pixels become white. Of several pages or frames the first is read, which the header's note says.

    Args:
        source: a jpg, png, webp, bmp, gif, tiff, npy or dcm file, or its bytes.
        size: the shape that images are brought to; of a square, the length that the short side is resized to.
        channels: of the result. Grey becomes RGB, and RGB grey; others must be the file's.
        box: the crop, in pixels of the resized image; the central part by default. Pixels outside it are not computed.
        side: height and width that the crop is resized to, or the side of a square; the crop's own by default.
        deep: whether the numbers of files with more than 8 bits are wanted as they are. Without it, whole numbers of up
            to 16 bits are scaled to bytes.

    Returns:
        (height, width, channels) uint8; float32 if `deep`.

    Raises:
        UnreadableImage: the file is empty, damaged, truncated, too large, not an image, or has other channels or bits.
    """
    fit = Fit.of(size)
    found = read_values(source)
    if found is not None:
        pixels = _upright(_as_asked(*found, channels, deep), found[0].orientation)
        return crop_array(pixels, fit, box, side)
    with open_image(source) as image:
        _check(Header(image.width, image.height, 1 if image.mode in GREY else 3), channels, deep)
        orientation = orientation_of(image)
        tall, wide = _sides(fit, box, side)
        scale = 1.0 if box is None or side is None else max(tall / box[2], wide / box[3])
        needed = math.ceil(SPARE * fit.width * scale), math.ceil(SPARE * fit.height * scale)
        # A JPEG is decoded at a half, a quarter or an eighth of its size, at a fraction of the cost, where that is
        # enough. Its sides are then no whole numbers of pixels.
        reduced = image.draft(image.mode, needed[::-1] if orientation in SIDEWAYS else needed)
        extent = image.size if reduced is None else reduced[1][2:]
        with decoded(image):
            return crop_and_resize(_eight_bit(image, channels), fit, box, side, extent, orientation)


def read_center(
    source: Path | BytesIO, size: Size, channels: int, side: int | tuple[int, int], deep: bool = False
) -> Pixels:
    """Decode the central crop of an image file, as evaluation does; otherwise as `read_image` does.

    Args:
        source: a file or its bytes.
        size: the shape that images are brought to.
        channels: of the result.
        side: height and width of the crop in pixels, or the side of a square, at most `size`.
        deep: as of `read_image`.

    Returns:
        (height, width, channels) uint8; float32 if `deep`.

    Raises:
        UnreadableImage: as of `read_image`.
    """
    header, fit = read_header(source), Fit.of(size)
    tall, wide = Fit.of(side).shape
    frames = fit.extents(np.array([[header.width, header.height]]))
    top, left, _, _ = center_crops(frames, fit.shape)[0].tolist()
    # At whole pixels, as of images that are kept.
    box = top + (fit.height - tall) // 2, left + (fit.width - wide) // 2, float(tall), float(wide)
    return read_image(source, fit, channels, box, (tall, wide), deep)


def read_whole(source: Path | BytesIO, channels: int, deep: bool = False) -> Pixels:
    """Decode an image file in its own size, upright; otherwise as `read_image` does.

    Returns:
        (H, W, channels) uint8; float32 if `deep`.

    Raises:
        UnreadableImage: as of `read_image`.
    """
    found = read_values(source)
    if found is not None:
        return np.ascontiguousarray(_upright(_as_asked(*found, channels, deep), found[0].orientation))
    with open_image(source) as image:
        _check(Header(image.width, image.height, 1 if image.mode in GREY else 3), channels, deep)
        orientation = orientation_of(image)
        with decoded(image):
            pixels = np.asarray(transpose(_eight_bit(image, channels), orientation), np.uint8)
            return pixels[..., None] if pixels.ndim == 2 else pixels


def read_displayed(source: Path | BytesIO, size: Size, channels: int = 3, shown: Sequence[int] | None = None) -> Pixels:
    """Decode an image file as people see it; otherwise as `read_image` does.

    Args:
        source: a file or its bytes.
        size: the shape that images are brought to.
        channels: 1 (grey) or 3 (RGB).
        shown: the channels of the file that are red, green and blue; the first three by default, and in files that do
            not have them.

    Returns:
        (height, width, channels) uint8. Values of more than 8 bits are scaled from percentiles of the image.

    Raises:
        UnreadableImage: as of `read_image`.
    """
    header = read_header(source)
    if shown and max(shown) >= header.channels:
        shown = None
    if not header.deep and header.channels in (1, 3) and not shown:
        return read_image(source, size, channels)
    pixels = read_image(source, size, header.channels, deep=header.deep)
    return convert_channels(displayed(pixels[None], None, shown)[0], channels)


@dataclass(frozen=True)
class Header:
    """What the header of an image file says.

    Attributes:
        width: of the upright image, in pixels.
        height: of the upright image, in pixels.
        channels: 1 for a grey image, 3 for one with colours, any number in files of values.
        orientation: EXIF's, 1 to 8: how the stored pixels are to be rotated or mirrored; 1 is upright.
        bits: of a value.
        unsigned: whether the values are whole numbers from 0 on.
        note: what is done to such files, in a few words; empty for nothing.
    """

    width: int
    height: int
    channels: int
    orientation: int = 1
    bits: int = 8
    unsigned: bool = True
    note: str = ""

    @property
    def exif_rotated(self) -> bool:
        """Whether the EXIF tag says that the stored pixels must be rotated or mirrored."""
        return self.orientation != 1

    @property
    def deep(self) -> bool:
        """Whether the values are no bytes."""
        return self.bits > 8 or not self.unsigned


def read_header(source: Path | BytesIO) -> Header:
    """Read only the header of an image file.

    Raises:
        UnreadableImage: the file is empty, too large or not an image.
    """
    found = value_header(source)
    if found is not None:
        width, height = upright_size((found.width, found.height), found.orientation)
        kind = (found.channels, found.orientation, found.bits, found.unsigned, found.note)
        return Header(int(width), int(height), *kind)
    with open_image(source) as image:
        width, height = upright_size(image.size, orientation_of(image))
        channels = 1 if image.mode in GREY else 3
        return Header(int(width), int(height), channels, stored_orientation(image), note=frames_note(image))


def highest_value(source: Path | BytesIO) -> int:
    """Return the highest value of an image file of whole numbers with more than 8 bits, before it is scaled.

    Raises:
        UnreadableImage: the file is damaged.
    """
    found = read_values(source)
    return 0 if found is None else int(found[1].max())


def crop_and_resize(
    image: Image.Image,
    size: Size,
    box: Box | None = None,
    side: int | tuple[int, int] | None = None,
    extent: tuple[float, float] | None = None,
    orientation: int = 1,
) -> Pixels:
    """Return a crop of an image, the central part by default; see `read_image`.

    Args:
        image: the stored pixels, grey or RGB, or 32-bit floats.
        size: the shape that images are brought to.
        box: the crop of the upright image.
        side: height and width that the crop is resized to.
        extent: the part of the width and height that shows something; all of them by default.
        orientation: EXIF's; only the result is transposed.

    Returns:
        (height, width, C) uint8 or float32.
    """
    fit, stored = Fit.of(size), extent or image.size
    if fit.how == "letterbox":
        return crop_array(_letterboxed(image, fit, stored, orientation), replace(fit, how="stretch"), box, side)
    upright = upright_size(stored, orientation)
    top, left, height, width = box_in_pixels(*upright, fit, box)
    tall, wide = _sides(fit, box, side)
    ((top, left, bottom, right),) = stored_corners([(top, left, top + height, left + width)], upright, orientation)
    bounds = (max(0.0, left), max(0.0, top), min(stored[0], right), min(stored[1], bottom))
    target = (tall, wide) if orientation in SIDEWAYS else (wide, tall)
    if bounds != (0, 0, *target) or image.size != target:
        image = image.resize(target, Image.Resampling.BILINEAR, box=bounds, reducing_gap=float(SPARE))
    pixels = np.asarray(transpose(image, orientation))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _sides(fit: Fit, box: Box | None, side: int | tuple[int, int] | None) -> tuple[int, int]:
    """Return the height and the width of a result."""
    if side is not None:
        return (side, side) if isinstance(side, int) else side
    if box is None:
        return fit.shape
    return round(box[2]), round(box[2] if fit.height == fit.width else box[3])


def _letterboxed(image: Image.Image, fit: Fit, stored: tuple[float, float], orientation: int) -> Pixels:
    """Return a whole image within the shape, between bars of its lowest value."""
    width, height = upright_size(stored, orientation)
    (own, wanted), _ = fit.per_pixel(width, height)
    inner = max(1, min(fit.height, round(height * wanted / own))), max(1, min(fit.width, round(width * wanted / own)))
    pixels = crop_and_resize(image, Fit(*inner, "stretch"), extent=stored, orientation=orientation)
    found = np.full((*fit.shape, pixels.shape[2]), pixels.min(axis=(0, 1)) if pixels.dtype != np.uint8 else 0)
    found = found.astype(pixels.dtype)
    top, left = (fit.height - inner[0]) // 2, (fit.width - inner[1]) // 2
    found[top : top + inner[0], left : left + inner[1]] = pixels
    return found


def box_in_pixels(width: float, height: float, size: Size, box: Box | None = None) -> Box:
    """Return a box, the central part by default, in pixels of the image's own size.

    Args:
        width: of the image in its own pixels.
        height: of the image in its own pixels.
        size: the shape that images are brought to, in whose pixels the box counts.
    """
    fit = Fit.of(size)
    (down, tall), (across, wide) = fit.per_pixel(width, height)
    if box is None:
        part = fit.height * down / tall, fit.width * across / wide
        return (height - part[0]) / 2, (width - part[1]) / 2, *part
    top, left, high, broad = box
    return top * down / tall, left * across / wide, high * down / tall, broad * across / wide


def resize_array(pixels: Pixels, size: Size) -> Pixels:
    """Return an array (H, W, C) uint8 or float32 brought to one shape; C may be any number."""
    if pixels.shape[:2] == Fit.of(size).shape:
        return pixels
    return crop_array(pixels, size)


def crop_array(pixels: Pixels, size: Size, box: Box | None = None, side: int | tuple[int, int] | None = None) -> Pixels:
    """Return a crop of an array (H, W, C) uint8 or float32, where C may be any number; see `read_image`."""
    images = (Image.fromarray(np.ascontiguousarray(pixels[..., c])) for c in range(pixels.shape[2]))
    return np.concatenate([crop_and_resize(image, size, box, side) for image in images], axis=-1)


def convert_channels(pixels: Pixels, channels: int) -> Pixels:
    """Convert (H, W, C) to 1 channel by luma, or to 3 by repetition; arrays with another C stay as they are."""
    if pixels.shape[-1] == 1 and channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    if pixels.shape[-1] == 3 and channels == 1:
        if pixels.dtype != np.uint8:
            return pixels @ np.array(LUMA, pixels.dtype)[:, None]
        return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    return pixels


def misfit(header: "Header | ValueFile", channels: int, deep: bool) -> str:
    """Return why an image with this header cannot be what is wanted; empty if it can.

    Args:
        header: of the file.
        channels: that are wanted.
        deep: whether values of more than 8 bits are wanted as they are.
    """
    if header.channels != channels and {header.channels, channels} != {1, 3}:
        return f"it has {header.channels} channels, and {channels} are expected"
    plain = header.unsigned and header.bits <= 8
    if deep and plain:
        return f"it has {header.bits} bits, and images with more are expected: their numbers are on another scale"
    if not deep and not plain and (not header.unsigned or header.bits > MOST_BITS):
        return (
            f"its values of {header.bits} bits have no known range, and a model of 8-bit images needs one; a model "
            "that is trained on such files takes them as they are"
        )
    return ""


def _check(header: "Header | ValueFile", channels: int, deep: bool) -> None:
    """Raise `UnreadableImage` if an image with this header is not what is wanted."""
    if why := misfit(header, channels, deep):
        raise UnreadableImage(why)


def _as_asked(header: ValueFile, values: np.ndarray, channels: int, deep: bool) -> Pixels:
    """Return the values of a file as float32, or scaled to uint8, in the wanted number of channels.

    Raises:
        UnreadableImage: they have no known range, or other channels or bits are wanted.
    """
    _check(header, channels, deep)
    if deep:
        if values.dtype.itemsize > 4 and np.abs(values).max() > np.finfo(np.float32).max:
            raise UnreadableImage("its values are larger than 32-bit floats can be")
        pixels = values.astype(np.float32)
    elif header.bits == 8:
        pixels = values
    else:
        pixels = np.rint(values.astype(np.float32) * np.float32(255 / (2**header.bits - 1))).astype(np.uint8)
    return convert_channels(pixels, channels)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Return stored pixels (H, W, C) as an EXIF orientation displays them."""
    if orientation in (5, 7):
        pixels = pixels.transpose(1, 0, 2)
    mirrored = {2: (1,), 3: (0, 1), 4: (0,), 7: (0, 1)}.get(orientation, ())
    return np.rot90(np.flip(pixels, mirrored), {6: -1, 8: 1}.get(orientation, 0))


def _eight_bit(image: Image.Image, channels: int) -> Image.Image:
    """Return decoded pixels as grey or RGB with 8 bits.

    Raises:
        UnreadableImage: there is no rule for their colours.
    """
    mode = "L" if channels == 1 else "RGB"
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    try:
        return image if image.mode == mode else image.convert(mode)
    except ValueError:
        raise UnreadableImage(f"its colours are of a kind that is not read ({image.mode}); save it in RGB") from None
