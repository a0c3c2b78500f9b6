"""Opening image files: the one place where Pillow is given a file that others have made.

Only the documented formats are tried, what is not a regular file is not opened, and budgets of pixels and of a JPEG's
scans are checked before anything is decoded.
"""

import os
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from rotnet_keras.data.layout import PILLOW_FORMATS
from rotnet_keras.errors import DataError
from rotnet_keras.files import open_file

# What Pillow may open. It knows other formats, of which one starts a program: PostScript's.
FORMATS = tuple(name.upper() for name in PILLOW_FORMATS)
FORMATS_TEXT = " or ".join(", ".join(PILLOW_FORMATS).rsplit(", ", 1))
# What Pillow calls a JPEG file, and one that holds several images, as phones write them.
JPEGS = ("JPEG", "MPO")

# What is read of a file of several images, for people.
FIRST_ONLY = "files of several pages or frames, of which the first is read"

# Environment variables that raise the budgets.
PIXELS_VARIABLE, SCANS_VARIABLE = "ROTNET_MAX_PIXELS", "ROTNET_MAX_SCANS"
# The pixels that are decoded of an image; a JPEG may have twice as many, since it can be decoded at a part of its size.
MAX_PIXELS, JPEG_FACTOR = 89_478_485, 2
# Bytes of a file for each pixel that may be decoded: 16 bits for each of four channels, and half as much for the rest.
BYTES_PER_PIXEL = 12
# Scans of a progressive JPEG: each goes over the whole image. Cameras and programs write up to some twenty.
MAX_SCANS = 100
# Images with more pixels are decoded one after another, so that several cores do not need several times their memory.
LARGE_PIXELS = 20_000_000
# Bytes of a file that are searched at once.
PIECE = 1 << 16

# EXIF orientations, and how Pillow transposes the stored pixels of each into the upright ones.
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Orientations that exchange width and height.
SIDEWAYS = (5, 6, 7, 8)
# Which orientation undoes another one, where it is not itself.
INVERSES = {6: 8, 8: 6}

_one_large_image = threading.Lock()

# Pillow warns of damage that it passes over, such as that of EXIF data, in words that help nobody.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# NumPy warns of array files that Python 2 wrote, which are read as all others.
warnings.filterwarnings("ignore", message=r"Reading `\.npy` or `\.npz` file")


class UnreadableImage(Exception):
    """An image file that cannot be used; the message says why."""


def _budget(variable: str, default: int) -> int:
    """Return a budget: a number from the environment, or the default.

    Raises:
        DataError: the environment's is no whole number above 0.
    """
    text = os.environ.get(variable)
    if text is None:
        return default
    text = text.replace("_", "").replace(",", "")
    if not text.isascii() or not text.isdigit() or not int(text):
        raise DataError(f"{variable}: expected a whole number above 0, got {os.environ[variable]!r}")
    return int(text)


def max_bytes() -> int:
    """Return the bytes that an image file may have.

    Raises:
        DataError: an environment variable that should be a number is none.
    """
    return BYTES_PER_PIXEL * _budget(PIXELS_VARIABLE, MAX_PIXELS)


@contextmanager
def open_image(source: Path | BytesIO) -> Iterator[ImageFile.ImageFile]:
    """Open an image file and read its header.

    Args:
        source: the file, or its bytes.

    Raises:
        UnreadableImage: the file is missing, empty, not a regular file, too large or not an image.
        DataError: an environment variable that should be a number is none.
    """
    limit = _budget(PIXELS_VARIABLE, MAX_PIXELS)
    with opened(source) as file:
        image = _identified(source, file, limit)
        with image:
            _check_pixels(image.width * image.height, limit * (JPEG_FACTOR if image.format in JPEGS else 1))
            yield image


def frames_note(image: Image.Image) -> str:
    """Say that only the first image of a file is read; empty if it has one, or smaller copies, as phones write them."""
    several = image.format not in JPEGS and getattr(image, "is_animated", False)
    return FIRST_ONLY if several else ""


@contextmanager
def opened(source: Path | BytesIO) -> Iterator[BinaryIO]:
    """Open a file of an image, whatever it holds.

    Raises:
        UnreadableImage: the file is missing, not a regular file or too large.
    """
    if isinstance(source, BytesIO):
        yield source
        return
    try:
        file = open_file(source)
    except OSError as error:
        raise UnreadableImage(error.strerror or str(error)) from None
    with file:
        check_bytes(os.fstat(file.fileno()).st_size)
        yield file


def check_bytes(size: int) -> None:
    """Raise `UnreadableImage` if an encoded image has more bytes than may be read."""
    if size > (limit := max_bytes()):
        raise UnreadableImage(
            f"it has {size:,} bytes, which is too many for an image: at most {limit:,} are read; set the "
            f"environment variable {PIXELS_VARIABLE} to {-(-size // BYTES_PER_PIXEL)} to read it"
        )


def _identified(source: Path | BytesIO, file: BinaryIO, limit: int) -> ImageFile.ImageFile:
    # Pillow's own limit is twice this number.
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit
    try:
        return Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        number = re.search(r"\d+", str(error))
        raise UnreadableImage(_too_many(int(number[0]) if number else 0, limit)) from None
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files.
        raise UnreadableImage(_reason(source, file, error)) from None


def check_values(count: int) -> None:
    """Raise `UnreadableImage` if an image has more values, over all channels, than pixels may be decoded."""
    _check_pixels(count, _budget(PIXELS_VARIABLE, MAX_PIXELS), "values in all channels")


