"""Reading folders of image files: decoded once and kept, or decoded whenever they are asked for."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np

from rotnet_keras import images as image_files
from rotnet_keras.errors import DataError
from rotnet_keras.readers import Progress
from rotnet_keras.schema import Data
from rotnet_keras.sources import FolderSource, ImageFile
from rotnet_keras.stores import Decoded, Split, Store, cache_for, store_images

DEFAULT_SIZE = 64
NAMED = 20

T = TypeVar("T")


class FolderImages:
    """A store that holds nothing: every image is decoded, in parallel, each time it is asked for.

    Args:
        size, channels: see `images.read_image`.
        report: told, once for each, of files that turn out to be damaged; they are shown as black.
    """

    def __init__(self, files: Sequence[ImageFile], size: int, channels: int, report: Callable[[str], None]) -> None:
        self.files, self.size, self.channels, self.report = files, size, channels, report
        self.shape = (len(files), size, size, channels)
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
        places = [(int(row), (int(top), int(left), side)) for row, (top, left) in zip(rows, corners, strict=True)]
        return np.stack(list(self._pool.map(self._window, places)))

    def _window(self, place: tuple[int, image_files.Window]) -> np.ndarray:
        row, window = place
        try:
            return image_files.read_image(self.files[row].path, self.size, self.channels, window)
        except image_files.UnreadableImage as error:
            if row not in self._damaged:
                self._damaged.add(row)
                self.report(f"{self.files[row].path} cannot be read and is shown as black ({error})")
            return np.zeros((window[2], window[2], self.channels), np.uint8)


def read_folder(
    source: FolderSource, data: Data, progress: Progress, notes: list[str]
) -> tuple[dict[str, Split], list[str]]:
    """The splits below a folder and its class names; files that cannot be read go to `notes`, even later."""
    size = data.size or DEFAULT_SIZE
    channels = data.channels or _channels(source)
    splits = {}
    for split, files in source.splits.items():
        cache = cache_for(len(files), (size, size, channels), data.cache)
        if cache == "none":
            store, labels, bad = _opened(files, size, channels, progress, split, notes)
        else:
            fill = partial(_decoded, files, size, channels, progress, f"reading {split} images")
            key = f"{source.fingerprint()}-{split}-{size}-{channels}"
            store, labels, bad = store_images(len(files), (size, size, channels), fill, cache, key)
        if bad:
            listed = "; ".join(f"{files[i].path.relative_to(source.root)} ({why})" for i, why in bad[:NAMED])
            more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
            notes.append(f"{len(bad)} of {len(files)} {split} files cannot be read and are skipped: {listed}{more}")
        if not store.shape[0]:
            if split != "train":
                continue
            raise DataError(f"{source.root}: none of the {len(files)} image files can be read")
        splits[split] = Split(store, np.arange(store.shape[0]), labels if source.class_names else None)
    return splits, source.class_names


def _channels(source: FolderSource) -> int:
    """1 if every file of a sample is grey, else 3."""
    files = source.splits["train"]
    sample = files[:: max(1, len(files) // 200)]
    return 1 if {image_files.file_channels(file.path) for file in sample} <= {1, None} else 3


def _opened(
    files: list[ImageFile], size: int, channels: int, progress: Progress, split: str, notes: list[str]
) -> tuple[Store, np.ndarray, list[tuple[int, str]]]:
    """A store that decodes, without the files that are no images at first sight."""

    def look(file: ImageFile) -> str | None:
        try:
            image_files.check_image(file.path)
        except image_files.UnreadableImage as error:
            return str(error)
        return None

    verdicts = list(_in_parallel(look, files, progress, f"looking at {split} images"))
    good = [file for file, verdict in zip(files, verdicts, strict=True) if verdict is None]
    labels = np.array([_label(file) for file in good], np.int64)
    bad = [(i, verdict) for i, verdict in enumerate(verdicts) if verdict is not None]
    return FolderImages(good, size, channels, notes.append), labels, bad


def _decoded(files: list[ImageFile], size: int, channels: int, progress: Progress, what: str) -> Iterator[Decoded]:
    def read(file: ImageFile) -> Decoded:
        try:
            return image_files.read_image(file.path, size, channels), _label(file)
        except image_files.UnreadableImage as error:
            return str(error), _label(file)

    return _in_parallel(read, files, progress, what)


def _label(file: ImageFile) -> int:
    return -1 if file.label is None else file.label


def _in_parallel(work: Callable[[ImageFile], T], files: list[ImageFile], progress: Progress, what: str) -> Iterator[T]:
    done = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), 256):
            chunk = files[start : start + 256]
            yield from pool.map(work, chunk)
            done += len(chunk)
            progress(what, done, len(files))
