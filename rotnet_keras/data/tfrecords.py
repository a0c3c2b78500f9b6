"""Random access to the images in TFRecord files of TensorFlow Datasets.

A TFRecord file can only be read from its beginning. The first run therefore indexes it: where each record starts, and
the shape of its image. From then on any image can be read by itself, so that the order of an epoch is a function of the
seed, and a resumed run reads nothing twice, even if the data set is too large to be stored decoded. When a file is
indexed, the checksums of all its records are compared; whoever reads a record later compares its length.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.data import decoding
from rotnet_keras.data.lazy_images import LazyImages
from rotnet_keras.data.stores import read_index
from rotnet_keras.engine import tf
from rotnet_keras.errors import DataError
from rotnet_keras.files import cache_folder, make_private_folder, write_atomically

# A record is the length of its data (8 bytes), a checksum of the length (4), the data, and their checksum (4).
HEADER, FOOTER = 12, 4

# By byte, for the checksum CRC-32C (Castagnoli), whose polynomial with the bits in reverse order is this number.
CRC_POLYNOMIAL = 0x82F63B78


def _crc_entry(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (CRC_POLYNOMIAL if value & 1 else 0)
    return value


CRC_TABLE = [_crc_entry(byte) for byte in range(256)]

# TensorFlow Datasets reads this many files at once and this many records of each in turn, which is the order of a split
# wherever it is kept.
FILES_AT_ONCE, RECORDS_IN_TURN = 16, 16

# A file, how many of its records to skip, and how many to take.
Part = tuple[Path, int, int]


class RecordImages(LazyImages):
    """The images of a split in TFRecord files.

    Args:
        paths: the files.
        places: (N, 3) int64: the file's number, the offset of the record's data in bytes, and their length in bytes.
        image_key: the feature that holds the encoded image.
        **options: the arguments of `LazyImages`.
    """

    def __init__(self, paths: Sequence[Path], places: np.ndarray, image_key: str, **options: Any) -> None:
        super().__init__(**options)
        self.paths, self.places, self.image_key = list(paths), places, image_key

    def contents(self, row: int) -> bytes:
        """Return the encoded image of a record."""
        return encoded_image(self._record(row), self.image_key)

    def example(self, row: int) -> "tf.train.Example":
        """Return the record as a parsed example."""
        return tf.train.Example.FromString(self._record(row))

    def _record(self, row: int) -> bytes:
        file, start, length = self.places[row]
        with self.paths[file].open("rb", buffering=0) as records:
            whole = os.pread(records.fileno(), HEADER + int(length) + FOOTER, int(start) - HEADER)
        if len(whole) != HEADER + length + FOOTER:
            raise OSError(f"the file ends {HEADER + length + FOOTER - len(whole)} bytes before the record does")
        if _length(whole[:HEADER]) != length:
            raise OSError("no record begins here any more: the file has changed")
        return whole[HEADER:-FOOTER]

    def name(self, row: int) -> str:
        """Return the file and the position of a record, for messages."""
        file, start, _ = self.places[row]
        return f"the record at byte {start} of {self.paths[file]}"

    @property
    def image_bytes(self) -> float:
        """Return the mean length of a record in bytes."""
        return float(self.places[:, 2].mean())


def encoded_image(record: bytes, image_key: str) -> bytes:
    """Return the encoded image of a serialised example.

    Raises:
        OSError: the record is damaged, or has no such feature.
    """
    try:
        return bytes(tf.train.Example.FromString(record).features.feature[image_key].bytes_list.value[0])
    except Exception as error:  # The protocol buffers' own errors have no common class.
        raise OSError(f"a damaged record: {error}") from None


def open_records(
    parts: Sequence[Part],
    image_key: str,
    label_key: str | None,
    key: str,
    progress: Callable[[int, int], None],
    files_at_once: int = FILES_AT_ONCE,
    **options: Any,
) -> tuple[RecordImages, np.ndarray, list[str]]:
    """Open the records of a split; they are indexed once, and the index is kept in the cache folder.

    Args:
        parts: which records of which files belong to the split.
        image_key: the feature that holds the encoded image.
        label_key: the feature that holds the label; None without labels, which are then -1.
        key: identifies the split among all that are indexed in the cache folder.
        progress: called with the number of records read, and of all.
        files_at_once: how many files are read in turn: 1 for a data set that was prepared without shuffling.
        **options: the arguments of `LazyImages` other than the shapes.

    Returns:
        The images that can be read, their labels (N,) int64, and the reasons for the others.

    Raises:
        DataError: a file ends within a record, or where a record begins is damaged.
    """
    file = cache_folder() / f"{''.join(c if c.isalnum() or c in '-.' else '_' for c in key)}.records-4.npz"
    if not file.is_file():
        make_private_folder(file.parent)
        buffer = BytesIO()
        np.savez(buffer, **_build_index(parts, image_key, label_key, files_at_once, progress))
        write_atomically(file, buffer.getvalue())
    index = read_index(file)
    shapes, places, labels = (index[name] for name in ("shapes", "places", "labels"))
    bad = [str(why) for why in index["bad"]]
    paths = [path for path, _, _ in parts]
    return RecordImages(paths, places, image_key, shapes=shapes, **options), labels, bad


def reading_order(counts: Sequence[int], files_at_once: int = FILES_AT_ONCE) -> np.ndarray:
    """Return the order in which TensorFlow Datasets reads the records of several files.

    Args:
        counts: the number of records that are read from each file.

    Returns:
        (sum of counts,) int64: record numbers, which count through the files one after another.
    """
    ends = np.cumsum(counts, dtype=np.int64)
    ranges = tf.data.Dataset.from_tensor_slices((ends - counts, ends))
    numbers = ranges.interleave(tf.data.Dataset.range, files_at_once, RECORDS_IN_TURN)
    return np.concatenate([np.zeros(0, np.int64), *numbers.batch(1 << 16).as_numpy_iterator()])


def _build_index(
    parts: Sequence[Part],
    image_key: str,
    label_key: str | None,
    files_at_once: int,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    total = sum(take for _, _, take in parts)
    numbers: list[int] = []
    shapes: list[tuple[int, int]] = []
    places: list[tuple[int, int, int]] = []
    labels: list[int] = []
    bad: list[str] = []
    first = 0
    for number, (path, skip, take) in enumerate(parts):
        intact = _is_intact(path)
        for position, (start, record, checksum) in enumerate(_records(path, skip, take)):
            try:
                if not intact and masked_crc32c(record) != checksum:
                    raise OSError("a damaged record: its checksum differs")
                header = decoding.read_header(BytesIO(encoded_image(record, image_key)))
            except (decoding.UnreadableImage, OSError) as error:
                bad.append(f"{path.name} at byte {start} ({error})")
                continue
            numbers.append(first + position)
            shapes.append((header.width, header.height))
            places.append((number, start, len(record)))
            labels.append(_label(record, label_key))
            if len(places) % 256 == 0:
                progress(len(places) + len(bad), total)
        first += take
    progress(total, total)
    rank = np.empty(total, np.int64)
    rank[reading_order([take for _, _, take in parts], files_at_once)] = np.arange(total)
    order = np.argsort(rank[np.array(numbers, np.int64)])
    return {
        "shapes": np.array(shapes, np.int32).reshape(-1, 2)[order],
        "places": np.array(places, np.int64).reshape(-1, 3)[order],
        "labels": np.array(labels, np.int64)[order],
        "bad": np.array(bad, dtype=str),
    }


def _is_intact(path: Path) -> bool:
    """Return whether the checksums of all records of a file are those of their contents."""
    try:
        for _ in tf.data.TFRecordDataset(str(path)).map(tf.strings.length).batch(1 << 16):
            pass
    except tf.errors.OpError:
        return False
    return True


def masked_crc32c(content: bytes) -> int:
    """Return the checksum that TFRecord files have: CRC-32C, rotated and offset.

    In pure Python it takes a second for some megabytes, so only files are read by it that are known to be damaged.
    """
    crc = 0xFFFFFFFF
    for byte in content:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _length(header: bytes) -> int | None:
    """Return the length in bytes that the header of a record says; None if the header is cut off or damaged."""
    if len(header) != HEADER or masked_crc32c(header[:8]) != int.from_bytes(header[8:], "little"):
        return None
    return int.from_bytes(header[:8], "little")


def _records(path: Path, skip: int, take: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield the offset in bytes, the data and the checksum of some records of a file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for position in range(skip + take):
            header = file.read(HEADER)
            start, length = file.tell(), _length(header)
            if length is None and len(header) == HEADER:
                raise DataError(f"{path}: the record at byte {start - HEADER} is damaged; prepare the data set again")
            if length is None or start + length + FOOTER > size:
                raise DataError(f"{path}: ends within a record; prepare the data set again")
            if position >= skip:
                record = file.read(length)
                yield start, record, int.from_bytes(file.read(FOOTER), "little")
            file.seek(start + length + FOOTER)


def _label(record: bytes, label_key: str | None) -> int:
    if label_key is None:
        return -1
    return int(tf.train.Example.FromString(record).features.feature[label_key].int64_list.value[0])
