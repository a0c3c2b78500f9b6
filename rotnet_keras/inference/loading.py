"""Picture files as a network is shown them, a few at a time."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rotnet_keras.config.schema import ClassifyRecipe, PretrainRecipe, Recipe
from rotnet_keras.data.decoding import UnreadableImage, read_image
from rotnet_keras.data.sources import image_files
from rotnet_keras.errors import DataError

BATCH = 64

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Viewer:
    """How a network is shown a picture.

    Attributes:
        size: what its short side is resized to, in pixels.
        side: of the central square that is cut from that, in pixels.
        channels: 1 (grey) or 3 (RGB).
    """

    size: int
    side: int
    channels: int

    def picture(self, file: Path) -> np.ndarray:
        """(S, S, C) uint8, turned as its EXIF tag says.

        Raises:
            UnreadableImage: it cannot be read.
        """
        start = (self.size - self.side) / 2
        return read_image(file, self.size, self.channels, (start, start, self.side, self.side))


@dataclass(frozen=True)
class Batch:
    """Some picture files.

    Attributes:
        files: N that could be read.
        pictures: (N, S, S, C) uint8.
        unreadable: the others, and why.
    """

    files: list[Path] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


def viewer(recipe: Recipe | None, side: int, channels: int) -> Viewer:
    """As the evaluation of a recipe's run shows pictures, or as the network's input alone tells.

    Raises:
        DataError: the network is none of grey or colour pictures.
    """
    if channels not in (1, 3):
        raise DataError(f"expected a network of grey or colour pictures, got one of {channels} channels")
    crop = size = None
    if isinstance(recipe, PretrainRecipe | ClassifyRecipe):
        crop, size = recipe.augment.crop, recipe.data.size
    side = crop or size or side
    return Viewer(max(size or side, side), side, channels)


def batches(
    viewer: Viewer, files: Sequence[Path], progress: Progress = lambda what, done, total: None
) -> Iterator[Batch]:
    """The pictures of files, in order."""

    def read(file: Path) -> np.ndarray | str:
        try:
            return viewer.picture(file)
        except UnreadableImage as error:
            return str(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), BATCH):
            some, batch = files[start : start + BATCH], Batch()
            for file, pixels in zip(some, pool.map(read, some), strict=True):
                if isinstance(pixels, str):
                    batch.unreadable.append((file, pixels))
                else:
                    batch.files.append(file)
                    batch.pictures.append(pixels)
            yield batch
            progress("looking at pictures", start + len(some), len(files))


def files_of(paths: Sequence[Path]) -> list[Path]:
    """Files as they are given, and the image files below folders.

    Raises:
        DataError: one is not there, or a folder holds none.
    """
    found: list[Path] = []
    for path in paths:
        files = list(image_files(path)) if path.is_dir() else [path]
        if not files or not path.exists():
            raise DataError(f"{path}: no images there" if path.is_dir() else f"no file or folder {path}")
        found += files
    return found
