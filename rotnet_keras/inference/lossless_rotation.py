"""Turning picture files without a loss: by their EXIF tag, or by their pixels where no codec loses any."""

import os
import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from rotnet_keras.data.decoding import UnreadableImage
from rotnet_keras.files import write_atomically

TAG = int(ExifTags.Base.Orientation)
SHORT = 3
EXIF = b"Exif\0\0"
# Markers of a JPEG file: its start, JFIF's and EXIF's segments, the beginning of the picture itself.
START, APP0, APP1, SCAN = 0xD8, 0xE0, 0xE1, 0xDA
MOST_BYTES = 65_535
# As Pillow calls a JPEG file, and one of several pictures, which phones write.
JPEGS = ("JPEG", "MPO")
# Formats whose files hold the same pixels however often they are written.
LOSSLESS = ("PNG", "BMP")
# PNG's chunks that Pillow writes by itself; all others are handed on.
WRITTEN = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"pHYs", b"eXIf")
PNG_HEADER = 8


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
        if image.format not in JPEGS:
            raise UnreadableImage(f"it is no JPEG file but {image.format}: --write pixels turns PNG and BMP files")
        several = image.format == "MPO"
        orientation = composed(image.getexif().get(TAG, 1), quarters)
    turned = with_orientation(content, orientation)
    if several and len(turned) != len(content):
        raise UnreadableImage("it holds several pictures and no orientation that could be changed")
    with Image.open(BytesIO(turned)) as image:
        if image.getexif().get(TAG) != orientation:
            raise UnreadableImage("its EXIF data are damaged")
    _replace(file, turned)


def turn_pixels(file: Path, quarters: int) -> None:
    """Turn the pixels of a PNG or BMP file, those that its EXIF tag says included; what was written is compared.

    Raises:
        UnreadableImage: turning it would lose something, as it does each time with files of other kinds.
        OSError: it cannot be written; it is as it was.
    """
    content, written = file.read_bytes(), BytesIO()
    with Image.open(BytesIO(content)) as image:
        if image.format not in LOSSLESS:
            raise UnreadableImage(f"turning the pixels of {image.format} loses some: --write exif turns JPEG files")
        if getattr(image, "is_animated", False):
            raise UnreadableImage("it is an animation, of which only the first picture would be left")
        kept: dict[str, Any] = {key: image.info[key] for key in ("dpi", "icc_profile") if key in image.info}
        upright = ImageOps.exif_transpose(image)
        if image.format == "PNG":
            kept |= {"pnginfo": _kept(content), "exif": upright.getexif()}
        turns = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}
        turned = upright.transpose(turns[quarters % 4]) if quarters % 4 else upright
        if "dpi" in kept and turned.size != image.size:
            kept["dpi"] = kept["dpi"][::-1]
        turned.save(written, image.format, **kept)
    if not np.array_equal(_seen(written.getvalue()), np.rot90(_seen(content), quarters)):
        raise UnreadableImage("it cannot be turned without a loss")
    _replace(file, written.getvalue())


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


def _kept(content: bytes) -> PngInfo:
    """What a PNG file holds besides its picture, as it is stored.

    Raises:
        UnreadableImage: its colours have 16 bits, of which Pillow reads 8.
    """
    kept, position, name, after = PngInfo(), PNG_HEADER, b"", False
    while name != b"IEND" and position + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, position)
        data = content[position + 8 : position + 8 + length]
        if name == b"IHDR" and data[8] == 16 and data[9] != 0:
            raise UnreadableImage("it has colours of 16 bits, of which 8 would be lost")
        if name not in WRITTEN:
            kept.add(name, data, after)
        after |= name == b"IDAT"
        position += length + 12
    return kept


def _seen(content: bytes) -> np.ndarray:
    """The pixels of a PNG or BMP file as they are seen, with their opacity where it has one."""
    with Image.open(BytesIO(content)) as image:
        upright = ImageOps.exif_transpose(image)
        return np.asarray(upright if upright.mode.startswith("I") else upright.convert("RGBA"))


def _replace(file: Path, content: bytes) -> None:
    """Write a file anew, at its own place where it is a link; one that is protected is left alone."""
    own = file.resolve()
    if not (own.stat().st_mode & 0o222 and os.access(own, os.W_OK)):
        raise PermissionError("it is read-only")
    write_atomically(own, content)


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
