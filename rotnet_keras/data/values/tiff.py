"""The values of TIFF files that are no plain 8-bit images: more bits, floats, any number of channels.

Pillow's TIFF library unpacks the segments as if each were a grey image of bytes. That works for every lossless
compression, and into memory of the size that the directory states: a small segment cannot become a large one.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from rotnet_keras.data.image_files import UnreadableImage

MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Tags that are read.
SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, DESCRIPTION = 254, 256, 257, 258, 259, 262, 270
FILL_ORDER, OFFSETS, ORIENTATION, SAMPLES, ROWS, COUNTS, PLANAR, PREDICTOR = 266, 273, 274, 277, 278, 279, 284, 317
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, EXTRA, FORMAT = 322, 323, 324, 325, 338, 339
TAGS = {SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, DESCRIPTION, FILL_ORDER, OFFSETS, ORIENTATION, SAMPLES}
TAGS |= {ROWS, COUNTS, PLANAR, PREDICTOR, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, EXTRA, FORMAT}
# The types of tags, as `struct` calls them: of whole numbers and of text.
FORMS = {1: "B", 2: "s", 3: "H", 4: "I", 16: "Q"}
# Compressions that lose nothing, by their numbers.
LOSSLESS = {1: "none", 5: "LZW", 8: "deflate", 32946: "deflate", 32773: "PackBits", 34925: "LZMA", 50000: "Zstandard"}
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
UNSIGNED, SIGNED, FLOATING = 1, 2, 3
KINDS = {UNSIGNED: (8, 10, 12, 14, 16, 32), SIGNED: (8, 16, 32), FLOATING: (16, 32, 64)}
# Pages of a file that are looked at, tags of each, and numbers in all their tags.
MOST_PAGES, MOST_TAGS, MOST_NUMBERS = 10_000, 4096, 4_000_000
# Pixels that a segment may be larger than its image, as the tiles of small images are.
LARGEST_TILE = 4096
# Characters of a description that are read.
DESCRIPTION_BYTES = 1000
# Bytes that are unpacked at once.
PIECE = 1 << 25


@dataclass(frozen=True)
class Page:
    """A page of a TIFF file.

    Attributes:
        width, height: in pixels.
        samples: values of a pixel, with alpha.
        bits: of a value.
        kind: UNSIGNED, SIGNED or FLOATING.
        alpha: 0 for none, 1 if the colours are multiplied by the last sample, 2 if they are not.
        inverted: whether 0 is white.
        values: the directory's other tags.
        order: "<" or ">".
        orientation: EXIF's, 1 to 8.
    """

    width: int
    height: int
    samples: int
    bits: int
    kind: int
    alpha: int
    inverted: bool
    values: dict[int, Any]
    order: str
    orientation: int

    @property
    def what(self) -> str:
        """The shape and the kind of the values, in words."""
        kind = {UNSIGNED: "", SIGNED: " signed", FLOATING: " floating-point"}[self.kind]
        return f"{self.width} x {self.height} x {self.samples}{kind} values of {self.bits} bits"

    @property
    def dtype(self) -> np.dtype:
        """The type of the values, in the byte order of the file; 16 bits for 10, 12 and 14."""
        size = max(1, -(-self.bits // 16) * 2) if self.bits > 8 else 1
        return np.dtype(f"{self.order}{ {UNSIGNED: 'u', SIGNED: 'i', FLOATING: 'f'}[self.kind] }{size}")


def read_pages(file: BinaryIO) -> tuple[list[Page], bool] | None:
    """Return the pages that are the channels of an image, and whether others are left out; None for a plain image.

    Pages are channels where each is grey, and they have more than 8 bits or were written by a program for microscopes.
    Of others only the first is read. A plain image has 8 bits, and Pillow reads it.

    Raises:
        UnreadableImage: the file is damaged, or of a kind that is not read.
    """
    try:
        directories = _directories(file)
        order, first = next(directories)
        plain, described = _is_plain(first), _of_microscope(first)
        if plain and not described:
            return None
        pages = [_page(first, order)]
        # Small copies and masks are no planes.
        others = (directory for _, directory in directories if not _numbers(directory, SUBFILE, [0])[0] & 5)
        if pages[0].samples == 1 and (described or pages[0].bits > 8):
            pages += [_page(directory, order) for directory in others]
        left_out = any(True for _ in others)
    except UnreadableImage:
        raise
    except Exception as error:  # Damaged directories raise errors of struct, keys, indices and values.
        raise UnreadableImage(f"its TIFF directory is damaged ({error})") from None
    if plain and len(pages) == 1:
        return None
    for number, page in enumerate(pages[1:], 2):
        if page.what != pages[0].what:
            raise UnreadableImage(f"its planes differ: the first has {pages[0].what}, number {number} {page.what}")
    return pages, left_out


def read_values(file: BinaryIO, pages: Sequence[Page]) -> np.ndarray:
    """Return the values (H, W, C) of the pages; transparent pixels become white.

    Raises:
        UnreadableImage: the file is damaged or truncated.
    """
    try:
        planes = [_read_page(file, page) for page in pages]
    except UnreadableImage:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files.
        raise UnreadableImage(str(error) or type(error).__name__) from None
    return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)


def _directories(file: BinaryIO) -> Iterator[tuple[str, dict[int, Any]]]:
    """Yield the byte order and the tags of each page."""
    file.seek(0)
    header = file.read(16)
    order = "<" if header[:1] == b"I" else ">"
    big = struct.unpack(f"{order}H", header[2:4])[0] == 43
    count_form, offset_form, length = ("Q", "Q", 20) if big else ("H", "I", 12)
    place = struct.unpack_from(f"{order}{offset_form}", header, 8 if big else 4)[0]
    seen: set[int] = set()
    budget = MOST_NUMBERS
    while place and place not in seen and len(seen) < MOST_PAGES:
        seen.add(place)
        file.seek(place)
        count = struct.unpack(f"{order}{count_form}", file.read(struct.calcsize(f"<{count_form}")))[0]
        if count > MOST_TAGS:
            raise UnreadableImage(f"its TIFF directory is damaged: it has {count:,} tags")
        entries = file.read(count * length)
        place = struct.unpack(f"{order}{offset_form}", file.read(struct.calcsize(f"<{offset_form}")))[0]
        tags: dict[int, Any] = {}
        for start in range(0, count * length, length):
            tag, form, number = struct.unpack_from(f"{order}HH{offset_form}", entries, start)
            if tag in TAGS and form in FORMS:
                inline = entries[start + length - struct.calcsize(f"<{offset_form}") : start + length]
                number = min(number, DESCRIPTION_BYTES) if tag == DESCRIPTION else number
                budget -= number
                if budget < 0:
                    raise UnreadableImage("its TIFF directories have too many numbers")
                tags[tag] = _tag_values(file, order, FORMS[form], number, inline, offset_form)
        yield order, tags


def _tag_values(file: BinaryIO, order: str, form: str, number: int, inline: bytes, offset_form: str) -> Any:
    size = number * struct.calcsize(f"<{form}")
    if size > len(inline):
        file.seek(struct.unpack(f"{order}{offset_form}", inline)[0])
        inline = file.read(size)
    if form == "s":
        return inline[:size].decode("latin-1")
    return struct.unpack(f"{order}{number}{form}", inline[:size])


def _numbers(directory: dict[int, Any], tag: int, default: Sequence[int] = ()) -> list[int]:
    value = directory.get(tag)
    if value is None:
        return list(default)
    return list(value)


def _is_plain(directory: dict[int, Any]) -> bool:
    """Return whether Pillow reads all that is in a page: bytes, grey or in colours, perhaps with alpha."""
    samples = _numbers(directory, SAMPLES, [1])[0]
    photometric = _numbers(directory, PHOTOMETRIC, [BLACK_IS_ZERO])[0]
    if max(_numbers(directory, BITS, [1])) > 8 or set(_numbers(directory, FORMAT, [UNSIGNED])) - {UNSIGNED, 4}:
        return False
    extra = _numbers(directory, EXTRA)
    if photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
        of_colour = 3 if photometric == RGB else 1
        # A sample that is no alpha is a channel, which Pillow leaves out.
        return samples == of_colour or (samples == of_colour + 1 and bool(extra) and extra[0] in (1, 2))
    return samples <= 5


def _of_microscope(directory: dict[int, Any]) -> bool:
    """Return whether a grey 8-bit page or one of more bits was written by a program whose pages are channels."""
    description = str(directory.get(DESCRIPTION, ""))
    grey = _numbers(directory, BITS, [1])[0] >= 8 and _numbers(directory, PHOTOMETRIC, [1])[0] in (0, 1)
    return grey and (description.startswith("ImageJ=") or "<OME" in description)


def _page(directory: dict[int, Any], order: str) -> Page:
    width, height = _numbers(directory, WIDTH)[0], _numbers(directory, HEIGHT)[0]
    samples = _numbers(directory, SAMPLES, [1])[0]
    bits, kinds = _numbers(directory, BITS, [1]), _numbers(directory, FORMAT, [UNSIGNED])
    photometric = _numbers(directory, PHOTOMETRIC, [BLACK_IS_ZERO])[0]
    compression = _numbers(directory, COMPRESSION, [1])[0]
    if min(width, height, samples) < 1:
        raise UnreadableImage("its TIFF directory says that it has no pixels")
    if len(set(bits)) > 1 or len(set(kinds)) > 1:
        raise UnreadableImage(f"its planes differ: they have {', '.join(map(str, bits))} bits; save all in one type")
    if bits[0] not in KINDS.get(kinds[0], ()):
        raise UnreadableImage(
            f"a TIFF file of {bits[0]}-bit values of a kind that is not read; save 16 bits or float32"
        )
    if photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
        raise UnreadableImage(
            f"a TIFF file of more than 8 bits in colours of a kind that is not read (photometric {photometric}); save "
            "it as grey, RGB or channels"
        )
    if compression not in LOSSLESS:
        raise UnreadableImage(
            f"a TIFF file of more than 8 bits, compressed in a way that is not read (compression {compression}); save "
            f"it anew with one of {', '.join(dict.fromkeys(LOSSLESS.values()))}"
        )
    if _numbers(directory, FILL_ORDER, [1])[0] != 1:
        raise UnreadableImage("a TIFF file whose bits are stored in reverse, which is not read; save it anew")
    extra = _numbers(directory, EXTRA)
    of_colour = 3 if photometric == RGB else 1
    alpha = extra[0] if samples == of_colour + 1 and extra and extra[0] in (1, 2) else 0
    orientation = _numbers(directory, ORIENTATION, [1])[0]
    return Page(
        width,
        height,
        samples,
        bits[0],
        kinds[0],
        alpha,
        photometric == WHITE_IS_ZERO,
        directory,
        order,
        orientation if 1 <= orientation <= 8 else 1,
    )


def _read_page(file: BinaryIO, page: Page) -> np.ndarray:
    """Return the values of a page: (H, W, C), without alpha."""
    values = page.values
    planar = page.samples > 1 and _numbers(values, PLANAR, [1])[0] == 2
    together, planes = (1, page.samples) if planar else (page.samples, 1)
    tiled = TILE_WIDTH in values
    wide = _numbers(values, TILE_WIDTH)[0] if tiled else page.width
    tall = _numbers(values, TILE_HEIGHT)[0] if tiled else min(page.height, _numbers(values, ROWS, [page.height])[0])
    if min(wide, tall) < 1 or wide > page.width + LARGEST_TILE or tall > page.height + LARGEST_TILE:
        raise UnreadableImage(f"its segments have {wide} x {tall} pixels, which cannot be")
    across, down = -(-page.width // wide), -(-page.height // tall)
    offsets = _numbers(values, TILE_OFFSETS if tiled else OFFSETS)
    counts = _numbers(values, TILE_COUNTS if tiled else COUNTS)
    if len(offsets) != across * down * planes or len(counts) != len(offsets):
        raise UnreadableImage(f"it should have {across * down * planes} segments, and has {len(offsets)}")
    found = np.empty((page.height, page.width, page.samples), page.dtype.newbyteorder("="))
    row_bytes = -(-wide * together * page.bits // 8)
    rows = [
        tall if tiled else min(tall, page.height - top) for top in range(0, page.height, tall) for _ in range(across)
    ]
    segments = _unpacked(file, page, offsets, counts, rows * planes, row_bytes)
    for number, segment in enumerate(segments):
        plane, place = divmod(number, across * down)
        top, left = place // across * tall, place % across * wide
        part = _values_of(segment, page, wide, together)
        height, width = min(len(part), page.height - top), min(wide, page.width - left)
        channels = slice(plane, plane + 1) if planar else slice(None)
        found[top : top + height, left : left + width, channels] = part[:height, :width]
    return _without_alpha(found, page)


def _unpacked(
    file: BinaryIO, page: Page, offsets: Sequence[int], counts: Sequence[int], rows: Sequence[int], row_bytes: int
) -> Iterator[np.ndarray]:
    """Yield the bytes of each segment, unpacked: (rows, row_bytes) uint8."""
    compression = _numbers(page.values, COMPRESSION, [1])[0]
    start, length = 0, file.seek(0, os.SEEK_END)
    while start < len(offsets):
        end, size = start, 0
        # The segments of one piece have equally many rows, but for the last one.
        while end < len(offsets) and (end == start or size + rows[end] * row_bytes <= PIECE):
            size += rows[end] * row_bytes
            end += 1
            if rows[end - 1] != rows[start]:
                break
        stored = []
        for offset, count in zip(offsets[start:end], counts[start:end], strict=True):
            # Memory of the size that is asked for is taken before anything is read.
            if offset + count > length:
                raise UnreadableImage("the file is truncated")
            file.seek(offset)
            stored.append(file.read(count))
        height = sum(rows[start:end])
        if compression == 1:
            content = b"".join(part[: n * row_bytes] for part, n in zip(stored, rows[start:end], strict=True))
            if len(content) != height * row_bytes:
                raise UnreadableImage("the file is truncated")
            whole = np.frombuffer(content, np.uint8).reshape(height, row_bytes)
        else:
            packed = BytesIO(_as_bytes_image(stored, row_bytes, height, rows[start], compression))
            with Image.open(packed, formats=("TIFF",)) as image:
                whole = np.asarray(image).reshape(height, row_bytes)
        top = 0
        for n in rows[start:end]:
            yield whole[top : top + n]
            top += n
        start = end


def _as_bytes_image(stored: Sequence[bytes], width: int, height: int, rows: int, compression: int) -> bytes:
    """Return a TIFF file of a grey 8-bit image whose strips are these segments."""
    count = len(stored)
    tags = [
        *((WIDTH, 4, width), (HEIGHT, 4, height), (BITS, 3, 8), (COMPRESSION, 3, compression)),
        *((PHOTOMETRIC, 3, BLACK_IS_ZERO), (OFFSETS, 4, None), (SAMPLES, 3, 1), (ROWS, 4, rows), (COUNTS, 4, None)),
    ]
    lists = 8 + 2 + 12 * len(tags) + 4
    data = lists + 8 * count
    lengths = [len(part) for part in stored]
    places = [data + sum(lengths[:number]) for number in range(count)] if count < 64 else _starts(data, lengths)
    directory = struct.pack("<H", len(tags))
    for tag, kind, value in tags:
        if tag in (OFFSETS, COUNTS):
            only, where = (places[0], lists) if tag == OFFSETS else (lengths[0], lists + 4 * count)
            directory += struct.pack("<HHII", tag, kind, count, only if count == 1 else where)
        else:
            directory += struct.pack("<HHII", tag, kind, 1, value)
    arrays = struct.pack(f"<{count}I", *places) + struct.pack(f"<{count}I", *lengths)
    return b"".join([struct.pack("<2sHI", b"II", 42, 8), directory, b"\0\0\0\0", arrays, *stored])


def _starts(first: int, lengths: Sequence[int]) -> list[int]:
    return [int(each) for each in first + np.concatenate([[0], np.cumsum(lengths[:-1])])]


def _values_of(segment: np.ndarray, page: Page, width: int, together: int) -> np.ndarray:
    """Return the values in the bytes of a segment: (rows, width, together), in the machine's byte order."""
    count = width * together
    predictor = _numbers(page.values, PREDICTOR, [1])[0]
    if page.kind == FLOATING and predictor == 3:
        size = page.bits // 8
        sums = np.cumsum(segment.reshape(len(segment), -1, together), axis=1, dtype=np.uint8)
        planes = sums.reshape(len(segment), size, count).transpose(0, 2, 1)
        values = np.ascontiguousarray(planes).view(f">f{size}")[..., 0]
    elif page.bits % 8:
        values = np.zeros((len(segment), count), np.uint16)
        step = max(1, PIECE // (8 * segment.shape[1]))
        for top in range(0, len(segment), step):
            bits = np.unpackbits(segment[top : top + step], axis=1)[:, : count * page.bits]
            for place in range(page.bits):
                values[top : top + step] = values[top : top + step] << 1 | bits[:, place :: page.bits]
    else:
        values = np.ascontiguousarray(segment).view(page.dtype)
    values = values.reshape(len(segment), width, together)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if predictor == 2:
        if page.kind == FLOATING or page.bits % 8:
            raise UnreadableImage("its predictor does not fit its values")
        values = np.cumsum(values, axis=1, dtype=values.dtype)
    elif predictor not in (1, 3) or (predictor == 3 and page.kind != FLOATING):
        raise UnreadableImage(f"its predictor {predictor} is not known")
    return values


def _without_alpha(values: np.ndarray, page: Page) -> np.ndarray:
    """Return the values with black as 0, and transparent pixels as white."""
    most = 2**page.bits - 1 if page.kind == UNSIGNED else 1.0 if page.kind == FLOATING else 2 ** (page.bits - 1) - 1
    if page.inverted:
        values = (most - values).astype(values.dtype)
    if not page.alpha:
        return values
    colours, share = values[..., :-1].astype(np.float64), values[..., -1:].astype(np.float64) / most
    colours = colours * (1 if page.alpha == 1 else share) + most * (1 - share)
    return (np.clip(colours, 0, most).round() if page.kind != FLOATING else colours).astype(values.dtype)
