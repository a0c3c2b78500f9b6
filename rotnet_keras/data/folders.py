"""Reading folders of image files, which are decoded once and stored, or decoded each time they are used."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.config.sections import Data
from rotnet_keras.data import decoding
from rotnet_keras.data.audit import DEFAULT_SIZE
from rotnet_keras.data.crops import fit_of
from rotnet_keras.data.image_files import max_bytes
from rotnet_keras.data.lazy_images import LazyImages
from rotnet_keras.data.listing.file_list import ImageFiles
from rotnet_keras.data.listing.sources import ListedSource
from rotnet_keras.data.stores import (
    BYTES,
    NAMED,
    NUMBERS,
    Decoded,
    Progress,
    Split,
    Store,
    decode_and_store,
    mapped_in_pieces,
    place_of,
    read_index,
)
from rotnet_keras.data.values.samples import sampled_values
from rotnet_keras.errors import DataError
from rotnet_keras.files import cache_folder, make_private_folder, read_file, write_atomically
from rotnet_keras.text import first_few

# Files that are read between two reports of progress.
CHUNK = 256
# Files whose lengths are looked at to estimate that of all.
SAMPLE = 200


class FolderImages(LazyImages):
    """The image files of a folder, decoded each time they are used.

    Args:
        files: image files, readable or not.
        positions: (N,) the positions in `files` of the readable ones.
        **options: the arguments of `LazyImages`.
    """

    def __init__(self, files: ImageFiles, positions: np.ndarray, **options: Any) -> None:
        super().__init__(**options)
        self.files, self.positions = files, positions

    def contents(self, row: int) -> bytes:
        """Return the bytes of a file."""
        try:
            content = self.files.content(int(self.positions[row]))
        except decoding.UnreadableImage as error:
            raise OSError(str(error)) from None
        return read_file(content, max_bytes()) if isinstance(content, Path) else content.getvalue()

    def name(self, row: int) -> str:
        """Return where a file is."""
        return self.files.place(int(self.positions[row]))

    @property
    def image_bytes(self) -> float:
        """Return the mean size in bytes of a sample of the files."""
        sample = self.positions[:: max(1, len(self.positions) // SAMPLE)]
        return float(np.mean([self.files.size(int(position)) for position in sample]))


def read_folder(
    source: ListedSource, data: Data, fingerprint: str, kept: dict[str, str], progress: Progress, notes: list[str]
) -> tuple[dict[str, Split], list[str]]:
    """Read the splits of a folder and its class names.

    Args:
        fingerprint: of the source; it names the copies of decoded images in the cache folder.
        kept: where each split's decoded images are kept, as an earlier start chose; receives the other choices.
        notes: receives a sentence about files that cannot be read; during training too, if a file turns out to be
            damaged.

    Raises:
        DataError: no file for training can be read.
    """
    fit = fit_of(data, DEFAULT_SIZE)
    assert fit is not None
    channels, deep = sampled_values(source)
    channels = data.channels or channels
    options: dict[str, Any] = {"fit": fit, "channels": channels, "deep": deep}
    dtype = NUMBERS if deep else BYTES
    splits = {}
    store: Store
    for split, files in source.splits.items():
        shape = (*fit.shape, channels)
        cache = place_of(split, len(files), shape, data, kept, dtype)
        every_label = np.array(source.labels.get(split, []), np.int64)
        if cache == "none":
            key = f"headers-{fingerprint}-{split}-{channels}{'-values' * deep}"
            lazy, bad = _open_lazily(files, progress, split, notes, key, whole=data.whole, **options)
            labels = every_label[lazy.positions] if source.class_names else None
            store = lazy
        else:
            fill = partial(_decode_all, files, every_label, progress, split, options)
            key = f"{fingerprint}-{split}-{fit.key()}-{channels}-{'values-' * deep}{decoding.DECODER}"
            store, stored_labels, bad = decode_and_store(len(files), shape, fill, cache, key, dtype)
            labels = stored_labels if source.class_names else None
        if bad:
            reasons = [f"{files.shown(i, source.root)} ({why})" for i, why in bad]
            notes.append(
                f"{len(bad):,} of {len(files):,} {split} files cannot be read and are skipped: "
                f"{first_few(reasons, NAMED, '; ')}"
            )
        if not store.shape[0]:
            if split != "train":
                continue
            why = f": {Path(files.name(bad[0][0])).name}: {bad[0][1]}" if bad else ""
            raise DataError(f"{source.root}: none of the {len(files)} image files can be read{why}")
        splits[split] = Split(store, np.arange(store.shape[0]), labels)
    notes += source.left_out.warnings()
    return splits, source.class_names


def _open_lazily(
    files: ImageFiles, progress: Progress, split: str, notes: list[str], key: str | None, **options: Any
) -> tuple[FolderImages, list[tuple[int, str]]]:
    """Read the headers of all files; return a store of the readable ones, and (position, reason) of the others.

    Args:
        key: what identifies the contents of the files. The sizes of their images are kept in the cache folder under
            this name, so that later starts look only at those files that could not be read; None to keep nothing.
    """
    kept = cache_folder() / f"{key.replace(':', '-')}.npz" if key else None

    def read(position: int) -> decoding.Header | str:
        try:
            header = decoding.read_header(files.content(position))
        except decoding.UnreadableImage as error:
            return str(error)
        why = decoding.misfit(header, options["channels"], options["deep"])
        return why or header

    shapes = _kept_shapes(kept, len(files))
    unknown = np.flatnonzero(shapes[:, 0] == 0)
    bad: list[tuple[int, str]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(unknown), CHUNK):
            chunk = unknown[start : start + CHUNK]
            for i, header in zip(chunk.tolist(), mapped_in_pieces(pool, read, chunk), strict=True):
                if isinstance(header, str):
                    bad.append((i, header))
                else:
                    shapes[i] = header.width, header.height
            progress(f"reading the headers of {split} images", start + len(chunk), len(unknown))
    if kept and len(bad) < len(unknown):
        _keep_shapes(kept, shapes)
    readable = np.flatnonzero(shapes[:, 0])
    shapes = shapes if not bad else shapes[readable]
    return FolderImages(files, readable, shapes=shapes, report=notes.append, **options), bad


def _kept_shapes(kept: Path | None, count: int) -> np.ndarray:
    """Return the sizes of the images that an earlier start has read, (N, 2) int32; 0 where it could not."""
    with suppress(OSError, DataError, KeyError):
        shapes = read_index(kept)["shapes"] if kept and kept.is_file() else None
        if shapes is not None and shapes.shape == (count, 2) and shapes.dtype == np.int32 and (shapes >= 0).all():
            return shapes
    return np.zeros((count, 2), np.int32)


def _keep_shapes(kept: Path, shapes: np.ndarray) -> None:
    buffer = BytesIO()
    np.savez(buffer, shapes=shapes)
    # Without it the next start reads the headers again.
    with suppress(OSError):
        make_private_folder(kept.parent)
        write_atomically(kept, buffer.getvalue())


def _decode_all(
    files: ImageFiles, labels: np.ndarray, progress: Progress, split: str, options: dict[str, Any]
) -> Iterator[Decoded]:
    """Yield the central part and the label of every file in order."""
    store, unseen = _open_lazily(files, progress, split, [], None, whole=False, **options)
    reasons = dict(unseen)
    row = 0
    for start in range(0, len(files), CHUNK):
        chunk = range(start, min(start + CHUNK, len(files)))
        rows = np.arange(row, row + sum(i not in reasons for i in chunk))
        pixels = iter(store.decode(rows, store.frames(rows), store.fit.shape))
        for i in chunk:
            yield reasons[i] if i in reasons else next(pixels), int(labels[i]) if len(labels) else -1
        row += len(rows)
        progress(f"decoding {split} images", chunk[-1] + 1, len(files))
