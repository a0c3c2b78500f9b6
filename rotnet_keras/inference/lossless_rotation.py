"""Lossless rotation of image files: by the EXIF orientation of a JPEG, or by the pixels of a PNG or BMP."""

import os
import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from rotnet_keras.data.image_files import JPEGS, UnreadableImage, decoded, open_image, stored_orientation, transpose
from rotnet_keras.files import open_file, write_atomically

TAG = int(ExifTags.Base.Orientation)
SHORT = 3
EXIF = b"Exif\0\0"
# Markers of a JPEG file: its start, the segments of JFIF and EXIF, and the start of the compressed image.
START, APP0, APP1, SCAN = 0xD8, 0xE0, 0xE1, 0xDA
# Bytes of a JPEG segment, at most, with its length field.
MAX_SEGMENT_BYTES = 65_535
# Formats that store pixels exactly.
LOSSLESS = ("PNG", "BMP")
# PNG chunks that Pillow writes by itself; all others are copied.
WRITTEN_BY_PILLOW = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"pHYs", b"eXIf")
PNG_HEADER = 8


def compose_orientation(orientation: int, quarters: int) -> int:
    """The EXIF orientation that shows an image rotated further.

    Args:
        orientation: the present one, 1 to 8.
        quarters: how many times to rotate the displayed image by 90 degrees, counter-clockwise.
    """
    displayed = np.rot90(_displayed(orientation), quarters)
    return next(o for o in range(1, 9) if np.array_equal(_displayed(o), displayed))


def rotate_by_exif(file: Path, quarters: int) -> None:
    """Rotate a JPEG file by changing its EXIF orientation; the compressed image stays as it is, byte for byte.

    Other metadata are kept too. A file without EXIF data gets a segment for the orientation.

    Args:
        file: replaced atomically. A symbolic link stays one, and the file that it names is replaced.
        quarters: how many times to rotate it by 90 degrees, counter-clockwise; negative numbers rotate clockwise.

    Raises:
        UnreadableImage: the file is no JPEG, its EXIF data are damaged, or they cannot hold the orientation.
        OSError: the file cannot be written, or is read-only. Whatever is raised, the file is unchanged.

    Example:
        ```python
        from pathlib import Path

        from rotnet_keras.inference.lossless_rotation import rotate_by_exif

        rotate_by_exif(Path("photo.jpg"), -1)  # 90 degrees clockwise
        ```
    """
    content = _content(file)
    with open_image(BytesIO(content)) as image:
        if image.format not in JPEGS:
            raise UnreadableImage(f"expected a JPEG file, got {image.format}: --write pixels rotates PNG and BMP files")
        has_several_images = image.format == "MPO"
        orientation = compose_orientation(stored_orientation(image), quarters)
    rotated = with_orientation(content, orientation)
    # The index of such a file counts bytes.
    if has_several_images and len(rotated) != len(content):
        raise UnreadableImage("the file holds several images and has no EXIF orientation to change")
    with open_image(BytesIO(rotated)) as image:
        if stored_orientation(image) != orientation:
            raise UnreadableImage("the EXIF data are damaged")
    _replace(file, rotated)


def rotate_pixels(file: Path, quarters: int) -> None:
    """Rotate the pixels of a PNG or BMP file.

    An EXIF orientation is applied to the pixels and removed. The new file is decoded and compared before it replaces
    the old one.

    Args:
        file: replaced atomically. A symbolic link stays one, and the file that it names is replaced.
        quarters: how many times to rotate it by 90 degrees, counter-clockwise; negative numbers rotate clockwise.

    Raises:
        UnreadableImage: the format is another one, or rotating the file would lose something.
        OSError: the file cannot be written, or is read-only. Whatever is raised, the file is unchanged.
    """
    content, written = _content(file), BytesIO()
    with open_image(BytesIO(content)) as image, decoded(image):
        if image.format not in LOSSLESS:
            raise UnreadableImage(f"expected a PNG or BMP file, got {image.format}: --write exif rotates JPEG files")
        if getattr(image, "is_animated", False):
            raise UnreadableImage("the file is an animation: only its first image would remain")
        kept: dict[str, Any] = {key: image.info[key] for key in ("dpi", "icc_profile") if key in image.info}
        upright = transpose(image, stored_orientation(image))
        if image.format == "PNG":
            kept |= {"pnginfo": _png_metadata(content), "exif": _exif_of_upright(image)}
        transposes = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}
        rotated = upright.transpose(transposes[quarters % 4]) if quarters % 4 else upright
        if "dpi" in kept and rotated.size != image.size:
            kept["dpi"] = kept["dpi"][::-1]
        rotated.save(written, image.format, **kept)
    if not np.array_equal(_displayed_pixels(written.getvalue()), np.rot90(_displayed_pixels(content), quarters)):
        raise UnreadableImage("the file cannot be rotated without a loss")
    _replace(file, written.getvalue())


