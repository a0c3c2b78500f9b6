"""Random access to the images in TFRecord files of TensorFlow Datasets.

A TFRecord file can only be read from its beginning. The first run therefore indexes it: where each record starts, and
the shape of its image. From then on any image can be read by itself, so that the order of an epoch is a function of the
seed, and a resumed run reads nothing twice, even if the data set is too large to be stored decoded. When a file is
indexed, the checksums of all its records are compared; whoever reads a record later compares its length.
"""

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Event
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

# Between two reports of progress while several files are indexed.
PROGRESS_SECONDS = 0.2

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
    counts = [take for _, _, take in parts]
    total = sum(counts)
    done = [0] * len(parts)
    stopped = Event()

    def index(number: int) -> "_FileIndex":
        def count(records: int) -> None:
            done[number] = records
            if stopped.is_set():
                raise InterruptedError

        return _index_file(parts[number], image_key, label_key, count)

    found: list[_FileIndex] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting = [pool.submit(index, number) for number in range(len(parts))]
        try:
            for future in waiting:
                while not wait([future], PROGRESS_SECONDS).done:
                    progress(sum(done), total)
                found.append(future.result())
        except BaseException:
            # The other files are not read to their ends before this is known.
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    progress(total, total)
    if not found:
        return {"shapes": np.zeros((0, 2), np.int32), "places": np.zeros((0, 3), np.int64),
                "labels": np.zeros(0, np.int64), "bad": np.zeros(0, str)}  # fmt: skip
    firsts = np.cumsum([0, *counts])[:-1]
    numbers = np.concatenate([first + each.positions for first, each in zip(firsts, found, strict=True)])
    places = [np.insert(each.places, 0, number, axis=1) for number, each in enumerate(found)]
    rank = np.empty(total, np.int64)
    rank[reading_order(counts, files_at_once)] = np.arange(total)
    order = np.argsort(rank[numbers])
    return {
        "shapes": np.concatenate([each.shapes for each in found])[order],
        "places": np.concatenate(places)[order],
        "labels": np.concatenate([each.labels for each in found])[order],
        "bad": np.array([why for each in found for why in each.bad], dtype=str),
    }


@dataclass(frozen=True)
class _FileIndex:
    """The records of a file that can be used.

    Attributes:
        positions: (N,) int64, which of those that were asked for they are.
        shapes: (N, 2) int32, width and height of their images.
        places: (N, 2) int64, the offset and the length of their data in bytes.
        labels: (N,) int64.
        bad: the reason for each of the others.
    """

    positions: np.ndarray
    shapes: np.ndarray
    places: np.ndarray
    labels: np.ndarray
    bad: list[str]


def _index_file(part: Part, image_key: str, label_key: str | None, count: Callable[[int], None]) -> _FileIndex:
    path, skip, take = part
    intact = _is_intact(path)
    positions, shapes, places, labels = array("q"), array("i"), array("q"), array("q")
    bad: list[str] = []
    for position, (start, record, checksum) in enumerate(_records(path, skip, take)):
        count(position)
        try:
            if not intact and masked_crc32c(record) != checksum:
                raise OSError("a damaged record: its checksum differs")
            header = decoding.read_header(BytesIO(encoded_image(record, image_key)))
        except (decoding.UnreadableImage, OSError) as error:
            bad.append(f"{path.name} at byte {start} ({error})")
            continue
        positions.append(position)
        shapes.extend((header.width, header.height))
        places.extend((start, len(record)))
        labels.append(_label(record, label_key))
    pairs = np.array(shapes, np.int32).reshape(-1, 2), np.array(places, np.int64).reshape(-1, 2)
    return _FileIndex(np.array(positions, np.int64), *pairs, np.array(labels, np.int64), bad)


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
