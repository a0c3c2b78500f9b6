"""Image files of more than 8 bits: TIFF files of any number of channels, PNG files with 16-bit colours."""

import struct
import zlib

import numpy as np

KINDS = {"u": 1, "i": 2, "f": 3}


def tiff(*planes, order="<", rows=None, deflate=False, planar=False, predictor=1, tags=()):
    """The bytes of a TIFF file with a page for each array (H, W) or (H, W, C).

    Args:
        rows: of a strip; all by default.
        deflate: whether strips are compressed.
        planar: whether each channel lies by itself.
        predictor: 2 for differences between neighbours.
        tags: (tag, type, value) that replace others or are added to them.
    """
    content = bytearray(struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8))
    for number, plane in enumerate(planes):
        values = plane[..., None] if plane.ndim == 2 else plane
        height, width, channels = values.shape
        high = rows or height
        parts = [values[..., c : c + 1] for c in range(channels)] if planar else [values]
        strips = []
        for part in parts:
            for top in range(0, height, high):
                piece = part[top : top + high]
                if predictor == 2:
                    piece = np.concatenate([piece[:, :1], piece[:, 1:] - piece[:, :-1]], axis=1)
                raw = piece.astype(piece.dtype.newbyteorder(order)).tobytes()
                strips.append(zlib.compress(raw) if deflate else raw)
        entries = {
            256: (4, [width]),
            257: (4, [height]),
            258: (3, [8 * values.itemsize] * channels),
            259: (3, [8 if deflate else 1]),
            262: (3, [1]),
            273: (4, None),
            277: (3, [channels]),
            278: (4, [high]),
            279: (4, [len(strip) for strip in strips]),
            284: (3, [2 if planar else 1]),
            317: (3, [predictor]),
            339: (3, [KINDS[values.dtype.kind]] * channels),
        }
        entries |= {tag: (kind, value if isinstance(value, list) else [value]) for tag, kind, value in tags}
        start = len(content) + 2 + 12 * len(entries) + 4
        data = bytearray()
        directory = struct.pack(f"{order}H", len(entries))
        size = sum(4 * len(v) if v else 4 * len(strips) for _, v in entries.values())
        place = start + size
        offsets = [place + sum(map(len, strips[:k])) for k in range(len(strips))]
        for tag, (kind, value) in sorted(entries.items()):
            value = offsets if value is None else value
            form = {1: "B", 3: "H", 4: "I"}[kind]
            packed = struct.pack(f"{order}{len(value)}{form}", *value)
            if len(packed) > 4:
                field = struct.pack(f"{order}I", start + len(data))
                data += packed
            else:
                field = packed.ljust(4, b"\0")
            directory += struct.pack(f"{order}HHI", tag, kind, len(value)) + field
        end = place + sum(map(len, strips))
        last = number == len(planes) - 1
        content += directory + struct.pack(f"{order}I", 0 if last else end) + data.ljust(size, b"\0") + b"".join(strips)
    return bytes(content)


def png16(pixels, orientation=None):
    """The bytes of a PNG file of 16 bits, from (H, W, C) uint16; C is 1 to 4, the even ones with alpha.

    Args:
        orientation: of the EXIF data; none by default.
    """
    height, width, bands = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)
    exif = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 274, 3, 1, orientation or 0, 0, 0)
    about = [] if orientation is None else [(b"eXIf", exif)]
    chunks = ((b"IHDR", header), *about, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    packed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def values(shape=(20, 30), kind="uint16", most=4095, seed=0):
    """Values of a type, whole numbers up to `most`."""
    return np.random.default_rng(seed).integers(0, most + 1, shape).astype(kind)
