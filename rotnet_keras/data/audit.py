"""A look at a folder of images or a file of arrays, before anything is trained on it."""

import hashlib
import math
import os
import statistics
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rotnet_keras.config.sections import Data
from rotnet_keras.data.decoding import Header, UnreadableImage, look_at, read_image
from rotnet_keras.data.sources import ARRAY_NAMES, ArraySource, FileList, FolderSource, find_source
from rotnet_keras.data.stores import Progress
from rotnet_keras.errors import DataError

# Damage behind a file's header shows only when it is decoded; of more files, so many in even distances are.
DECODED = 2000
# What decoding is tried at, in pixels.
SMALL = 32
CHUNK = 256


@dataclass(frozen=True)
class Survey:
    """What there is to train on.

    Attributes:
        path: of the folder or the file.
        images: that can be read, by split.
        classes: images for training of each class; empty where there are no labels.
        sides: the shortest, the median and the longest short side of the images, in pixels.
        square: whether all of them are squares.
        channels: 1 or 3 of image files, any number of arrays.
        kinds: files by their suffix; of arrays, images by their dtype.
        unreadable: files and what is wrong with them.
        decoded: files that were decoded to find damage behind their headers.
        duplicates: groups of files with equal contents.
        shared: how many of these groups lie in several splits.
        turned: files whose EXIF tag turns or mirrors them.
    """

    path: Path
    images: dict[str, int]
    classes: dict[str, int]
    sides: tuple[int, int, int]
    square: bool
    channels: int
    kinds: dict[str, int]
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    decoded: int = 0
    duplicates: list[list[str]] = field(default_factory=list)
    shared: int = 0
    turned: int = 0

    @property
    def extent(self) -> str:
        """The lengths of short sides, "128" or "96 to 512"."""
        shortest, _, longest = self.sides
        return str(shortest) if shortest == longest else f"{shortest} to {longest}"


def survey(name: str, progress: Progress = lambda what, done, total: None) -> Survey:
    """Look at the images that a recipe's `data.name` could name: a folder or an .npz file.

    Raises:
        DataError: there are none, or they are a data set of another kind.
    """
    path = Path(name).expanduser()
    source = find_source(Data(name=str(path.absolute())))
    if isinstance(source, FolderSource):
        return _of_folder(source, progress)
    assert isinstance(source, ArraySource)
    return _of_arrays(source)


def _of_folder(source: FolderSource, progress: Progress) -> Survey:
    headers: list[Header] = []
    unreadable: list[tuple[str, str]] = []
    images: dict[str, int] = {}
    classes: Counter[str] = Counter()
    decoded = 0
    for split, files in source.splits.items():
        seen, tried = _looked_at(files, split, progress)
        decoded += tried
        for position, what in enumerate(seen):
            if isinstance(what, str):
                unreadable.append((str(files[position].relative_to(source.root)), what))
                continue
            headers.append(what)
            images[split] = images.get(split, 0) + 1
            if split == "train" and source.class_names:
                classes[source.class_names[source.labels[split][position]]] += 1
    duplicates = _duplicates(source)
    if "train" not in images:
        raise DataError(f"{source.root}: no file for training can be read, for example {': '.join(unreadable[0])}")
    return Survey(
        path=source.root,
        images=images,
        classes=dict(sorted(classes.items())),
        sides=_sides([min(header.width, header.height) for header in headers]),
        square=all(header.width == header.height for header in headers),
        channels=max(header.channels for header in headers),
        kinds=dict(Counter(file.suffix.lower()[1:] for files in source.splits.values() for file in files)),
        unreadable=unreadable,
        decoded=decoded,
        duplicates=[[name for _, name in group] for group in duplicates],
        shared=sum(len({split for split, _ in group}) > 1 for group in duplicates),
        turned=sum(header.turned for header in headers),
    )


def _looked_at(files: FileList, split: str, progress: Progress) -> tuple[list[Header | str], int]:
    """The header of each file, or what is wrong with it, and how many were decoded."""
    every = -(-len(files) // DECODED)

    def look(position: int) -> Header | str:
        try:
            header = look_at(files[position])
            if position % every == 0:
                read_image(files[position], SMALL, header.channels)
            return header
        except UnreadableImage as error:
            return str(error)

    seen: list[Header | str] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), CHUNK):
            seen += pool.map(look, range(start, min(start + CHUNK, len(files))))
            progress(f"looking at {split} images", len(seen), len(files))
    return seen, len(range(0, len(files), every))


def _duplicates(source: FolderSource) -> list[list[tuple[str, str]]]:
    """Groups of files of equal contents, by split and name; only files of equal sizes are read."""
    by_size: dict[int, list[tuple[str, Path]]] = {}
    for split, files in source.splits.items():
        for file in files:
            if file.is_file() and (size := file.stat().st_size):
                by_size.setdefault(size, []).append((split, file))
    by_content: dict[bytes, list[tuple[str, str]]] = {}
    for alike in by_size.values():
        for split, file in alike if len(alike) > 1 else []:
            with suppress(OSError), file.open("rb") as content:
                key = hashlib.file_digest(content, "blake2b").digest()
                by_content.setdefault(key, []).append((split, str(file.relative_to(source.root))))
    return [group for group in by_content.values() if len(group) > 1]


def _of_arrays(source: ArraySource) -> Survey:
    images: dict[str, int] = {}
    classes: dict[str, int] = {}
    kinds: dict[str, int] = {}
    sides: list[int] = []
    square, channels = True, 0
    with _opened(source.path) as (archive, arrays):
        for split, names in ARRAY_NAMES.items():
            for pixels, labels in names:
                if pixels not in arrays:
                    continue
                shape, dtype = _header(archive, f"{pixels}.npy")
                if len(shape) not in (3, 4):
                    raise DataError(f"{source.path}: {pixels}: expected images (N, H, W) or (N, H, W, C), got {shape}")
                images[split], channels = shape[0], shape[3] if len(shape) == 4 else 1
                sides.append(min(shape[1:3]))
                square = square and shape[1] == shape[2]
                kinds[str(dtype)] = kinds.get(str(dtype), 0) + shape[0]
                if split == "train" and labels in arrays:
                    numbers, counts = np.unique(arrays[labels], return_counts=True)
                    classes = {str(number): int(count) for number, count in zip(numbers, counts, strict=True)}
                break
    if not images.get("train"):
        known = ", ".join(pixels for names in ARRAY_NAMES.values() for pixels, _ in names)
        raise DataError(f"{source.path}: no images for training (looked for arrays called {known})")
    return Survey(source.path, images, classes, _sides(sides), square, channels, kinds)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, Mapping[str, np.ndarray]]]:
    """An .npz file, for its headers and for its arrays.

    Raises:
        DataError: it turns out to be damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as arrays:
            yield archive, arrays
    except DataError:
        raise
    except Exception as error:  # A damaged archive raises nearly anything.
        raise DataError(f"{path}: cannot be read: {error}") from None


def _header(archive: zipfile.ZipFile, member: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an array, without reading it."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if math.prod(shape) * dtype.itemsize != archive.getinfo(member).file_size - file.tell():
            raise ValueError(f"{member} is not as long as its header says")
        return shape, dtype


def _sides(sides: list[int]) -> tuple[int, int, int]:
    return min(sides), round(statistics.median(sides)), max(sides)
