"""Fingerprints of data by the contents of their files: they name cached copies and guard resumed runs.

The hash of a file is kept in the cache folder with the file's size and times, so that a later start reads only the
files that have changed. On two CPU cores, 10,000 files of 10 KB take 0.7 s at the first start and 0.04 s at later
ones; by names and sizes it was 0.12 s each time.
"""

import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from rotnet_keras.data.image_files import UnreadableImage
from rotnet_keras.data.listing.file_list import FileList, ImageFiles
from rotnet_keras.data.stores import Progress, mapped_in_pieces, read_index
from rotnet_keras.errors import DataError
from rotnet_keras.files import cache_folder, make_private_folder, write_atomically

# Bytes of a hash, and files that are read between two reports of progress.
DIGEST_BYTES, CHUNK = 16, 256
# Files that are read at once, and those whose facts a thread asks for in turn.
READ_AT_ONCE, FACTS_AT_ONCE = 16, 4096
NAME = re.compile(rb"[^\0]*\0")
# A file that was written within this time before it was read may be written again without a new time: the coarsest file
# systems count two seconds.
SETTLED_NS = 2_000_000_000
# How the fingerprints of earlier versions begin, which went by names and sizes.
OLD_FORMS = ("folder:", "voc:", "tfds:")


def file_digests(
    root: Path, names: Sequence[str] | FileList, progress: Progress = lambda what, done, total: None
) -> np.ndarray:
    """Return a hash of the content of each file.

    Args:
        root: a folder.
        names: the paths of the files below it.
        progress: called now and then while files are read.

    Returns:
        (N, 16) uint8; zeros for what is no file that can be read.
    """
    root = root.resolve()
    # Not the same name for two folders, and none of a folder's own characters.
    index = cache_folder() / f"contents-{hashlib.blake2b(os.fsencode(root), digest_size=16).hexdigest()}.npz"
    files = names if isinstance(names, FileList) else FileList.of(root, names)
    joined = files.joined()
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        facts = _all_facts(pool, root, files, progress)
        there = facts[:, 0] >= 0
        known, digests, others = _known_digests(index, joined, facts)
        unknown = np.flatnonzero(there & ~known)
        if not len(unknown):
            return digests
        began = time.time_ns()
        for start in range(0, len(unknown), CHUNK):
            chunk = unknown[start : start + CHUNK]
            found = mapped_in_pieces(pool, lambda i: _digest(root, files.name(i)), chunk)
            for i, digest in zip(chunk, found, strict=True):
                if digest is not None:
                    known[i], digests[i] = True, np.frombuffer(digest, np.uint8)
            progress("reading files to see whether they changed", start + len(chunk), len(unknown))
    settled = known & (facts[:, 2] < began - SETTLED_NS)
    kept = _Index(joined, facts, digests) if settled.all() else _Index(joined, facts, digests).rows(settled)
    _write_index(index, kept if others is None else kept.joined_with(others))
    return digests


def content_digests(files: ImageFiles, positions: np.ndarray, progress: Progress) -> np.ndarray:
    """Return a hash of the content of some image files, (n, 16) uint8; zeros for what cannot be read."""
    if isinstance(files, FileList):
        return file_digests(files.root, FileList.of(files.root, map(files.name, positions.tolist())), progress)
    digests = np.zeros((len(positions), DIGEST_BYTES), np.uint8)
    for row, position in enumerate(positions.tolist()):
        with suppress(OSError, UnreadableImage):
            content = files.content(position)
            assert isinstance(content, BytesIO)
            digests[row] = np.frombuffer(hashlib.blake2b(content.getvalue()).digest()[:DIGEST_BYTES], np.uint8)
        if row % CHUNK == 0:
            progress("comparing images", row, len(positions))
    return digests


@dataclass(frozen=True)
class _Index:
    """The hashes of files as the cache folder keeps them.

    Attributes:
        names: the paths of the N files, each followed by a zero byte.
        facts: (N, 3) int64: size in bytes, time of modification and time of change in ns.
        digests: (N, 16) uint8.
    """

    names: bytes
    facts: np.ndarray
    digests: np.ndarray

    def rows(self, chosen: np.ndarray) -> "_Index":
        """Return the chosen ones, given as (N,) bool."""
        names = b"".join(name[0] for name, keep in zip(NAME.finditer(self.names), chosen, strict=True) if keep)
        return _Index(names, self.facts[chosen], self.digests[chosen])

    def joined_with(self, other: "_Index") -> "_Index":
        """Return these and those of another one."""
        facts, digests = (self.facts, other.facts), (self.digests, other.digests)
        return _Index(self.names + other.names, np.concatenate(facts), np.concatenate(digests))


