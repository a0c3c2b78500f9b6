"""Reading folders of image files: decoded once and kept, or decoded whenever they are asked for."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from rotnet_keras import images as image_files
from rotnet_keras import jpegs
from rotnet_keras.engine import tf
from rotnet_keras.errors import DataError
from rotnet_keras.file_lists import FileList
from rotnet_keras.readers import Progress
from rotnet_keras.schema import Data
from rotnet_keras.sources import FolderSource
from rotnet_keras.stores import Decoded, Split, Store, cache_for, store_images

DEFAULT_SIZE = 64
NAMED = 20
CHUNK = 256


class FolderImages:
    """A store that holds nothing: images are decoded, in parallel, each time they are asked for.

    Args:
        which: (N,) the positions in `files` of the images.
        shapes: (N, 2) width and height of the files that TensorFlow can decode, 0 for those left to Pillow.
        size, channels: see `images.read_image`.
        report: told, once for each, of files that turn out to be damaged; they are shown as black.
    """

    def __init__(
        self,
        files: FileList,
        which: np.ndarray,
        shapes: np.ndarray,
        size: int,
        channels: int,
        report: Callable[[str], None],
    ) -> None:
        self.files, self.which, self.shapes, self.size, self.channels = files, which, shapes, size, channels
        self.shape = (len(which), size, size, channels)
        self._report = report
        self._damaged: set[int] = set()
        self._pool = ThreadPoolExecutor(os.cpu_count())

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        return self.windows(rows, np.zeros((len(rows), 2), int), self.size)

    def windows(self, rows: np.ndarray, corners: np.ndarray, side: int) -> np.ndarray:
        """Parts of the images, of which the rest is not computed.

        Args:
            corners: (n, 2) int, top and left.
            side: of the windows, in pixels.

        Returns:
            (n, side, side, C) uint8.
        """
        images = np.zeros((len(rows), side, side, self.channels), np.uint8)
        for image, row, pixels in zip(images, rows, self.decoded(rows, corners, side), strict=True):
            if not isinstance(pixels, str):
                image[:] = pixels
            elif row not in self._damaged:
                self._damaged.add(row)
                self._report(f"{self._path(row)} cannot be read and is shown as black ({pixels})")
        return images

    def decoded(self, rows: np.ndarray, corners: np.ndarray, side: int) -> list[np.ndarray | str]:
        """The same, with the reason in the place of an image that cannot be read."""
        windows = [(int(top), int(left), side) for top, left in corners]
        results: dict[int, np.ndarray | str] = {}
        parts = [
            (i, (self._path(row), (int(self.shapes[row, 0]), int(self.shapes[row, 1])), windows[i]))
            for i, row in enumerate(rows)
            if self.shapes[row, 0]
        ]
        try:
            pixels = jpegs.decode([part for _, part in parts], self.size, side, self.channels)
            results |= zip([i for i, _ in parts], pixels, strict=True)
        except tf.errors.OpError:
            # One damaged file fails the batch; Pillow finds out which.
            pass
        others = [i for i in range(len(rows)) if i not in results]
        read = self._pool.map(lambda i: self._read(int(rows[i]), windows[i]), others)
        results |= zip(others, read, strict=True)
        return [results[i] for i in range(len(rows))]

    def _read(self, row: int, window: image_files.Window) -> np.ndarray | str:
        try:
            return image_files.read_image(self._path(row), self.size, self.channels, window)
        except image_files.UnreadableImage as error:
            return str(error)

    def _path(self, row: int) -> Path:
        return self.files[int(self.which[row])]


def read_folder(
    source: FolderSource, data: Data, progress: Progress, notes: list[str]
) -> tuple[dict[str, Split], list[str]]:
    """The splits below a folder and its class names; files that cannot be read go to `notes`, even later."""
    size = data.size or DEFAULT_SIZE
    channels = data.channels or _channels(source)
    splits = {}
    store: Store
    for split, files in source.splits.items():
        shape = (size, size, channels)
        cache = cache_for(len(files), shape, data.cache)
        every_label = np.array(source.labels.get(split, []), np.int64)
        if cache == "none":
            store, bad = _opened(files, size, channels, progress, split, notes)
            labels = every_label[store.which] if source.class_names else None
        else:
            fill = partial(_decoded, files, every_label, size, channels, progress, split)
            key = f"{source.fingerprint()}-{split}-{size}-{channels}-2"
            store, kept, bad = store_images(len(files), shape, fill, cache, key)
            labels = kept if source.class_names else None
        if bad:
            listed = "; ".join(f"{files[i].relative_to(source.root)} ({why})" for i, why in bad[:NAMED])
            more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
            notes.append(f"{len(bad)} of {len(files)} {split} files cannot be read and are skipped: {listed}{more}")
        if not store.shape[0]:
            if split != "train":
                continue
            raise DataError(f"{source.root}: none of the {len(files)} image files can be read")
        splits[split] = Split(store, np.arange(store.shape[0]), labels)
    return splits, source.class_names


def _channels(source: FolderSource) -> int:
    """1 if every file of a sample is grey, else 3."""
    files = source.splits["train"]
    sample = range(0, len(files), max(1, len(files) // 200))
    return 1 if {image_files.file_channels(files[i]) for i in sample} <= {1, None} else 3


def _opened(
    files: FileList, size: int, channels: int, progress: Progress, split: str, notes: list[str]
) -> tuple[FolderImages, list[tuple[int, str]]]:
    """A store that decodes, and the files that are no images at first sight."""

    def look(position: int) -> tuple[int, int] | str | None:
        try:
            return image_files.look_at(files[position])
        except image_files.UnreadableImage as error:
            return str(error)

    shapes = np.zeros((len(files), 2), np.int32)
    bad: list[tuple[int, str]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), CHUNK):
            chunk = range(start, min(start + CHUNK, len(files)))
            for i, seen in zip(chunk, pool.map(look, chunk), strict=True):
                if isinstance(seen, str):
                    bad.append((i, seen))
                elif seen is not None:
                    shapes[i] = seen
            progress(f"looking at {split} images", chunk[-1] + 1, len(files))
    which = np.delete(np.arange(len(files)), [i for i, _ in bad])
    return FolderImages(files, which, shapes[which], size, channels, notes.append), bad


def _decoded(
    files: FileList, labels: np.ndarray, size: int, channels: int, progress: Progress, split: str
) -> Iterator[Decoded]:
    """All files in order, whole squares."""
    store, unseen = _opened(files, size, channels, progress, split, [])
    reasons = dict(unseen)
    row = 0
    for start in range(0, len(files), CHUNK):
        chunk = range(start, min(start + CHUNK, len(files)))
        rows = np.arange(row, row + sum(i not in reasons for i in chunk))
        pixels = iter(store.decoded(rows, np.zeros((len(rows), 2), int), size))
        for i in chunk:
            yield reasons[i] if i in reasons else next(pixels), int(labels[i]) if len(labels) else -1
        row += len(rows)
        progress(f"reading {split} images", chunk[-1] + 1, len(files))
