"""Looking at every file of a data set once: the sizes of its images, damage and duplicates."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from rotnet_keras.data.decoding import Header, UnreadableImage, read_header, read_image
from rotnet_keras.data.fingerprints import DIGEST_BYTES, content_digests
from rotnet_keras.data.listing.file_list import ImageFiles
from rotnet_keras.data.listing.sources import ListedSource
from rotnet_keras.data.stores import Progress, mapped_in_pieces

# Damage behind a file's header shows only in decoding, which is tried on about this many evenly spaced files.
DECODED_FILES = 2000
# Side in pixels that files are decoded at.
DECODED_SIDE = 32
# Files that are read between two reports of progress.
CHUNK = 256


@dataclass(frozen=True)
class Headers:
    """What the headers of the N files of a split say.

    Attributes:
        sizes: (N, 2) int32, width and height of each image; zeros where a file cannot be read.
        unreadable: (position, reason) of these.
        rotated: number of files whose EXIF tag says that they must be rotated or mirrored.
        decoded: number of files that were decoded.
    """

    sizes: np.ndarray
    unreadable: list[tuple[int, str]]
    rotated: int
    decoded: int


def read_headers(files: ImageFiles, split: str, progress: Progress) -> Headers:
    """Return what the headers of all files say; some of the files are decoded, too."""
    every = -(-len(files) // DECODED_FILES)

    def read(position: int) -> Header | str:
        try:
            content = files.content(position)
            header = read_header(content)
            if position % every == 0:
                read_image(content, DECODED_SIDE, header.channels, deep=header.deep)
            return header
        except UnreadableImage as error:
            return str(error)

    sizes = np.zeros((len(files), 2), np.int32)
    unreadable: list[tuple[int, str]] = []
    rotated = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), CHUNK):
            chunk = range(start, min(start + CHUNK, len(files)))
            for position, header in zip(chunk, mapped_in_pieces(pool, read, chunk), strict=True):
                if isinstance(header, str):
                    unreadable.append((position, header))
                else:
                    sizes[position] = header.width, header.height
                    rotated += header.exif_rotated
            progress(f"reading {split} images", chunk[-1] + 1, len(files))
    return Headers(sizes, unreadable, rotated, len(range(0, len(files), every)))


def find_duplicates(source: ListedSource, progress: Progress) -> list[list[tuple[str, str]]]:
    """Return groups of (split, name) of files with equal contents; only files of equal sizes are read."""
    sizes = {split: _file_sizes(files) for split, files in source.splits.items()}
    values, counts = np.unique(np.concatenate(list(sizes.values())), return_counts=True)
    several = values[(counts > 1) & (values > 0)]
    where: list[tuple[str, np.ndarray]] = []
    digests = [np.zeros((0, DIGEST_BYTES), np.uint8)]
    for split, files in source.splits.items():
        positions = np.flatnonzero(np.isin(sizes[split], several))
        found = content_digests(files, positions, progress)
        read = found.any(axis=1)
        where.append((split, positions[read]))
        digests.append(found[read])
    hashes = np.concatenate(digests).view(f"V{DIGEST_BYTES}").ravel()
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(hashes[order][1:] != hashes[order][:-1]) + 1
    groups = [sorted(group.tolist()) for group in np.split(order, starts) if len(group) > 1]
    names = {}
    for row in (row for group in groups for row in group):
        split, position = _of_row(where, row)
        names[row] = split, source.splits[split].shown(position, source.root)
    return [[names[row] for row in group] for group in sorted(groups)]


def _of_row(where: list[tuple[str, np.ndarray]], row: int) -> tuple[str, int]:
    """Return the split and the position of a row that counts through the positions of all splits."""
    for split, positions in where:
        if row < len(positions):
            return split, int(positions[row])
        row -= len(positions)
    raise IndexError(row)


def _file_sizes(files: ImageFiles) -> np.ndarray:
    """Return the size of each file in bytes, (N,) int64; 0 for what is not there any more."""
    sizes = np.zeros(len(files), np.int64)
    for position in range(len(files)):
        with suppress(OSError):
            sizes[position] = files.size(position)
    return sizes
