"""Reading folders of image files: decoded once and kept, or decoded whenever they are asked for."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.config.sections import Data
from rotnet_keras.data import decoding
from rotnet_keras.data.lazy_images import EncodedImages
from rotnet_keras.data.sources import FileList, FolderSource
from rotnet_keras.data.stores import NAMED, Decoded, Progress, Split, Store, cache_for, store_images
from rotnet_keras.errors import DataError
from rotnet_keras.text import first_few

DEFAULT_SIZE = 64
CHUNK = 256
SAMPLE = 200


class FolderImages(EncodedImages):
    """The image files of a folder.

    Args:
        which: (N,) the positions in `files` of the images.
        **options: those of `EncodedImages`.
    """

    def __init__(self, files: FileList, which: np.ndarray, **options: Any) -> None:
        super().__init__(**options)
        self.files, self.which = files, which

    def contents(self, row: int) -> bytes:
        """A file's bytes."""
        return self._path(row).read_bytes()

    def name(self, row: int) -> str:
        """A file's path."""
        return str(self._path(row))

    @property
    def image_bytes(self) -> float:
        """Of a sample of the files."""
        sample = self.which[:: max(1, len(self.which) // SAMPLE)]
        return float(np.mean([self.files[int(which)].stat().st_size for which in sample]))

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
        cache = "none" if data.whole else cache_for(len(files), shape, data.cache)
        every_label = np.array(source.labels.get(split, []), np.int64)
        if cache == "none":
            opened, bad = _opened(files, size, channels, data.whole, progress, split, notes)
            labels = every_label[opened.which] if source.class_names else None
            store = opened
        else:
            fill = partial(_decoded, files, every_label, size, channels, progress, split)
            key = f"{source.fingerprint()}-{split}-{size}-{channels}-2"
            store, kept, bad = store_images(len(files), shape, fill, cache, key)
            labels = kept if source.class_names else None
        if bad:
            reasons = [f"{files[i].relative_to(source.root)} ({why})" for i, why in bad]
            notes.append(
                f"{len(bad):,} of {len(files):,} {split} files cannot be read and are skipped: "
                f"{first_few(reasons, NAMED, '; ')}"
            )
        if not store.shape[0]:
            if split != "train":
                continue
            raise DataError(f"{source.root}: none of the {len(files)} image files can be read")
        splits[split] = Split(store, np.arange(store.shape[0]), labels)
    return splits, source.class_names


def _channels(source: FolderSource) -> int:
    """1 if every file of a sample is grey, else 3."""
    files = source.splits["train"]
    found = set()
    for i in range(0, len(files), max(1, len(files) // SAMPLE)):
        with suppress(decoding.UnreadableImage):
            found.add(decoding.look_at(files[i]).channels)
    return max(found, default=1)


def _opened(
    files: FileList, size: int, channels: int, whole: bool, progress: Progress, split: str, notes: list[str]
) -> tuple[FolderImages, list[tuple[int, str]]]:
    """A store that decodes, and the files that are no images at first sight."""

    def look(position: int) -> decoding.Header | str:
        try:
            return decoding.look_at(files[position])
        except decoding.UnreadableImage as error:
            return str(error)

    shapes, plain = np.ones((len(files), 2), np.int32), np.zeros(len(files), bool)
    bad: list[tuple[int, str]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), CHUNK):
            chunk = range(start, min(start + CHUNK, len(files)))
            for i, seen in zip(chunk, pool.map(look, chunk), strict=True):
                if isinstance(seen, str):
                    bad.append((i, seen))
                else:
                    shapes[i], plain[i] = (seen.width, seen.height), seen.plain
            progress(f"looking at {split} images", chunk[-1] + 1, len(files))
    which = np.delete(np.arange(len(files)), [i for i, _ in bad])
    options = {"size": size, "channels": channels, "whole": whole, "report": notes.append}
    return FolderImages(files, which, shapes=shapes[which], plain=plain[which], **options), bad


def _decoded(
    files: FileList, labels: np.ndarray, size: int, channels: int, progress: Progress, split: str
) -> Iterator[Decoded]:
    """All files in order, whole squares."""
    store, unseen = _opened(files, size, channels, False, progress, split, [])
    reasons = dict(unseen)
    row = 0
    for start in range(0, len(files), CHUNK):
        chunk = range(start, min(start + CHUNK, len(files)))
        rows = np.arange(row, row + sum(i not in reasons for i in chunk))
        pixels = iter(store.decoded(rows, store.frames(rows), size))
        for i in chunk:
            yield reasons[i] if i in reasons else next(pixels), int(labels[i]) if len(labels) else -1
        row += len(rows)
        progress(f"reading {split} images", chunk[-1] + 1, len(files))
