"""Stores of decoded images: in memory where they are few, on disk where they are many."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from rotnet_keras.config.sections import Data
from rotnet_keras.data.values.ranges import ValueRange
from rotnet_keras.errors import DataError
from rotnet_keras.files import cache_folder, make_private_folder, remove_unfinished, replacing

# The most that "auto" keeps in memory, in bytes, and the largest share of the free disk that it takes.
MEMORY_BYTES = 500_000_000
DISK_SHARE = 0.25

# Where decoded images may be kept, and the splits that are kept.
PLACES, SPLITS = ("memory", "disk", "none"), ("train", "validation", "test")

# The types of the values of images: of bytes, and of the numbers of files with more bits.
BYTES, NUMBERS = np.dtype(np.uint8), np.dtype(np.float32)

# A file of the cache that nobody has written to for so long was left by a process that was killed.
ABANDONED_SECONDS = 3600.0

# Positions that a task of a pool works on.
PIECE = 32

# How many of the files or records that cannot be read a note names.
NAMED = 20

# Called with (what is done, how many are done, how many there are) now and then during long work; raises to stop it.
Progress = Callable[[str, int, int], None]
# One image as a reader yields it: the pixels, or why it cannot be read, and the label.
Decoded = tuple[np.ndarray | str, int]

T = TypeVar("T")


class Store(Protocol):
    """Images that are read by their positions; a NumPy array is such a store."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of images, height, width and channels: (N, H, W, C)."""

    @property
    def dtype(self) -> np.dtype:
        """uint8; float32 for images with more than 8 bits, whose numbers are those of their files."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """Return the images of some rows: (len(rows), H, W, C)."""


class DiskStore:
    """Images in a file of raw pixels, from which only those are read that are asked for; it needs no memory."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype = BYTES) -> None:
        self.shape, self.dtype = shape, dtype
        self.image_bytes = int(np.prod(shape[1:])) * dtype.itemsize
        self._file = path.open("rb", buffering=0)

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        images = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for image, row in zip(images, rows, strict=True):
            if os.preadv(self._file.fileno(), [image], int(row) * image.nbytes) != image.nbytes:
                raise DataError(f"{self._file.name}: shorter than it was written; remove it and start again")
        return images


@dataclass(frozen=True)
class Split:
    """A split of a data set: rows of a store of images, in a fixed order.

    Attributes:
        store: images (N, H, W, C) uint8 or float32; several splits may share a store.
        rows: (n,) int, the rows of the store that belong to the split.
        labels: (n,) int64; (n, K) where an image may have several classes; None without labels.
        values: the range of the values of images with more than 8 bits; None for bytes.
    """

    store: Store
    rows: np.ndarray
    labels: np.ndarray | None
    values: ValueRange | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, positions: Sequence[int] | np.ndarray | slice) -> np.ndarray:
        """Return the images at some positions of the split: (len(positions), H, W, C)."""
        return self.store[self.rows[positions]]

    def required_labels(self) -> np.ndarray:
        """Return the labels.

        Raises:
            DataError: the images have no labels.
        """
        if self.labels is None:
            raise DataError("the images have no labels; a folder of images needs a subfolder per class")
        return self.labels

    def labelled(self) -> "Split":
        """Return the split of the images whose class is known: whose label is not -1."""
        if self.labels is None or self.labels.ndim > 1 or not len(self) or self.labels.min() >= 0:
            return self
        return self.subset(np.flatnonzero(self.labels >= 0))

    def subset(self, positions: np.ndarray) -> "Split":
        """Return the split of the images at some positions of this one."""
        labels = None if self.labels is None else self.labels[positions]
        return Split(self.store, self.rows[positions], labels, self.values)


def choose_cache(count: int, shape: tuple[int, int, int], cache: str, dtype: np.dtype = BYTES) -> str:
    """Return where decoded images are kept: "memory", "disk", or "none" where neither has enough room.

    Args:
        count: the number of images.
        shape: of one image.
        cache: the recipe's setting; anything but "auto" is returned as it is.
        dtype: of its values.
    """
    if cache != "auto":
        return cache
    needed = count * int(np.prod(shape)) * dtype.itemsize
    if needed <= MEMORY_BYTES:
        return "memory"
    existing = next(parent for parent in (cache_folder(), *cache_folder().parents) if parent.is_dir())
    return "disk" if needed <= DISK_SHARE * shutil.disk_usage(existing).free else "none"


