"""A program that reads the weights in a `.keras` file, within limits of time and memory.

HDF5 ends its process on some damaged files, and waits for ever on others. So a file of others is first read here, in a
process of its own, which imports nothing of this package:

    python -I weights_reader.py FILE MEMBER MEMORY_BYTES CPU_SECONDS

It prints one JSON object: `values`, the number of values, and `bytes`, their size; or `error`, what is wrong. A limit
of 0 is none.
"""

import io
import json
import os
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

# Before h5py is imported: HDF5 loads no libraries for filters. NumPy needs no threads, which take memory each.
os.environ["HDF5_PLUGIN_PRELOAD"] = "::"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import h5py
import numpy as np

# The filters that are a part of HDF5: deflate, shuffle and a checksum.
FILTERS = {1, 2, 3}
MOST_DATASETS = 100_000


def read(path: str, member: str) -> dict[str, int]:
    """Read every value of a member of the archive.

    Raises:
        ValueError: the file refers to other files, or to filters that are not a part of HDF5.
        OSError: it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        content = io.BytesIO(archive.read(member))
    found = {"values": 0, "bytes": 0, "datasets": 0}
    seen = set()
    with h5py.File(content, "r") as file:
        groups = [file]
        while groups:
            group = groups.pop()
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"{group.name}/{name} is a link")
                node = group[name]
                address = h5py.h5o.get_info(node.id).addr
                if address in seen:
                    raise ValueError(f"{node.name} is there twice")
                seen.add(address)
                if len(seen) > MOST_DATASETS:
                    raise ValueError(f"more than {MOST_DATASETS:,} arrays and groups")
                if isinstance(node, h5py.Group):
                    groups.append(node)
                else:
                    _read_array(node, found)
    return found


def _read_array(node: "h5py.Dataset", found: dict[str, int]) -> None:
    made = node.id.get_create_plist()
    if node.is_virtual or node.external:
        raise ValueError(f"{node.name} lies in another file")
    if any(made.get_filter(i)[0] not in FILTERS for i in range(made.get_nfilters())):
        raise ValueError(f"{node.name} needs a filter that is not a part of HDF5")
    if node.dtype.hasobject:
        raise ValueError(f"{node.name} is no array of numbers")
    if node.shape is not None:
        found["values"] += int(np.prod(node.shape, dtype=object))
        found["bytes"] += int(np.prod(node.shape, dtype=object)) * node.dtype.itemsize
        node[()]


def limit(memory: int, seconds: int) -> None:
    """Limit this process's processor time, and the memory in bytes that it may take beside what it has."""
    try:
        import resource
    except ImportError:  # Not on Windows, where the caller's limit of time remains.
        return
    limits = {resource.RLIMIT_CORE: 0}
    if seconds:
        limits[resource.RLIMIT_CPU] = seconds
    with suppress(OSError):  # Linux says how much address space a process has; elsewhere it is not limited well.
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        if memory:
            limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + memory
    for which, most in limits.items():
        hard = resource.getrlimit(which)[1]
        resource.setrlimit(which, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    limit(int(sys.argv[3]), int(sys.argv[4]))
    try:
        answer: dict[str, object] = {**read(sys.argv[1], sys.argv[2])}
    except MemoryError:
        answer = {"error": "they need more memory than they may take"}
    except Exception as error:  # Damaged files raise nearly anything.
        answer = {"error": str(error) or type(error).__name__}
    print(json.dumps(answer))
