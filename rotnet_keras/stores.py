"""Decoded images, kept in memory where they fit and on disk where they do not."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from rotnet_keras.errors import DataError

MEMORY_SHARE = 0.4

# What a reader gives for one image: the pixels, or why there are none, and the label.
Decoded = tuple[np.ndarray | str, int]


@dataclass(frozen=True)
class Split:
    """Some rows of a store of images, in a fixed order.

    Attributes:
        store: (N, S, S, C) uint8, in memory or mapped from disk; splits may share one.
        rows: (n,) which images of the store belong to the split.
        labels: (n,) int64, or None.
    """

    store: np.ndarray
    rows: np.ndarray
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, positions: Sequence[int] | np.ndarray | slice) -> np.ndarray:
        """The images at some positions of the split: (len(positions), S, S, C) uint8."""
        return self.store[self.rows[positions]]

    def required_labels(self) -> np.ndarray:
        """The labels.

        Raises:
            DataError: there are none.
        """
        if self.labels is None:
            raise DataError("these images have no labels")
        return self.labels

    def subset(self, positions: np.ndarray) -> "Split":
        """The split of some positions of this one."""
        return Split(self.store, self.rows[positions], None if self.labels is None else self.labels[positions])


def store_images(
    count: int, shape: tuple[int, int, int], fill: Callable[[], Iterable[Decoded]], cache: str, key: str
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, str]]]:
    """Decoded images in memory where they fit, else in the disk cache.

    Returns:
        The images that could be read (n, S, S, C) uint8, their labels (n,) int64, and (index, reason) of
        the others.
    """
    needed = count * int(np.prod(shape))
    on_disk = cache == "disk" or (cache == "auto" and needed > MEMORY_SHARE * psutil.virtual_memory().available)
    if not on_disk:
        store = np.empty((count, *shape), np.uint8)
        labels, bad = _fill(store, fill())
        return store[: len(labels)], labels, bad
    folder = Path(os.environ.get("ROTNET_CACHE_DIR", "~/.cache/rotnet-keras")).expanduser()
    name = "".join(c if c.isalnum() or c in "-." else "_" for c in key)
    pixels_file, index_file = folder / f"{name}.npy", folder / f"{name}.index.npz"
    if not index_file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{name}.{os.getpid()}"
        mapped = np.lib.format.open_memmap(temporary, "w+", np.uint8, (count, *shape))
        labels, bad = _fill(mapped, fill())
        mapped.flush()
        temporary.replace(pixels_file)
        # Written last: where this file is, the pixels are complete.
        with temporary.open("wb") as file:
            why = np.array([reason for _, reason in bad], dtype=str)
            np.savez(file, labels=labels, bad=np.array([i for i, _ in bad], np.int64), why=why)
        temporary.replace(index_file)
    with np.load(index_file, allow_pickle=False) as index:
        labels = index["labels"]
        bad = [(int(i), str(w)) for i, w in zip(index["bad"], index["why"], strict=True)]
    return np.load(pixels_file, mmap_mode="r")[: len(labels)], labels, bad


def _fill(store: np.ndarray, decoded: Iterable[Decoded]) -> tuple[np.ndarray, list[tuple[int, str]]]:
    labels: list[int] = []
    bad: list[tuple[int, str]] = []
    for index, (pixels, label) in enumerate(decoded):
        if isinstance(pixels, str):
            bad.append((index, pixels))
        else:
            store[len(labels)] = pixels
            labels.append(label)
    return np.array(labels, np.int64), bad