def _known_digests(index: Path, names: bytes, facts: np.ndarray) -> tuple[np.ndarray, np.ndarray, _Index | None]:
    """Return which of the files are known as they are (N,), their hashes (N, 16), and the other files of the index."""
    kept = _read_index(index)
    if kept.names == names:
        known = (kept.facts == facts).all(axis=1)
        kept.digests[~known] = 0
        return known, kept.digests, None
    hashes, kept_hashes = _name_hashes(names), _name_hashes(kept.names)
    known, digests = np.zeros(len(facts), bool), np.zeros((len(facts), DIGEST_BYTES), np.uint8)
    if not len(kept_hashes):
        return known, digests, None
    order = np.argsort(kept_hashes)
    rows = order[np.searchsorted(kept_hashes, hashes, sorter=order).clip(max=len(order) - 1)]
    known = (kept_hashes[rows] == hashes) & (kept.facts[rows] == facts).all(axis=1)
    digests[known] = kept.digests[rows[known]]
    # Other files below this folder may belong to another data set.
    return known, digests, kept.rows(~np.isin(kept_hashes, hashes))


def _name_hashes(names: bytes) -> np.ndarray:
    """Return a number for each name, (N,) int64, which another name has in this process with next to no probability."""
    return np.fromiter((hash(name[0]) for name in NAME.finditer(names)), np.int64)


def _all_facts(pool: Executor, root: Path, files: FileList, progress: Progress) -> np.ndarray:
    """Return the facts (N, 3) int64 of all files; asked for by several threads, since a far disk is slow to answer."""
    facts = np.empty((len(files), 3), np.int64)

    def fill(start: int) -> None:
        for position in range(start, min(start + FACTS_AT_ONCE, len(files))):
            facts[position] = file_facts(f"{root}/{files.name(position)}")

    starts = range(0, len(files), FACTS_AT_ONCE)
    for start, _ in zip(starts, pool.map(fill, starts), strict=True):
        if start:
            progress("looking for files that changed", start, len(files))
    return facts


def combined(kind: str, entries: Iterable[tuple[str, bytes]]) -> str:
    """Return the fingerprint of a data set from the names and the hashes of its files, in order."""
    digest = hashlib.blake2b()
    for name, content in entries:
        digest.update(os.fsencode(f"{name}\0") + content)
    return f"{kind}:{digest.hexdigest()[:16]}"


def in_form_of(recorded: str, fingerprint: str, old: Callable[[], str] | None) -> str:
    """Return the fingerprint that compares with a recorded one.

    Args:
        recorded: a fingerprint in a run folder or on a model's card, perhaps of an earlier version's form.
        fingerprint: of the data as they are, by content.
        old: computes the fingerprint by the earlier versions' rule; None where the form never changed.
    """
    return old() if old and recorded.startswith(OLD_FORMS) else fingerprint


def file_facts(path: str) -> tuple[int, int, int]:
    """Return size in bytes, time of modification and time of change, in ns; (-1, 0, 0) for what is no file."""
    try:
        # A `Path` for each file would take longer than the question.
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return -1, 0, 0
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns) if stat.S_ISREG(found.st_mode) else (-1, 0, 0)


def _digest(root: Path, name: str) -> bytes | None:
    try:
        with open(f"{root}/{name}", "rb", buffering=0) as file:  # noqa: PTH123
            return hashlib.file_digest(file, "blake2b").digest()[:DIGEST_BYTES]
    except OSError:
        return None


def _read_index(index: Path) -> _Index:
    """Return what an index in the cache folder holds; nothing if it is missing or damaged."""
    with suppress(OSError, DataError, KeyError):
        arrays = read_index(index)
        found = _Index(arrays["names"].tobytes(), arrays["facts"], arrays["digests"])
        count = found.names.count(b"\0")
        shapes = (found.facts.shape, found.digests.shape)
        if shapes == ((count, 3), (count, DIGEST_BYTES)) and found.names[-1:] in (b"", b"\0"):
            return found
    return _Index(b"", np.zeros((0, 3), np.int64), np.zeros((0, DIGEST_BYTES), np.uint8))


def _write_index(index: Path, kept: _Index) -> None:
    buffer = BytesIO()
    np.savez(buffer, names=np.frombuffer(kept.names, np.uint8), facts=kept.facts, digests=kept.digests)
    # Without it the next start reads the files again.
    with suppress(OSError):
        make_private_folder(index.parent)
        write_atomically(index, buffer.getvalue())
