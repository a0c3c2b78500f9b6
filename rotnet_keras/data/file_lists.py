"""Lists of files as long as a data set."""

import os
from array import array
from collections.abc import Iterator
from pathlib import Path


class FileList:
    """Files below a folder, in order, at a few bytes more than their names where a `Path` takes five hundred."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names = bytearray()
        self._ends = array("q")

    def append(self, name: str) -> None:
        """Add a file by its path below the root."""
        self._names += os.fsencode(name)
        self._ends.append(len(self._names))

    def name(self, position: int) -> str:
        """The path below the root."""
        start = self._ends[position - 1] if position else 0
        return os.fsdecode(bytes(self._names[start : self._ends[position]]))

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[Path]:
        return (self[position] for position in range(len(self)))

    def __getitem__(self, position: int) -> Path:
        return self.root / self.name(position)
