"""Published sizes of the paper's data sets, to plan runs on machines without the images."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rotnet_keras.config.sections import Data
from rotnet_keras.data.crops import fit_of
from rotnet_keras.data.datasets import Dataset
from rotnet_keras.data.sources import resolve_splits
from rotnet_keras.data.stores import BYTES, Split
from rotnet_keras.errors import DataError


@dataclass(frozen=True)
class PublishedSizes:
    """The sizes of a data set.

    Attributes:
        splits: number of images by the name of the split.
        classes: number of classes.
        image_bytes: mean size of an image file in bytes; 0 if the images are kept in memory, None if unknown.
        side: height and width in pixels, if all images are squares of one size.
    """

    splits: Mapping[str, int]
    classes: int
    image_bytes: int | None = None
    side: int | None = None


# Places205 (its 256 x 256 version) has the file layout of the recipe `places205_alexnet`.
PUBLISHED: Mapping[str, PublishedSizes] = {
    "imagenet2012": PublishedSizes({"train": 1_281_167, "validation": 50_000}, 1000, 110_000),
    "places205": PublishedSizes({"train": 2_448_873, "test": 20_500}, 205, None, 256),
    "cifar10": PublishedSizes({"train": 50_000, "test": 10_000}, 10, 0, 32),
    "cifar100": PublishedSizes({"train": 50_000, "test": 10_000}, 100, 0, 32),
}


class NoiseImages:
    """A store of images that returns random pixels."""

    def __init__(self, shape: tuple[int, ...], image_bytes: int | None) -> None:
        self.shape, self.image_bytes, self.dtype = shape, image_bytes, BYTES

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """Return (len(rows), H, W, C) uint8."""
        return np.random.default_rng(0).integers(0, 256, (len(rows), *self.shape[1:]), np.uint8)


def split_counts(known: Mapping[str, int], chosen: Mapping[str, str]) -> dict[str, int]:
    """Return the number of images in splits that are written as for tfds, such as "train[:90%]".

    Args:
        known: number of images in each split of the data set.
        chosen: the split of the data set, or a part of it, for each split of the run.

    Raises:
        DataError: the data set has no such split.
    """
    import tensorflow_datasets as tfds

    infos = {
        split: tfds.core.SplitInfo(name=split, shard_lengths=[count], num_bytes=0) for split, count in known.items()
    }
    counts = {}
    for split, asked in chosen.items():
        try:
            parts = tfds.core.ReadInstruction.from_spec(asked).to_absolute(infos)
        except (ValueError, AssertionError):
            raise DataError(
                f"data.splits.{split}: expected a split or a part of one, of {', '.join(known)}; got {asked!r}"
            ) from None
        counts[split] = sum((part.to or known[part.splitname]) - (part.from_ or 0) for part in parts)
    return counts


def placeholder_dataset(data: Data) -> Dataset:
    """Return a data set with the published sizes and the splits of a recipe, but random pixels.

    Raises:
        DataError: the sizes of this data set are unknown.
    """
    name = data.name.split(":")[0]
    if name not in PUBLISHED:
        raise DataError(
            f"data.name: {data.name!r} is not here, and its size is unknown (known: {', '.join(PUBLISHED)})"
        )
    known = PUBLISHED[name]
    fit = fit_of(data, known.side)
    if fit is None:
        raise DataError(
            f"data.size: the images of {name} have different sizes; set the size to which they are resized, in pixels"
        )
    chosen = {key: key for key in known.splits} if "test" in known.splits else {"train": "train", "test": "validation"}
    counts = split_counts(known.splits, resolve_splits(chosen, data.splits))
    for split in ("test", "validation"):
        if split not in counts:
            counts[split] = round(data.validation * counts["train"])
            counts["train"] -= counts[split]
    store = NoiseImages((sum(counts.values()), *fit.shape, data.channels or 3), known.image_bytes)
    splits = {
        split: Split(store, np.arange(count), np.arange(count) % known.classes) for split, count in counts.items()
    }
    return Dataset(
        name=data.name,
        train=splits["train"],
        validation=splits["validation"] if counts["validation"] else None,
        test=splits["test"],
        class_names=[str(number) for number in range(known.classes)],
        mean=[127.5] * store.shape[-1],
        std=[127.5] * store.shape[-1],
        fingerprint="",
    )
