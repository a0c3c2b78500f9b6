"""Fingerprints of data by the contents of their files: they name cached copies and guard resumed runs.

The hash of a file is kept in the cache folder with the file's size and times, so that a later start reads only the
files that have changed. On two CPU cores, 10,000 files of 10 KB take 0.7 s at the first start and 0.04 s at later
ones; by names and sizes it was 0.12 s each time.
"""

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np

from rotnet_keras.data.stores import Progress, mapped_in_pieces, read_index
from rotnet_keras.errors import DataError
from rotnet_keras.files import cache_folder, make_private_folder, write_atomically

# Bytes of a hash, and files that are read between two reports of progress.
DIGEST_BYTES, CHUNK = 16, 256
# A file that was written within this time before it was read may be written again without a new time: the coarsest file
# systems count two seconds.
SETTLED_NS = 2_000_000_000
# How the fingerprints of earlier versions begin, which went by names and sizes.
OLD_FORMS = ("folder:", "voc:", "tfds:")


def file_digests(root: Path, names: Sequence[str], progress: Progress = lambda what, done, total: None) -> np.ndarray:
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
    known_names, known_facts, known_digests = _read_index(index)
    facts = np.array([_facts(root, name) for name in names], np.int64).reshape(-1, 3)
    digests = np.zeros((len(names), DIGEST_BYTES), np.uint8)
    if known_names == list(names):
        known = (known_facts == facts).all(axis=1)
        digests[known] = known_digests[known]
    else:
        rows = {name: row for row, name in enumerate(known_names)}
        known = np.zeros(len(names), bool)
        for i, name in enumerate(names):
            row = rows.get(name)
            if row is not None and (known_facts[row] == facts[i]).all():
                known[i], digests[i] = True, known_digests[row]
    unknown = np.flatnonzero(~known & (facts[:, 0] >= 0))
    if not len(unknown):
        return digests
    began = time.time_ns()
    readable = known.copy()
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(unknown), CHUNK):
            chunk = unknown[start : start + CHUNK]
            for i, digest in zip(chunk, mapped_in_pieces(pool, lambda i: _digest(root, names[i]), chunk), strict=True):
                if digest is not None:
                    readable[i], digests[i] = True, np.frombuffer(digest, np.uint8)
            progress("reading files to see whether they changed", start + len(chunk), len(unknown))
    settled = np.flatnonzero(readable & (facts[:, 2] < began - SETTLED_NS))
    # Other files below this folder may belong to another data set.
    asked = set(names)
    others = [row for row, name in enumerate(known_names) if name not in asked]
    _write_index(
        index,
        [*(names[int(i)] for i in settled), *(known_names[row] for row in others)],
        np.concatenate([facts[settled], known_facts[others]]),
        np.concatenate([digests[settled], known_digests[others]]),
    )
    return digests


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


def _facts(root: Path, name: str) -> tuple[int, int, int]:
    """Return size in bytes, time of modification and time of change, in ns; (-1, 0, 0) for what is no file."""
    try:
        # A `Path` for each file would take longer than the question.
        found = os.stat(f"{root}/{name}")  # noqa: PTH116
    except OSError:
        return -1, 0, 0
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns) if stat.S_ISREG(found.st_mode) else (-1, 0, 0)


def _digest(root: Path, name: str) -> bytes | None:
    try:
        with Path(root, name).open("rb", buffering=0) as file:
            return hashlib.file_digest(file, "blake2b").digest()[:DIGEST_BYTES]
    except OSError:
        return None


def _read_index(index: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return names, facts (N, 3) int64 and hashes (N, 16) uint8; none if the index is missing or damaged."""
    with suppress(OSError, DataError, KeyError):
        arrays = read_index(index)
        names = [os.fsdecode(name) for name in arrays["names"].tobytes().split(b"\0")[:-1]]
        if len(names) == len(arrays["facts"]) == len(arrays["digests"]):
            return names, arrays["facts"], arrays["digests"]
    return [], np.zeros((0, 3), np.int64), np.zeros((0, DIGEST_BYTES), np.uint8)


def _write_index(index: Path, names: Sequence[str], facts: np.ndarray, digests: np.ndarray) -> None:
    buffer = BytesIO()
    joined = b"".join(os.fsencode(name) + b"\0" for name in names)
    np.savez(buffer, names=np.frombuffer(joined, np.uint8), facts=facts, digests=digests)
    # Without it the next start reads the files again.
    with suppress(OSError):
        make_private_folder(index.parent)
        write_atomically(index, buffer.getvalue())
