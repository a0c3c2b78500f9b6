"""Sources of images that are listed one by one: the files of a folder, the members of tar files."""

import hashlib
import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rotnet_keras.data.layout import LeftOut
from rotnet_keras.data.listing.file_list import FileList, ImageFiles

if TYPE_CHECKING:
    from rotnet_keras.data.stores import Progress


def quiet(what: str, done: int, total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class ListedSource(ABC):
    """Images that are listed one by one, with or without classes, in one or several splits.

    Attributes:
        root: the folder that names are shown below.
        splits: the files of each split.
        labels: the class index of each file, by split; empty for images without classes, -1 for a file without.
        class_names: the names of the classes; empty for images without classes.
        understood: (what, sentence) of the layout, the splits and the classes.
        left_out: what is there and is not used.
    """

    root: Path
    splits: Mapping[str, ImageFiles]
    labels: "dict[str, array[int]]"
    class_names: list[str]
    understood: list[tuple[str, str]] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def path(self) -> Path:
        """The name of the source as recipes say it."""
        return self.root

    @abstractmethod
    def fingerprint(self, progress: "Progress" = quiet) -> str:
        """Return a fingerprint that changes when an image or a label does."""


@dataclass(frozen=True)
class FolderSource(ListedSource):
    """A folder of image files, with or without a subfolder per class, and with or without a folder per split."""

    splits: dict[str, FileList]

    def fingerprint(self, progress: "Progress" = quiet) -> str:
        """Return a fingerprint that changes when a file is added, removed, moved or changed."""
        from rotnet_keras.data.fingerprints import combined

        return combined("folder-2", self._entries(progress))

    def _entries(self, progress: "Progress") -> Iterator[tuple[str, bytes]]:
        from rotnet_keras.data.fingerprints import file_digests

        for split, files in self.splits.items():
            for name, digest in zip(files.names(), file_digests(files.root, files, progress), strict=True):
                yield f"{split}\0{name}", digest.tobytes()

    def old_fingerprint(self) -> str:
        """Return the fingerprint of earlier versions, which goes by names and sizes."""
        digest = hashlib.blake2b()
        for split, files in self.splits.items():
            for file in files:
                entry = f"{split}\0{file.relative_to(self.root)}\0{file_size(file)}\n"
                digest.update(os.fsencode(entry))
        return "folder:" + digest.hexdigest()[:16]


def file_size(file: Path) -> int:
    """Return the size in bytes; 0 if the file is missing, such as the target of a broken link."""
    try:
        return file.stat().st_size
    except OSError:
        return 0
