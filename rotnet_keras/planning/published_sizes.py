"""The large data sets of the paper as their makers describe them, for plans where they are not there."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rotnet_keras.config.sections import Data
from rotnet_keras.data.datasets import Dataset
from rotnet_keras.data.sources import asked_for
from rotnet_keras.data.stores import Split
from rotnet_keras.errors import DataError


@dataclass(frozen=True)
class PublishedSizes:
    """Sizes of a data set.

    Attributes:
        splits: number of images by the name of the split; the first is for training.
        image_bytes: of a file, on average; None where it is not known.
        side: in pixels, where all images are squares of one size.
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
    """A store that makes up what it is asked for: noise."""

    def __init__(self, shape: tuple[int, ...], image_bytes: int | None) -> None:
        self.shape, self.image_bytes = shape, image_bytes

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """(len(rows), S, S, C) uint8."""
        return np.random.default_rng(0).integers(0, 256, (len(rows), *self.shape[1:]), np.uint8)


def split_counts(known: Mapping[str, int], chosen: Mapping[str, str]) -> dict[str, int]:
    """How many images there are in splits, asked for as of tfds, of a data set whose splits have known sizes.

    Raises:
        DataError: there is no such split.
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
            raise DataError(f"data.splits.{split}: {asked!r} is none of {', '.join(known)}") from None
        counts[split] = sum((part.to or known[part.splitname]) - (part.from_ or 0) for part in parts)
    return counts


def placeholder_dataset(data: Data) -> Dataset:
    """A data set with the sizes and splits that a recipe's would have, and noise for images.

    Raises:
        DataError: nothing is known of it.
    """
    name = data.name.split(":")[0]
    if name not in PUBLISHED:
        raise DataError(f"nothing is known of {data.name!r} (known: {', '.join(PUBLISHED)})")
    known = PUBLISHED[name]
    side = data.size or known.side
    if side is None:
        raise DataError(f"data.size: the images of {name} are not all one square; give their side in pixels")
    chosen = {key: key for key in known.splits} if "test" in known.splits else {"train": "train", "test": "validation"}
    counts = split_counts(known.splits, asked_for(chosen, data.splits))
    for split in ("test", "validation"):
        if split not in counts:
            counts[split] = round(data.validation * counts["train"])
            counts["train"] -= counts[split]
    store = NoiseImages((sum(counts.values()), side, side, data.channels or 3), known.image_bytes)
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