def place_of(
    split: str, count: int, shape: tuple[int, int, int], data: Data, kept: dict[str, str], dtype: np.dtype = BYTES
) -> str:
    """Return where the decoded images of a split are kept: as an earlier start chose, else as `choose_cache` does now.

    The place decides which decoder reads an image. The free disk differs at each start, so the choice is made once.

    Args:
        split: "train", "validation" or "test".
        count: the number of images.
        shape: of one image.
        data: the recipe's section; crops from whole images are never kept decoded.
        kept: the earlier choice for each split; receives a new one.
        dtype: of the values of an image.
    """
    if split not in kept:
        kept[split] = "none" if data.whole else choose_cache(count, shape, data.cache, dtype)
    return kept[split]


def known_places(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return where an earlier start keeps the images of each split, from the contents of its `run.json`."""
    kept = facts.get("kept_images")
    if not isinstance(kept, dict):
        return {}
    return {split: kept[split] for split in SPLITS if kept.get(split) in PLACES}


def decode_and_store(
    count: int,
    shape: tuple[int, int, int],
    fill: Callable[[], Iterable[Decoded]],
    cache: str,
    key: str,
    dtype: np.dtype = BYTES,
) -> tuple[Store, np.ndarray, list[tuple[int, str]]]:
    """Decode images once and store them; images that are on disk already are not decoded again.

    Args:
        count: the number of images, readable or not.
        shape: of one image.
        fill: yields every image in order.
        cache: "memory" or "disk".
        key: identifies these images among all that are stored on disk.
        dtype: of their values.

    Returns:
        The n images that can be read, their labels (n,) int64, and (index, reason) of the others.
    """
    if cache == "memory":
        store = np.empty((count, *shape), dtype)
        read: list[int] = []
        unread: list[tuple[int, str]] = []
        for index, (pixels, label) in enumerate(fill()):
            if isinstance(pixels, str):
                unread.append((index, pixels))
            else:
                store[len(read)] = pixels
                read.append(label)
        return store[: len(read)], np.array(read, np.int64), unread
    name = "".join(c if c.isalnum() or c in "-." else "_" for c in key)
    pixels_file, index_file = cache_folder() / f"{name}.pixels", cache_folder() / f"{name}.index.npz"
    if not index_file.is_file():
        _write(pixels_file, index_file, fill())
    stored = read_index(index_file)
    kept, bad = stored["labels"], [(int(i), str(w)) for i, w in zip(stored["bad"], stored["why"], strict=True)]
    return DiskStore(pixels_file, (len(kept), *shape), dtype), kept, bad


def mapped_in_pieces(
    pool: Executor, function: Callable[[int], T], positions: Sequence[int] | np.ndarray
) -> Iterator[T]:
    """Yield what a function returns for each position, in order, computed in a pool a piece of the positions at a time.

    A task of the pool for each position would take longer than reading a small file.
    """
    pieces = [positions[start : start + PIECE] for start in range(0, len(positions), PIECE)]
    for results in pool.map(lambda piece: [function(int(position)) for position in piece], pieces):
        yield from results


def read_index(file: Path) -> dict[str, np.ndarray]:
    """Read arrays that an earlier run left in the cache folder.

    Raises:
        DataError: the file is damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # A damaged archive raises nearly anything.
        raise DataError(f"{file}: this file of the cache is damaged ({error}); remove it and start again") from None


def write_index(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to a file of the cache folder, for `read_index`."""
    make_private_folder(file.parent)
    with replacing(file) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]


def _write(pixels_file: Path, index_file: Path, decoded: Iterable[Decoded]) -> None:
    make_private_folder(pixels_file.parent)
    remove_unfinished(pixels_file.parent, ABANDONED_SECONDS)
    labels: list[int] = []
    bad: list[tuple[int, str]] = []
    with replacing(pixels_file) as file:
        for index, (pixels, label) in enumerate(decoded):
            if isinstance(pixels, str):
                bad.append((index, pixels))
            else:
                file.write(np.ascontiguousarray(pixels).data)
                labels.append(label)
    why = np.array([reason for _, reason in bad], dtype=str)
    numbers = np.array([i for i, _ in bad], np.int64)
    # Written last: if this file exists, the pixels are complete.
    write_index(index_file, {"labels": np.array(labels, np.int64), "bad": numbers, "why": why})
