"""Turning picture files without a loss: by their EXIF tag, or by their pixels where no codec loses any."""

import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from rotnet_keras.images import UnreadableImage
from rotnet_keras.runs import write_atomically

TAG = int(ExifTags.Base.Orientation)
SHORT = 3
EXIF = b"Exif\0\0"
# Markers of a JPEG file: its start, JFIF's and EXIF's segments, the beginning of the picture itself.
START, APP0, APP1, SCAN = 0xD8, 0xE0, 0xE1, 0xDA
MOST_BYTES = 65_535
# Formats whose files hold the same pixels however often they are written.
LOSSLESS = ("PNG", "BMP")
# What Pillow reads of them and writes again where it is told to.
KEPT = ("dpi", "icc_profile", "transparency", "gamma")


def composed(orientation: int, quarters: int) -> int:
    """The EXIF orientation that shows a picture turned further.

    Args:
        orientation: 1 to 8, what it has.
        quarters: turns by 90 degrees, counter-clockwise, of what is seen.
    """
    shown = np.rot90(_as_shown(orientation), quarters)
    return next(o for o in range(1, 9) if np.array_equal(_as_shown(o), shown))


def turn_by_exif(file: Path, quarters: int) -> None:
    """Make a JPEG file be shown turned, its picture and all other metadata to the byte what they were.

    Raises:
        UnreadableImage: it is no JPEG file, or its EXIF data are damaged.
        OSError: it cannot be written; it is as it was.
    """
    content = file.read_bytes()
    with Image.open(BytesIO(content)) as image:
        if image.format != "JPEG":
            raise UnreadableImage(f"it is no JPEG file but {image.format}: --write pixels turns PNG and BMP files")
        orientation = image.getexif().get(TAG, 1)
    write_atomically(file, with_orientation(content, composed(orientation, quarters)))


def turn_pixels(file: Path, quarters: int) -> None:
    """Turn the pixels of a PNG or BMP file, those that its EXIF tag says included.

    Raises:
        UnreadableImage: it is a file of another kind, which loses something each time it is written.
        OSError: it cannot be written; it is as it was.
    """
    with Image.open(file) as image:
        if image.format not in LOSSLESS:
            raise UnreadableImage(f"turning the pixels of {image.format} loses some: --write exif turns JPEG files")
        kept: dict[str, Any] = {key: image.info[key] for key in KEPT if key in image.info}
        if texts := getattr(image, "text", {}):
            kept["pnginfo"] = PngInfo()
            for key, value in texts.items():
                kept["pnginfo"].add_text(key, value)
        upright = ImageOps.exif_transpose(image)
        turns = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}
        turned = upright.transpose(turns[quarters % 4]) if quarters % 4 else upright
        written = BytesIO()
        turned.save(written, image.format, exif=upright.getexif(), **kept)
    write_atomically(file, written.getvalue())


def with_orientation(content: bytes, orientation: int) -> bytes:
    """A JPEG file's bytes with another EXIF orientation.

    Raises:
        UnreadableImage: its segments or its EXIF data are damaged, or there is no room left in them.
    """
    try:
        after = 2
        for marker, start, end in _segments(content):
            if marker == APP1 and content[start + 4 : start + 4 + len(EXIF)] == EXIF:
                tiff = _with_tag(content[start + 4 + len(EXIF) : end], orientation)
                return content[:start] + _segment(EXIF + tiff) + content[end:]
            if marker == APP0:
                after = end
        tiff = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, TAG, SHORT, 1, orientation, 0, 0)
        return content[:after] + _segment(EXIF + tiff) + content[after:]
    except (struct.error, IndexError):
        raise UnreadableImage("its EXIF data are damaged") from None


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, first and last byte (exclusive) of the segments before the picture."""
    position = 2
    while content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker == SCAN:
            return
        (length,) = struct.unpack_from(">H", content, position + 2)
        yield marker, position, position + 2 + length
        position += 2 + length
    raise IndexError


def _segment(data: bytes) -> bytes:
    if len(data) + 2 > MOST_BYTES:
        raise UnreadableImage("its EXIF data have no room for an orientation")
    return struct.pack(">BBH", 0xFF, APP1, len(data) + 2) + data


def _with_tag(tiff: bytes, orientation: int) -> bytes:
    """EXIF data with the tag's value changed where it is, or else with a new first directory at their end."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        raise IndexError
    (first,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, first)
    entries = [tiff[first + 2 + 12 * n : first + 14 + 12 * n] for n in range(count)]
    following = tiff[first + 2 + 12 * count : first + 6 + 12 * count]
    ours = struct.pack(f"{order}HHIHH", TAG, SHORT, 1, orientation, 0)
    for number, entry in enumerate(entries):
        if struct.unpack_from(f"{order}H", entry)[0] == TAG:
            place = first + 2 + 12 * number
            return tiff[:place] + ours + tiff[place + 12 :]
    entries = sorted([*entries, ours], key=lambda entry: struct.unpack_from(f"{order}H", entry)[0])
    padding = b"\0" * (len(tiff) % 2)
    directory = struct.pack(f"{order}H", count + 1) + b"".join(entries) + following.ljust(4, b"\0")
    header = tiff[:4] + struct.pack(f"{order}I", len(tiff) + len(padding))
    return header + tiff[8:] + padding + directory


def _as_shown(orientation: int) -> np.ndarray:
    """Six pixels in two rows as an orientation shows them."""
    stored = np.arange(6).reshape(2, 3)
    return {
        1: stored,
        2: np.fliplr(stored),
        3: np.rot90(stored, 2),
        4: np.flipud(stored),
        5: stored.T,
        6: np.rot90(stored, -1),
        7: np.rot90(stored, 2).T,
        8: np.rot90(stored, 1),
    }.get(orientation, stored)
