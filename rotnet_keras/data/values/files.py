"""Reading the values of image files that are no plain 8-bit images: TIFF, PNG with 16 bits, .npy and DICOM.

Such files keep their bits: what is returned are the numbers in the file.
"""

import math
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rotnet_keras.data.image_files import (
    FIRST_ONLY,
    UnreadableImage,
    check_values,
    one_large,
    open_image,
    opened,
    stored_orientation,
)
from rotnet_keras.data.values import tiff

PNG, NPY, DICOM = b"\x89PNG\r\n\x1a\n", b"\x93NUMPY", b"DICM"
# Where a DICOM file says that it is one, and where a PNG file has its bit depth and its kind of colours.
DICOM_PLACE, PNG_DEPTH = 128, 24
BEGINNING = DICOM_PLACE + len(DICOM)
GREY_ALPHA, RGB_ALPHA = 4, 6
# An .npy file's header is shorter.
MAX_NPY_HEADER = 10_000
# An image has fewer channels, unless its axes are in another order.
MOST_CHANNELS = 4096


@dataclass(frozen=True)
class ValueFile:
    """An image file of values, of which only the header was read.

    Attributes:
        width, height: of the stored image, in pixels.
        channels: without alpha.
        bits: of a value, as the file says.
        unsigned: whether the values are whole numbers from 0 to 2 ** bits - 1.
        orientation: EXIF's, 1 to 8.
        read: returns the values (H, W, C).
        note: what is done to such files, in a few words; empty for nothing.
    """

    width: int
    height: int
    channels: int
    bits: int
    unsigned: bool
    orientation: int
    read: Callable[[BinaryIO], np.ndarray]
    note: str = ""

    @property
    def plain(self) -> bool:
        """Whether the values are bytes."""
        return self.unsigned and self.bits <= 8


def value_header(source: Path | BytesIO) -> ValueFile | None:
    """Return what the header of an image file of values says; None for a file that Pillow reads as it is.

    Raises:
        UnreadableImage: the file is damaged, too large, or of a kind that is not read.
    """
    with opened(source) as file:
        return _header(source, file)


def read_values(source: Path | BytesIO) -> tuple[ValueFile, np.ndarray] | None:
    """Return the header of an image file of values, and the values (H, W, C); None for a file that Pillow reads.

    Raises:
        UnreadableImage: the file is damaged, too large, or of a kind that is not read, or values are no numbers.
    """
    with opened(source) as file:
        header = _header(source, file)
        if header is None:
            return None
        with one_large(header.width * header.height * header.channels):
            values = header.read(file)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                count = int((~np.isfinite(values)).sum())
                raise UnreadableImage(
                    f"{count:,} of its {values.size:,} values are no finite numbers (NaN or infinite); replace them by "
                    "a number"
                )
            return header, values


def _header(source: Path | BytesIO, file: BinaryIO) -> ValueFile | None:
    file.seek(0)
    beginning = file.read(BEGINNING)
    file.seek(0)
    # A DICOM file may begin as a TIFF file.
    if beginning[DICOM_PLACE:] == DICOM:
        from rotnet_keras.data.values.dicom import dicom_header

        header: ValueFile | None = dicom_header(file)
    elif beginning[:4] in tiff.MAGICS:
        header = _tiff(file)
    elif beginning.startswith(PNG) and beginning[PNG_DEPTH : PNG_DEPTH + 1] == b"\x10":
        header = _png(source)
    elif beginning.startswith(NPY):
        header = _npy(file)
    else:
        return None
    file.seek(0)
    if header is not None:
        check_values(header.width * header.height * header.channels)
    return header


def _tiff(file: BinaryIO) -> ValueFile | None:
    found = tiff.read_pages(file)
    if found is None:
        return None
    pages, left_out = found
    first = pages[0]
    return ValueFile(
        first.width,
        first.height,
        len(pages) * (first.samples - bool(first.alpha)),
        first.bits,
        first.kind == tiff.UNSIGNED,
        first.orientation,
        lambda file: tiff.read_values(file, pages),
        FIRST_ONLY if left_out else "",
    )


def _png(source: Path | BytesIO) -> ValueFile:
    with open_image(source) as image:
        channels = 1 if image.mode.startswith("I") or "LA" in str(image.tile[0].args) else 3
        width, height = image.size
        orientation = stored_orientation(image)
    return ValueFile(width, height, channels, 16, True, orientation, _png_values)


def _png_values(file: BinaryIO) -> np.ndarray:
    """Return the values (H, W, C) uint16 of a PNG file of 16 bits, of which Pillow returns 8 if it has colours."""
    content = file.read()
    colours = content[PNG_DEPTH + 1]
    if colours == GREY_ALPHA:
        # The four bytes of a pixel are those of an 8-bit one with colours and alpha.
        fields = content[16:PNG_DEPTH] + bytes([8, RGB_ALPHA]) + content[PNG_DEPTH + 2 : 29]
        checked = b"IHDR" + fields
        content = content[:12] + checked + struct.pack(">I", zlib.crc32(checked)) + content[33:]
        values = _decode(content).view(">u2").astype(np.uint16)
    else:
        high = _decode(content)
        if high.dtype.itemsize > 1:
            return high.astype(np.uint16)[..., None]
        # Read with the bytes of each value exchanged, it is the lower 8 bits that are returned.
        values = high.astype(np.uint16) << 8 | _decode(content, "L")
    if values.shape[2] in (2, 4):
        share = values[..., -1:].astype(np.float64) / 65535
        values = np.rint(values[..., :-1] * share + 65535 * (1 - share)).astype(np.uint16)
    return values


def _decode(content: bytes, order: str = "") -> np.ndarray:
    with open_image(BytesIO(content)) as image:
        if order:
            image.tile = [tile._replace(args=str(tile.args)[:-1] + order) for tile in image.tile]
        try:
            image.load()
        except Exception as error:  # Pillow's decoders raise nearly anything on damaged files.
            raise UnreadableImage(str(error) or type(error).__name__) from None
        return np.asarray(image)


def _npy(file: BinaryIO) -> ValueFile:
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file, max_header_size=MAX_NPY_HEADER)
    except Exception as error:  # A damaged header raises nearly anything.
        raise UnreadableImage(f"its header is damaged: {str(error).splitlines()[0]}") from None
    start = file.tell()
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise UnreadableImage(f"an array of the type {dtype}: expected whole or floating-point numbers")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise UnreadableImage(f"an array of the shape {shape}: expected one image, (H, W) or (H, W, C)")
    if len(shape) == 3 and (shape[0] <= 4 < min(shape[1:]) or shape[2] > MOST_CHANNELS):
        raise UnreadableImage(f"an array of the shape {shape} looks like (C, H, W): save it as x.transpose(1, 2, 0)")

    def values(file: BinaryIO) -> np.ndarray:
        count = math.prod(shape)
        # Memory of the size that is asked for is taken before anything is read.
        if file.seek(0, os.SEEK_END) < start + count * dtype.itemsize:
            raise UnreadableImage("the file is truncated")
        file.seek(start)
        content = file.read(count * dtype.itemsize)
        found = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
        return found.astype(dtype.newbyteorder("="), copy=False).reshape(shape[0], shape[1], -1)

    bits = 1 if dtype.kind == "b" else 8 * dtype.itemsize
    channels = shape[2] if len(shape) == 3 else 1
    return ValueFile(shape[1], shape[0], channels, bits, dtype.kind in "bu", 1, values)
