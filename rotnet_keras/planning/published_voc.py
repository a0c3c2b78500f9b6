"""PASCAL VOC as its makers describe it, for plans where it is not there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.config.sections import AnnotatedData
from rotnet_keras.data.annotations import AnnotatedDataset, AnnotatedSplit
from rotnet_keras.data.boxes import Boxes
from rotnet_keras.data.sources import asked_for
from rotnet_keras.planning.published_sizes import NoiseImages, split_counts

# Pictures, by the name that a recipe gives the data set or the last part of it, and by the name of the split; of VOC
# 2012 those with masks. The kit calls tfds's `validation` `val`.
PUBLISHED: Mapping[str, Mapping[str, int]] = {
    "voc/2007": {"train": 2501, "validation": 2510, "test": 4952},
    "VOC2007": {"train": 2501, "val": 2510, "trainval": 5011, "test": 4952},
    "VOC2012": {"train": 1464, "val": 1449, "trainval": 2913},
}
# Width and height of most, and objects in one (VOC 2007: 24,640 in 9,963 pictures).
SIZE, OBJECTS = (500, 375), 2


class NoisePhotos(NoiseImages):
    """A store that makes up pictures of the usual size: noise."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__((count, size, size, 3), None)
        self.shapes = np.tile(np.array(SIZE, np.int32), (count, 1))

    def whole_image(self, row: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        return np.random.default_rng(row).integers(0, 256, (*SIZE[::-1], 3), np.uint8)


class BackgroundMasks(AnnotatedSplit):
    """Pictures, all of them background."""

    def mask(self, position: int) -> np.ndarray:
        """(H, W) uint8."""
        return np.zeros(SIZE[::-1], np.uint8)


def has_published_sizes(data: AnnotatedData) -> bool:
    """Whether anything is known of a data set."""
    return _key(data) in PUBLISHED


def placeholder_voc(data: AnnotatedData) -> AnnotatedDataset:
    """A data set with as many pictures as a recipe's would have, noise for pictures and boxes for objects.

    Raises:
        DataError: a split is none of its.
    """
    known = PUBLISHED[_key(data)]
    rest = [split for split in ("validation", "val", "test") if split in known]
    chosen = {"train": "train", **dict(zip(["test", "validation"], reversed(rest), strict=False))}
    counts = split_counts(known, asked_for(chosen, data.splits))
    corners = np.tile([0.0, 0.0, *SIZE[::-1]], (OBJECTS, 1))
    boxes = Boxes(corners, np.zeros(OBJECTS, np.int64), np.zeros(OBJECTS, bool))

    def split(name: str) -> Any:
        if name not in counts:
            return None
        return BackgroundMasks(
            NoisePhotos(counts[name], data.size), np.arange(counts[name]), [boxes] * counts[name], None
        )  # type: ignore[arg-type]

    return AnnotatedDataset(data.name, split("train"), split("validation"), split("test"), list(data.classes), "")


def _key(data: AnnotatedData) -> str:
    return data.name if data.name in PUBLISHED else Path(data.name).name
