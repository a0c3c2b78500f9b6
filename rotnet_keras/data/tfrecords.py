"""Random access to the images in TFRecord files of TensorFlow Datasets.

A TFRecord file can only be read from its beginning. The first run therefore indexes it: where each record starts, and
the shape of its image. From then on any image can be read by itself, so that the order of an epoch is a function of the
seed, and a resumed run reads nothing twice, even if the data set is too large to be stored decoded.
"""

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.data import decoding
from rotnet_keras.data.lazy_images import LazyImages
from rotnet_keras.data.stores import cache_folder, read_index
from rotnet_keras.engine import tf
from rotnet_keras.errors import DataError
from rotnet_keras.files import write_atomically

# A record is the length of its data (8 bytes), a checksum of the length (4), the data, and their checksum (4).
HEADER, FOOTER = 12, 4

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
            return os.pread(records.fileno(), int(length), int(start))

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
        DataError: a file ends within a record.
    """
    file = cache_folder() / f"{''.join(c if c.isalnum() or c in '-.' else '_' for c in key)}.records-2.npz"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        buffer = BytesIO()
        np.savez(buffer, **_build_index(parts, image_key, label_key, files_at_once, progress))
        write_atomically(file, buffer.getvalue())
    index = read_index(file)
    shapes, plain, places, labels = (index[name] for name in ("shapes", "plain", "places", "labels"))
    bad = [str(why) for why in index["bad"]]
    paths = [path for path, _, _ in parts]
    return RecordImages(paths, places, image_key, shapes=shapes, plain=plain, **options), labels, bad


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
    plain: list[bool] = []
    places: list[tuple[int, int, int]] = []
    labels: list[int] = []
    bad: list[str] = []
    first = 0
    for number, (path, skip, take) in enumerate(parts):
        for position, (start, record) in enumerate(_records(path, skip, take)):
            try:
                header = decoding.read_header(BytesIO(encoded_image(record, image_key)))
            except (decoding.UnreadableImage, OSError) as error:
                bad.append(f"{path.name} at byte {start} ({error})")
                continue
            numbers.append(first + position)
            shapes.append((header.width, header.height))
            plain.append(header.plain)
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
        "plain": np.array(plain, bool)[order],
        "places": np.array(places, np.int64).reshape(-1, 3)[order],
        "labels": np.array(labels, np.int64)[order],
        "bad": np.array(bad, dtype=str),
    }


def _records(path: Path, skip: int, take: int) -> Iterator[tuple[int, bytes]]:
    """Yield the offset in bytes and the data of some records of a file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for position in range(skip + take):
            prefix = file.read(HEADER)
            start = file.tell()
            length = struct.unpack("<Q", prefix[:8])[0] if len(prefix) == HEADER else size
            if start + length + FOOTER > size:
                raise DataError(f"{path}: ends within a record; prepare the data set again")
            if position >= skip:
                yield start, file.read(length)
            file.seek(start + length + FOOTER)


def _label(record: bytes, label_key: str | None) -> int:
    if label_key is None:
        return -1
    return int(tf.train.Example.FromString(record).features.feature[label_key].int64_list.value[0])