def with_orientation(content: bytes, orientation: int) -> bytes:
    """The bytes of a JPEG file with another EXIF orientation.

    Args:
        content: the whole file.
        orientation: 1 to 8.

    Raises:
        UnreadableImage: the segments or the EXIF data are damaged, or the EXIF data have no room left.
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
        raise UnreadableImage("the EXIF data are damaged") from None


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, first byte and end (exclusive) of each segment before the compressed image."""
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
    if len(data) + 2 > MAX_SEGMENT_BYTES:
        raise UnreadableImage("the EXIF data have no room for an orientation")
    return struct.pack(">BBH", 0xFF, APP1, len(data) + 2) + data


def _with_tag(tiff: bytes, orientation: int) -> bytes:
    """EXIF data with the orientation changed in place, or with a new first directory at the end that has one."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        raise IndexError
    (first,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, first)
    entries = [tiff[first + 2 + 12 * n : first + 14 + 12 * n] for n in range(count)]
    following = tiff[first + 2 + 12 * count : first + 6 + 12 * count]
    new_entry = struct.pack(f"{order}HHIHH", TAG, SHORT, 1, orientation, 0)
    for number, entry in enumerate(entries):
        if struct.unpack_from(f"{order}H", entry)[0] == TAG:
            start = first + 2 + 12 * number
            return tiff[:start] + new_entry + tiff[start + 12 :]
    entries = sorted([*entries, new_entry], key=lambda entry: struct.unpack_from(f"{order}H", entry)[0])
    padding = b"\0" * (len(tiff) % 2)
    directory = struct.pack(f"{order}H", count + 1) + b"".join(entries) + following.ljust(4, b"\0")
    header = tiff[:4] + struct.pack(f"{order}I", len(tiff) + len(padding))
    return header + tiff[8:] + padding + directory


def _png_metadata(content: bytes) -> PngInfo:
    """The chunks of a PNG file besides its pixels, as they are stored.

    Raises:
        UnreadableImage: the colours have 16 bits, of which Pillow reads 8.
    """
    kept, position, name, after = PngInfo(), PNG_HEADER, b"", False
    while name != b"IEND" and position + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, position)
        data = content[position + 8 : position + 8 + length]
        if name == b"IHDR" and data[8] == 16 and data[9] != 0:
            raise UnreadableImage("the colours have 16 bits, of which 8 would be lost")
        if name not in WRITTEN_BY_PILLOW:
            kept.add(name, data, after)
        after |= name == b"IDAT"
        position += length + 12
    return kept


def _displayed_pixels(content: bytes) -> np.ndarray:
    """The pixels of a PNG or BMP file as they are displayed, with their opacity."""
    with open_image(BytesIO(content)) as image, decoded(image):
        upright = transpose(image, stored_orientation(image))
        return np.asarray(upright if upright.mode.startswith("I") else upright.convert("RGBA"))


def _content(file: Path) -> bytes:
    with open_file(file) as opened:
        return opened.read()


def _exif_of_upright(image: Image.Image) -> Image.Exif:
    """The EXIF data of an image without its orientation.

    Raises:
        UnreadableImage: they are damaged, so that they would be lost.
    """
    try:
        exif = image.getexif()
    except Exception:  # Damaged EXIF data raise nearly anything.
        raise UnreadableImage("the EXIF data are damaged") from None
    exif.pop(TAG, None)
    return exif


def _replace(file: Path, content: bytes) -> None:
    """Replace a file, or the file that a link names, unless it is read-only."""
    target = file.resolve()
    if not (target.stat().st_mode & 0o222 and os.access(target, os.W_OK)):
        raise PermissionError("the file is read-only")
    write_atomically(target, content)


def _displayed(orientation: int) -> np.ndarray:
    """Six numbered pixels, stored in two rows, as an EXIF orientation displays them."""
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
    }[orientation]
