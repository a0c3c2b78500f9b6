"""Reading image files in the size and colours that a model takes, one batch at a time."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from rotnet_keras.config.schema import Recipe, RunRecipe
from rotnet_keras.data.crops import Fit, How
from rotnet_keras.data.decoding import MOST_BITS, UnreadableImage, read_center
from rotnet_keras.data.layout import LeftOut, find_image_files
from rotnet_keras.data.values.samples import check_depth, sampled_headers
from rotnet_keras.errors import DataError
from rotnet_keras.runs.exports.backbone_file import read_backbone, sizes_in, sizes_of_maker
from rotnet_keras.text import first_few

# Images in a batch.
BATCH = 64
# Side in pixels that images are resized to for a backbone that takes any size, as `keras.applications` are trained.
ANY_SIDE = 224

# Called with what is being done, how many images are done, and of how many.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ImageLoader:
    """Reads an image file as a model takes it: resized, then cropped to the central part.

    Attributes:
        size: the side of the square that images are brought to, in pixels, or height and width.
        side: the side of the central crop, in pixels, or height and width.
        channels: of the images.
        deep: whether the numbers of files with more than 8 bits are kept as they are.
        how: images are brought to their size: see `data.crops.Fit`.
    """

    size: int | tuple[int, int]
    side: int | tuple[int, int]
    channels: int
    deep: bool = False
    how: How = "crop"

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return Fit.of(self.side).shape

    def resized_to(self, pixels: int) -> "ImageLoader":
        """Return a loader of the same part of the images, whose height has so many pixels."""
        height, width = self.shape
        wide = max(1, round(pixels * width / height))
        side = pixels if wide == pixels else (pixels, wide)
        tall, broad = (
            max(a, round(a * b / c))
            for a, b, c in zip((pixels, wide), Fit.of(self.size).shape, (height, width), strict=True)
        )
        return replace(self, size=tall if tall == broad else (tall, broad), side=side)

    def load(self, file: Path) -> np.ndarray:
        """Read one image, upright as its EXIF orientation says.

        Returns:
            (height, width, channels) uint8; float32 if `deep`.

        Raises:
            UnreadableImage: the file cannot be read.
        """
        return read_center(file, Fit.of(self.size, self.how), self.channels, self.side, self.deep)


@dataclass(frozen=True)
class ImageBatch:
    """The images of a few files.

    Attributes:
        files: the N files that could be read.
        images: N arrays (H, W, C), in the order of `files`.
        unreadable: the files that could not be read, each with the reason.
    """

    files: list[Path] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


def image_loader(recipe: Recipe | None, shape: int | tuple[int, int], channels: int, deep: bool = False) -> ImageLoader:
    """The loader that shows a model images as the evaluation of its run did.

    Args:
        recipe: of the run that made the model; without one, images are resized to the model's input.
        shape: height and width of the model's input, in pixels, or the side of a square.
        channels: of the model's input.
        deep: whether it takes the numbers of files with more than 8 bits.
    """
    size, crop = sizes_in(recipe)
    side = crop or size or Fit.of(shape).shape
    how: How = recipe.data.fit if isinstance(recipe, RunRecipe) else "crop"
    return loader_of(size or side, side, channels, deep, how)


def loader_of(
    size: tuple[int, int], side: tuple[int, int], channels: int, deep: bool = False, how: How = "crop"
) -> ImageLoader:
    """The loader that resizes images to a size, at least as large as the central crop, and takes this crop."""
    resized = max(size[0], side[0]), max(size[1], side[1])
    return ImageLoader(_short(resized), _short(side), channels, deep, how)


def _short(shape: tuple[int, int]) -> int | tuple[int, int]:
    return shape[0] if shape[0] == shape[1] else shape


def input_side(file: Path, size: int | None, notify: Callable[[str], None]) -> int | None:
    """Check how images are shown to a backbone, before it is loaded.

    Args:
        file: the backbone.
        size: the side that images are resized to, as a user asks for; None if nobody asks.
        notify: called with a sentence about what the file leaves open.

    Returns:
        The side of the images for a backbone that takes any; None where the backbone or its run says it.

    Raises:
        DataError: it takes images of a height without a width, or other ones than of `size`.
    """
    found = read_backbone(file)
    height, width, _ = found.shape
    if (height is None) != (width is None):
        raise DataError(f"{file} takes images of {found.takes}: expected a height and a width, or any of both")
    known = (height, width) if height else next(filter(None, sizes_of_maker(file)[::-1]), None)
    if known is not None:
        if size is not None and known != (size, size):
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


def list_image_files(
    paths: Sequence[Path], notify: Callable[[str], None] = lambda note: None, deep: bool = False
) -> list[Path]:
    """The given files, and the image files below the given folders, each file once.

    A file that is reached by several paths, of which some are links, is listed by a path that is no link if there is
    one, else by the first. Hard links are files of their own: rotating one would not rotate the other.

    Args:
        paths: files and folders.
        notify: called with a sentence about what of a folder is left out, such as links to folders, if paths were left
            out because their file is listed already, and if values are scaled from 16 bits.
        deep: whether the numbers of files with more than 8 bits are kept as they are, so that no values are scaled.

    Raises:
        DataError: a path does not exist, a folder holds no images, or as of `check_values`.
    """
    found: list[Path] = []
    for path in paths:
        left_out = LeftOut()
        files = list(find_image_files(path, left_out)) if path.is_dir() else [path]
        if not path.exists():
            raise DataError(f"no file or folder {path}")
        if not files:
            raise DataError("; ".join([f"{path}: the folder holds no images", *left_out.warnings()]))
        for sentence in left_out.warnings():
            notify(f"{path}: {sentence}")
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
    check_values(files, notify, deep)
    return files


def check_values(files: Sequence[Path], notify: Callable[[str], None] = lambda note: None, deep: bool = False) -> None:
    """Check that files with 16 bits use them, as training does: a sample of the files is looked at.

    Args:
        files: image files.
        notify: called with a sentence if values are scaled from 16 bits, and if only a part of some files is read.
        deep: whether the numbers of files with more than 8 bits are kept as they are, so that any will do.

    Raises:
        DataError: 16-bit files use so few of their values that they would become nearly black.
    """
    sample = sampled_headers([files])
    if not deep:
        check_depth(
            {"images": sample},
            "the values of the 16-bit files among the images",
            "or save the images with 8 bits; a model that was trained on such files takes their values as they are",
        )
        scaled = [str(file) for header, file in sample if header.unsigned and 8 < header.bits <= MOST_BITS]
        if scaled:
            notify(
                "values of more than 8 bits are scaled from their whole range, for a model of bytes: "
                f"{first_few(scaled)}"
            )
    notes = Counter(header.note for header, _ in sample if header.note)
    for note, number in notes.items():
        notify(f"{number} of a sample of {len(sample)} images are {note}")


def check_any_readable(files: Sequence[object], unreadable: Sequence[tuple[Path, str]]) -> None:
    """Make sure that at least one image could be read.

    Raises:
        DataError: none could; the message names one and the reason.
    """
    if not files:
        example = f", for example {unreadable[0][0]}: {unreadable[0][1]}" if unreadable else ""
        raise DataError(f"none of the images can be read{example}")
