"""Lists of image files that take few bytes a file."""

import os
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Protocol


class ImageFiles(Protocol):
    """The image files of a split, wherever they are kept, in order."""

    def __len__(self) -> int: ...

    def name(self, position: int) -> str:
        """Return the name of a file below the folder of the split."""

    def shown(self, position: int, root: Path) -> str:
        """Return the name of a file for messages, below the folder of the data set."""

    def place(self, position: int) -> str:
        """Return where a file is, for messages."""

    def content(self, position: int) -> Path | BytesIO:
        """Return what a file's reader takes: where it is, or its bytes.

        Raises:
            UnreadableImage: it cannot be read.
        """

    def size(self, position: int) -> int:
        """Return the size of a file in bytes.

        Raises:
            OSError: there is no such file any more.
        """

    def suffixes(self) -> Counter[str]:
        """Return the number of files with each suffix, in lower case and with its dot."""


class FileList:
    """The files below a folder, in order; each takes the bytes of its own name and 12 more.

    A `Path` for each would take five hundred bytes.

    Attributes:
        root: the folder.
        folders: the paths below it of the folders that hold files; an empty string for itself.
        folder_numbers: which of them holds each file.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: list[str] = []
        self.folder_numbers = array("i")
        self._known: dict[str, int] = {}
        self._names = bytearray()
        self._ends = array("q")

    @classmethod
    def of(cls, root: Path, names: Iterable[str]) -> "FileList":
        """Return a list of files, given as paths below the root."""
        found = cls(root)
        for name in names:
            found.append(name)
        return found

    def append(self, name: str) -> None:
        """Add a file, given its path below the root."""
        folder, _, own = name.rpartition(os.sep)
        self.extend(folder, [own])

    def extend(self, folder: str, names: Sequence[str]) -> None:
        """Add files of one folder, given its path below the root."""
        if not names:
            return
        number = self._known.setdefault(folder, len(self.folders))
        if number == len(self.folders):
            self.folders.append(folder)
        for name in names:
            self._names += os.fsencode(name)
            self._ends.append(len(self._names))
            self.folder_numbers.append(number)

    def name(self, position: int) -> str:
        """Return the path of a file below the root."""
        start = self._ends[position - 1] if position else 0
        own = os.fsdecode(bytes(self._names[start : self._ends[position]]))
        folder = self.folders[self.folder_numbers[position]]
        return f"{folder}{os.sep}{own}" if folder else own

    def names(self) -> Iterator[str]:
        """Yield the paths of the files below the root."""
        return map(self.name, range(len(self)))

    def joined(self) -> bytes:
        """Return the paths of the files below the root, each followed by a zero byte."""
        found = bytearray()
        for name in self.names():
            found += os.fsencode(name) + b"\0"
        return bytes(found)

    def in_folders(self, wanted: Collection[str]) -> "FileList":
        """Return the files of some folders, which are given as paths below the root."""
        chosen = [folder in wanted for folder in self.folders]
        if all(chosen):
            return self
        found = FileList(self.root)
        for position, number in enumerate(self.folder_numbers):
            if chosen[number]:
                found.append(self.name(position))
        return found

    def counts(self) -> Counter[str]:
        """Return the number of files in each folder."""
        return Counter({self.folders[number]: count for number, count in Counter(self.folder_numbers).items()})

    def shown(self, position: int, root: Path) -> str:
        """Return the path of a file below another folder, of which this list has the files of a part."""
        return str(self[position].relative_to(root))

    def place(self, position: int) -> str:
        """Return the path of a file."""
        return str(self[position])

    def content(self, position: int) -> Path:
        """Return the path of a file."""
        return self[position]

    def size(self, position: int) -> int:
        """Return the size of a file in bytes.

        Raises:
            OSError: there is no such file any more.
        """
        # A `Path` for each file would take longer than the question.
        return os.stat(f"{self.root}{os.sep}{self.name(position)}").st_size  # noqa: PTH116

    def suffixes(self) -> Counter[str]:
        """Return the number of files with each suffix, in lower case and with its dot."""
        return Counter(os.path.splitext(name)[1].lower() for name in self.names())  # noqa: PTH122

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[Path]:
        return (self[position] for position in range(len(self)))

    def __getitem__(self, position: int) -> Path:
        return self.root / self.name(position)
