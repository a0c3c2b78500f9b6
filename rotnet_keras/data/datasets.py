"""Loading data sets: splits for training, validation and test, with class names and channel statistics."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from rotnet_keras.config.probes import Labels
from rotnet_keras.config.sections import Data
from rotnet_keras.data.folders import read_folder
from rotnet_keras.data.listing.sources import FolderSource, ListedSource
from rotnet_keras.data.npz import UNLABELLED, read_arrays
from rotnet_keras.data.sources import EMBEDDED, ArraySource, Source, TfdsSource, class_numbers, find_source
from rotnet_keras.data.stores import Progress, Split
from rotnet_keras.data.tfds import read_tfds
from rotnet_keras.data.values.ranges import DIGITS, MOST_IMAGES, MOST_VALUES, ValueRange, displayed, measure_range
from rotnet_keras.errors import DataError

# Mean and standard deviation per channel on the scale 0 to 255: CIFAR-10's from the paper's code, ImageNet's from
# torchvision.
IMAGENET_STATISTICS = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
PUBLISHED_STATISTICS = {
    "cifar10": ([125.3, 123.0, 113.9], [63.0, 62.1, 66.7]),
    "imagenet2012": IMAGENET_STATISTICS,
}
# Suffixes of files that every version reads alike: the pixels are stored exactly, and upright.
EXACT = {".png", ".bmp", ".gif"}


@dataclass(frozen=True)
class Dataset:
    """A data set ready for training.

    Attributes:
        name: the recipe's `data.name`.
        train: the training images.
        validation, test: None if there is no such split.
        class_names: empty for images without labels.
        mean, std: per channel, on the scale of the images: 0 to 255, or the numbers of files with more bits.
        fingerprint: changes when the data do.
        old_fingerprint: computes it as earlier versions did; None where the form never changed.
        notes: sentences for the user about skipped files, held-out splits and scaled values; more are added during
            training if files turn out to be damaged.
        resampled: whether the pixels depend on how files are decoded and resampled, which `decoding.DECODER` numbers.
        shown: the channels that people see as red, green and blue; the first three by default.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split | None
    class_names: list[str]
    mean: list[float]
    std: list[float]
    fingerprint: str
    notes: list[str] = field(default_factory=list)
    old_fingerprint: Callable[[], str] | None = None
    resampled: bool = False
    shown: Sequence[int] | None = None

    @property
    def values(self) -> ValueRange | None:
        """The range of the values of images with more than 8 bits; None for bytes."""
        return self.train.values

    @property
    def labelled(self) -> set[str]:
        """The splits, of "train", "validation" and "test", that have an image whose class is known."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name for name, each in splits.items() if each and each.labels is not None and len(each.labelled())}

    def displayed(self, images: np.ndarray) -> np.ndarray:
        """Return images (N, H, W, C) of the data set as people see them: (N, H, W, 1 or 3) uint8."""
        return displayed(images, self.values, self.shown)

    def levels(self, images: np.ndarray) -> np.ndarray:
        """Return all channels of images (N, H, W, C) of the data set as uint8."""
        return images if self.values is None else np.rint(self.values.scaled(images)).astype(np.uint8)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images."""
        _, height, width, channels = self.train.store.shape
        return height, width, channels


def load(
    data: Data,
    progress: Progress = lambda what, done, total: None,
    kept: dict[str, str] | None = None,
    values: ValueRange | None = None,
    source: Source | None = None,
) -> Dataset:
    """Load a data set.

    Args:
        data: the recipe's section `[data]`.
        progress: called now and then while images are read.
        kept: where each split's decoded images are kept, as an earlier start chose: "memory", "disk" or "none". It
            receives the choices that are made now.
        values: the range of the values of images with more than 8 bits, as an earlier start measured it.
        source: what `find_source` has found for the section.

    Raises:
        DataError: there are no training images, or the images do not fit together.
    """
    source = source or find_source(data)
    kept = {} if kept is None else kept
    notes: list[str] = []
    old_fingerprint: Callable[[], str] | None = None
    resampled = False
    if isinstance(source, ArraySource):
        splits, class_names = read_arrays(source, data, notes)
        fingerprint = source.fingerprint(progress)
    elif isinstance(source, ListedSource):
        fingerprint = source.fingerprint(progress)
        old_fingerprint = source.old_fingerprint if isinstance(source, FolderSource) else None
        splits, class_names = read_folder(source, data, fingerprint, kept, progress, notes)
        resampled = not all(files.suffixes().keys() <= EXACT for files in source.splits.values())
    else:
        splits, class_names, resampled, fingerprint, old_fingerprint = read_tfds(source, data, kept, progress, notes)
    splits = _with_held_out(splits, data, notes)
    if data.only:
        numbers = class_numbers(data.only, class_names)
        splits |= {name: _of_classes(splits[name], numbers) for name in ("train", "validation") if name in splits}
    labels = None if data.only else splits["train"].labels
    if labels is not None and (missing := len(class_names) - len(np.unique(labels[labels != UNLABELLED]))):
        notes.append(f"{missing:,} of {len(class_names):,} classes have no training images")
    if data.name in EMBEDDED and Path(data.name).is_dir():
        notes.append(f"data.name: {data.name!r} is the data set of this package; the folder here is ./{data.name}")
    if splits["train"].store.dtype != np.uint8:
        values = values or _measure_range(splits["train"])
        splits = {name: replace(split, values=values) for name, split in splits.items()}
    if data.shown and max(data.shown) >= splits["train"].store.shape[-1]:
        raise DataError(
            f"data.shown: expected channels below {splits['train'].store.shape[-1]}, the number of channels, got "
            f"{data.shown}"
        )
    mean, std = _statistics(data, splits["train"], isinstance(source, TfdsSource))
    return Dataset(
        name=data.name,
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
        class_names=class_names,
        mean=mean,
        std=std,
        fingerprint=fingerprint,
        notes=notes,
        old_fingerprint=old_fingerprint,
        resampled=resampled,
        shown=data.shown,
    )