@contextmanager
def one_large(pixels: int) -> Iterator[None]:
    """Wait, if an image is large, until no other large one is in such a block."""
    with _one_large_image if pixels > LARGE_PIXELS else threading.Lock():
        yield


def _check_pixels(count: int, limit: int, what: str = "pixels") -> None:
    if count > limit:
        raise UnreadableImage(_too_many(count, limit, what))


def _too_many(count: int, limit: int, what: str = "pixels") -> str:
    return (
        f"it has {count:,} {what}, which is too many: at most {limit:,} are decoded; make a smaller copy of it, or set "
        f"the environment variable {PIXELS_VARIABLE} to {count}"
    )


def _reason(source: Path | BytesIO, file: BinaryIO, error: Exception) -> str:
    file.seek(0)
    beginning = file.read(4)
    if not beginning:
        return "it is empty" if isinstance(source, BytesIO) else "the file is empty"
    if isinstance(error, UnidentifiedImageError) and beginning in (b"II*\0", b"MM\0*"):
        return "a TIFF file of a kind that is not read, such as one of many bands; put its pixels into an .npz file"
    if isinstance(error, UnidentifiedImageError):
        return f"it is not an image, or damaged: expected {FORMATS_TEXT}"
    return str(error) or type(error).__name__


@contextmanager
def decoded(image: ImageFile.ImageFile) -> Iterator[None]:
    """Decode an open image, perhaps after `Image.draft`, for the block.

    A large one waits until no other large one is in such a block.

    Args:
        image: from `open_image`; its pixels are there in the block.

    Raises:
        UnreadableImage: the image is damaged, truncated, or has more pixels or scans than may be decoded.
    """
    pixels = image.width * image.height
    _check_pixels(pixels, _budget(PIXELS_VARIABLE, MAX_PIXELS))
    if image.format in JPEGS:
        _check_scans(image)
    with one_large(pixels):
        try:
            image.load()
        except Exception as error:  # Pillow's decoders raise nearly anything on damaged files.
            raise UnreadableImage(str(error) or type(error).__name__) from None
        yield


def _check_scans(image: ImageFile.ImageFile) -> None:
    """Raise `UnreadableImage` if a JPEG file has more scans than may be decoded."""
    limit = _budget(SCANS_VARIABLE, MAX_SCANS)
    assert image.fp is not None
    count = _count_scans(image.fp, limit)
    if count > limit:
        raise UnreadableImage(
            f"it has {count:,} scans, which would take long to decode: at most {limit} are; save it anew, or set the "
            f"environment variable {SCANS_VARIABLE} to {count}"
        )


def _count_scans(file: IO[bytes], enough: int) -> int:
    """Count the scans of the first image of a JPEG file; at most `enough` without looking closely."""
    place = file.tell()
    file.seek(0)
    # Within a scan, the byte FF is always followed by 0 or by a restart marker. Previews have scans too.
    count, last = 0, b""
    while piece := file.read(PIECE):
        count += (last + piece).count(b"\xff\xda")
        last = piece[-1:]
    if count > enough:
        file.seek(0)
        count = _count_closely(file.read())
    file.seek(place)
    return count


def _count_closely(content: bytes) -> int:
    count, position = 0, 2
    marker = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")
    while found := marker.search(content, position):
        position = found.end()
        if found[0] == b"\xff\xd9":
            break
        count += found[0] == b"\xff\xda"
        # The segment's own content, such as a preview, is passed over.
        position += int.from_bytes(content[position : position + 2], "big")
    return count


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation that the pixels of an open image have yet to be given: 1 to 8.

    1, which is upright, where there is none, or what is no whole number from 1 to 8, as other programs take it.
    """
    # Pillow transposes TIFF files itself while it decodes them.
    return 1 if image.format == "TIFF" else stored_orientation(image)


def stored_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation in an open image file, 1 to 8; 1 where there is none, or none that makes sense."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Damaged EXIF data raise nearly anything.
        return 1
    return value if type(value) is int and 1 <= value <= 8 else 1


def transpose(image: Image.Image, orientation: int) -> Image.Image:
    """Return stored pixels as an EXIF orientation displays them."""
    return image if orientation == 1 else image.transpose(TRANSPOSES[orientation])


def upright_size(size: tuple[float, float], orientation: int) -> tuple[float, float]:
    """Return width and height of an image, given those of the stored pixels."""
    return size[::-1] if orientation in SIDEWAYS else size


def upright_corners(
    corners: Sequence[Sequence[float]] | np.ndarray, size: tuple[float, float], orientation: int
) -> np.ndarray:
    """Return boxes on stored pixels as boxes on the upright image.

    Args:
        corners: (n, 4) top, left, bottom, right, from 0 on.
        size: width and height of the stored pixels.
        orientation: EXIF's, 1 to 8.

    Returns:
        (n, 4) float64.
    """
    (width, height), array = size, np.asarray(corners, np.float64).reshape(-1, 4)
    top, left, bottom, right = array.T
    sides = {
        1: (top, left, bottom, right),
        2: (top, width - right, bottom, width - left),
        3: (height - bottom, width - right, height - top, width - left),
        4: (height - bottom, left, height - top, right),
        5: (left, top, right, bottom),
        6: (left, height - bottom, right, height - top),
        7: (width - right, height - bottom, width - left, height - top),
        8: (width - right, top, width - left, bottom),
    }
    return np.stack(sides[orientation], axis=1)


def stored_corners(
    corners: Sequence[Sequence[float]] | np.ndarray, size: tuple[float, float], orientation: int
) -> np.ndarray:
    """Return boxes on the upright image, whose width and height are `size`, as boxes on the stored pixels."""
    return upright_corners(corners, size, INVERSES.get(orientation, orientation))
