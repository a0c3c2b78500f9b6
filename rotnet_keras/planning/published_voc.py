"""Published sizes of PASCAL VOC, to plan transfers on machines without the images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.config.sections import AnnotatedData
from rotnet_keras.data.annotations import AnnotatedDataset, AnnotatedSplit
from rotnet_keras.data.boxes import Boxes
from rotnet_keras.data.sources import resolve_splits
from rotnet_keras.planning.published_sizes import NoiseImages, split_counts

# Number of images by data set and split; of VOC 2012, the images with masks. A data set is found by its name in the
# recipe or by the last part of its path. The split `validation` of tfds is called `val` in a VOCdevkit folder.
PUBLISHED: Mapping[str, Mapping[str, int]] = {
    "voc/2007": {"train": 2501, "validation": 2510, "test": 4952},
    "VOC2007": {"train": 2501, "val": 2510, "trainval": 5011, "test": 4952},
    "VOC2012": {"train": 1464, "val": 1449, "trainval": 2913},
}
# The width and height of most images, in pixels.
SIZE = (500, 375)
# Objects in an image: VOC 2007 has 24,640 in 9,963 images.
OBJECTS_PER_IMAGE = 2


class NoisePhotos(NoiseImages):
    """A store of images of the usual size that returns random pixels."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__((count, size, size, 3), None)
        self.shapes = np.tile(np.array(SIZE, np.int32), (count, 1))

    def whole_image(self, row: int) -> np.ndarray:
        """Return (H, W, 3) uint8."""
        return np.random.default_rng(row).integers(0, 256, (*SIZE[::-1], 3), np.uint8)


class BackgroundMasks(AnnotatedSplit):
    """A split whose masks are all background."""

    def mask(self, position: int) -> np.ndarray:
        """Return (H, W) uint8, all 0."""
        return np.zeros(SIZE[::-1], np.uint8)


def has_published_sizes(data: AnnotatedData) -> bool:
    """Return whether the sizes of a data set are known."""
    return _key(data) in PUBLISHED


def placeholder_voc(data: AnnotatedData) -> AnnotatedDataset:
    """Return a data set with the published number of images, random pixels, and boxes that fill the images.

    Raises:
        DataError: the recipe asks for a split that the data set does not have.
    """
    known = PUBLISHED[_key(data)]
    rest = [split for split in ("validation", "val", "test") if split in known]
    chosen = {"train": "train", **dict(zip(["test", "validation"], reversed(rest), strict=False))}
    counts = split_counts(known, resolve_splits(chosen, data.splits))
    corners = np.tile([0.0, 0.0, *SIZE[::-1]], (OBJECTS_PER_IMAGE, 1))
    boxes = Boxes(corners, np.zeros(OBJECTS_PER_IMAGE, np.int64), np.zeros(OBJECTS_PER_IMAGE, bool))

    def split(name: str) -> Any:
        if name not in counts:
            return None
        store, rows = NoisePhotos(counts[name], data.size), np.arange(counts[name])
        return BackgroundMasks(store, rows, [boxes] * counts[name], None)  # type: ignore[arg-type]

    return AnnotatedDataset(data.name, split("train"), split("validation"), split("test"), list(data.classes), "")


def _key(data: AnnotatedData) -> str:
    return data.name if data.name in PUBLISHED else Path(data.name).name