def only_classes(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """Return a data set without the training and validation images of other classes; its test images are all kept.

    Raises:
        DataError: there is no class of one of the names, or an image may have several classes.
    """
    numbers = class_numbers(names, dataset.class_names)
    validation = dataset.validation and _of_classes(dataset.validation, numbers)
    return replace(dataset, train=_of_classes(dataset.train, numbers), validation=validation)


def labelled_subset(dataset: Dataset, wanted: Labels, seed: tuple[int, int]) -> np.ndarray:
    """Return the rising positions of the training images to learn from: all with a label, or some of each class.

    Args:
        seed: of a random choice.

    Raises:
        DataError: a class has fewer training images, but some.
    """
    labels, per_class = dataset.train.required_labels(), wanted.labels_per_class
    if per_class is None:
        return np.arange(len(labels)) if labels.ndim > 1 else np.flatnonzero(labels != UNLABELLED)
    rng = np.random.default_rng(seed)
    picked = []
    for number, name in enumerate(dataset.class_names):
        members = np.flatnonzero(labels == number)
        if 0 < len(members) < per_class:
            raise DataError(
                f"labels_per_class: expected {per_class} training images of class {name!r}, found {len(members)}"
            )
        first = wanted.label_choice == "first"
        count = min(per_class, len(members))
        picked.append(members[:count] if first else rng.choice(members, count, replace=False))
    return np.sort(np.concatenate(picked))


def _of_classes(split: Split, numbers: Sequence[int]) -> Split:
    """Return the images of a split that are of some classes.

    Raises:
        DataError: an image may have several classes.
    """
    labels = split.required_labels()
    if labels.ndim > 1:
        raise DataError("data.only: expected images of one class each, and these may have several; leave it out")
    return split.subset(np.flatnonzero(np.isin(labels, numbers)))


def _with_held_out(splits: dict[str, Split], data: Data, notes: list[str]) -> dict[str, Split]:
    """Hold out the splits that are missing: validation and, for labelled images, test."""
    train = splits["train"]
    order = np.random.default_rng(0).permutation(len(train))
    for name in ("test", "validation"):
        count = round(data.validation * len(train))
        needed = name == "validation" or train.labels is not None
        if name in splits or not needed or not count:
            continue
        held_out, order = np.sort(order[:count]), order[count:]
        splits[name] = train.subset(held_out)
        if name == "test":
            notes.append(f"there is no test split; {count:,} training images are held out as one")
    if not len(order):
        raise DataError(
            f"{data.name}: no training images are left after holding out validation and test; lower data.validation"
        )
    return splits | {"train": train.subset(np.sort(order))}


def _statistics(data: Data, train: Split, of_tfds: bool) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation per channel; the published ones are not for a folder of the same name."""
    channels = train.store.shape[-1]
    published = PUBLISHED_STATISTICS.get(data.name.split(":")[0].split("/")[0]) if of_tfds else None
    if published and channels == len(published[0]):
        mean, std = published
    else:
        mean, std = _measure_statistics(train)
    mean, std = data.mean or mean, data.std or std
    if len(mean) != channels or len(std) != channels:
        raise DataError(f"data.mean and data.std: expected {channels} numbers each, one per channel")
    return [float(m) for m in mean], [float(s) for s in std]


def _evenly_spaced(train: Split) -> Iterator[np.ndarray]:
    """Yield at most 10,000 evenly spaced training images, 256 at a time."""
    step = max(1, len(train) // MOST_IMAGES)
    for start in range(0, len(train), 256 * step):
        yield train.images(slice(start, start + 256 * step, step))


def _measure_range(train: Split) -> ValueRange:
    count = -(-len(train) // max(1, len(train) // MOST_IMAGES)) * int(np.prod(train.store.shape[1:3]))
    every = max(1, -(-count // MOST_VALUES))
    return measure_range([images.reshape(-1, images.shape[-1])[::every] for images in _evenly_spaced(train)])


def _measure_statistics(train: Split) -> tuple[list[float], list[float]]:
    """Measure mean and standard deviation per channel on evenly spaced training images.

    Of values that are no bytes, those outside their range are taken for its ends.
    """
    if train.values is not None:
        return _scaled_statistics(train, train.values)
    count = 0.0
    total = np.zeros(train.store.shape[-1])
    squares = np.zeros(train.store.shape[-1])
    for images in _evenly_spaced(train):
        pixels = images.astype(np.float64)
        count += pixels[..., 0].size
        total += pixels.sum((0, 1, 2))
        squares += (pixels**2).sum((0, 1, 2))
    mean = total / count
    # At least 1, so that a constant channel is not divided by zero.
    std = np.sqrt(np.maximum(squares / count - mean**2, 1.0))
    return mean.round(3).tolist(), std.round(3).tolist()


def _scaled_statistics(train: Split, values: ValueRange) -> tuple[list[float], list[float]]:
    """Measure mean and standard deviation per channel of values that are no bytes, in their own numbers."""
    count, total, squares = 0, np.zeros(len(values.low)), np.zeros(len(values.low))
    for images in _evenly_spaced(train):
        pixels = values.scaled(images).astype(np.float64)
        count += pixels[..., 0].size
        total += pixels.sum((0, 1, 2))
        squares += (pixels**2).sum((0, 1, 2))
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1.0))
    in_numbers = mean * values.span / 255 + values.low, std * values.span / 255
    return [[float(f"{each:.{DIGITS}g}") for each in numbers] for numbers in in_numbers]  # type: ignore[return-value]
