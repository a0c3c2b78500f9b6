"""Reading image files in the size and colours that a model takes, one batch at a time."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rotnet_keras.config.schema import Recipe
from rotnet_keras.data.audit import check_depth
from rotnet_keras.data.decoding import UnreadableImage, read_center
from rotnet_keras.data.layout import find_image_files
from rotnet_keras.errors import DataError
from rotnet_keras.runs.backbone_file import read_backbone, sizes_in, sizes_of_maker
from rotnet_keras.text import first_few

# Images in a batch.
BATCH = 64
# Side in pixels that images are resized to for a backbone that takes any size, as `keras.applications` are trained.
ANY_SIDE = 224

# Called with what is being done, how many images are done, and of how many.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ImageLoader:
    """Reads an image file as a model takes it: resized, then cropped to the central square.

    Attributes:
        size: length of the short side after resizing, in pixels.
        side: side of the central crop, in pixels.
        channels: 1 (grey) or 3 (RGB).
    """

    size: int
    side: int
    channels: int

    def load(self, file: Path) -> np.ndarray:
        """Read one image, upright as its EXIF orientation says.

        Returns:
            (side, side, channels) uint8.

        Raises:
            UnreadableImage: the file cannot be read.
        """
        return read_center(file, self.size, self.channels, self.side)


@dataclass(frozen=True)
class ImageBatch:
    """The images of a few files.

    Attributes:
        files: the N files that could be read.
        images: N arrays (S, S, C) uint8, in the order of `files`.
        unreadable: the files that could not be read, each with the reason.
    """

    files: list[Path] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


def image_loader(recipe: Recipe | None, side: int, channels: int) -> ImageLoader:
    """The loader that shows a model images as the evaluation of its run did.

    Args:
        recipe: of the run that made the model; without one, images are resized to the model's input.
        side: of the model's input, in pixels.
        channels: of the model's input.

    Raises:
        DataError: the model takes neither grey nor colour images.
    """
    if channels not in (1, 3):
        raise DataError(f"the model takes images of {channels} channels: expected 1 (grey) or 3 (RGB)")
    size, crop = sizes_in(recipe)
    side = crop or size or side
    return ImageLoader(max(size or side, side), side, channels)


def input_side(file: Path, size: int | None, notify: Callable[[str], None]) -> int | None:
    """Check how images are shown to a backbone, before it is loaded.

    Args:
        file: the backbone.
        size: the side that images are resized to, as a user asks for; None if nobody asks.
        notify: called with a sentence about what the file leaves open.

    Returns:
        The side of the images for a backbone that takes any; None where the backbone or its run says it.

    Raises:
        DataError: it takes other images than squares of one size, or than `size`.
    """
    found = read_backbone(file)
    height, width, _ = found.shape
    if height != width:
        raise DataError(f"{file} takes images of {found.takes}, and images are cropped to squares")
    known = height or max(filter(None, sizes_of_maker(file)), default=None)
    if known is not None:
        if size not in (None, known):
            raise DataError(f"--size: {file} takes images of {found.takes}: leave --size out, got {size}")
        return None
    if size is None:
        notify(f"{file.name} takes images of any size: they are resized to {ANY_SIDE} pixels; --size sets another")
    if not found.scales_pixels:
        notify(
            f"{file.name} has no Rescaling or Normalization layer: it gets pixels from 0 to 255. If it expects others, "
            "put such a layer before it"
        )
    return size or ANY_SIDE


def load_batches(
    loader: ImageLoader, files: Sequence[Path], progress: Progress = lambda what, done, total: None
) -> Iterator[ImageBatch]:
    """Read files in order, several at once, and yield a batch after the other."""

    def read(file: Path) -> np.ndarray | str:
        try:
            return loader.load(file)
        except UnreadableImage as error:
            return str(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), BATCH):
            chunk, batch = files[start : start + BATCH], ImageBatch()
            for file, pixels in zip(chunk, pool.map(read, chunk), strict=True):
                if isinstance(pixels, str):
                    batch.unreadable.append((file, pixels))
                else:
                    batch.files.append(file)
                    batch.images.append(pixels)
            yield batch
            progress("images", start + len(chunk), len(files))


def list_image_files(paths: Sequence[Path], notify: Callable[[str], None] = lambda note: None) -> list[Path]:
    """The given files, and the image files below the given folders, each file once.

    A file that is reached by several paths, of which some are links, is listed by a path that is no link if there is
    one, else by the first. Hard links are files of their own: rotating one would not rotate the other.

    Args:
        paths: files and folders.
        notify: called with a sentence if paths were left out because their file is listed already, and if values are
            scaled from 16 bits.

    Raises:
        DataError: a path does not exist, a folder holds no images, or as of `check_values`.
    """
    found: list[Path] = []
    for path in paths:
        files = list(find_image_files(path)) if path.is_dir() else [path]
        if not files or not path.exists():
            raise DataError(f"{path}: the folder holds no images" if path.is_dir() else f"no file or folder {path}")
        found += files
    chosen: dict[str, Path] = {}
    repeated: list[str] = []
    for file in found:
        real = os.path.realpath(file)
        if real not in chosen:
            chosen[real] = file
        elif chosen[real].is_symlink() and not file.is_symlink():
            repeated.append(str(chosen[real]))
            chosen[real] = file
        else:
            repeated.append(str(file))
    if repeated:
        notify(f"{len(repeated):,} of {len(found):,} paths name files that are listed already: {first_few(repeated)}")
    files = list(chosen.values())
    check_values(files, notify)
    return files


def check_values(files: Sequence[Path], notify: Callable[[str], None] = lambda note: None) -> None:
    """Check that files with 16 bits use them, as training does: a sample of the files is looked at.

    Args:
        files: image files.
        notify: called with a sentence if values are scaled from 16 bits.

    Raises:
        DataError: 16-bit files use so few of their values that they would become nearly black.
    """
    sample = check_depth([files], "the values of the 16-bit files among the images", "or save the images with 8 bits")
    deep = [str(file) for header, file in sample if header.bits > 8]
    if deep:
        notify(f"values of 16 bits are divided by 257, as in training: {first_few(deep)}")


def check_any_readable(files: Sequence[object], unreadable: Sequence[tuple[Path, str]]) -> None:
    """Make sure that at least one image could be read.

    Raises:
        DataError: none could; the message names one and the reason.
    """
    if not files:
        example = f", for example {unreadable[0][0]}: {unreadable[0][1]}" if unreadable else ""
        raise DataError(f"none of the images can be read{example}")
