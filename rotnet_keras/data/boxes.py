"""Bounding boxes of annotated and of detected objects."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


class BrokenAnnotation(Exception):
    """An image that cannot be used because of its annotation, or itself; the message says why."""


@dataclass(frozen=True)
class Boxes:
    """The annotated or detected objects of an image.

    Attributes:
        corners: (n, 4) float: top, left, bottom, right in pixels; a box around one pixel is 1 high and wide.
        classes: (n,) int class numbers.
        difficult: (n,) bool, whether an object is marked as difficult; None for detections.
        scores: (n,) float confidences of detections; None for annotated objects.
    """

    corners: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray | None = None
    scores: np.ndarray | None = None


def check_objects(
    names: Sequence[str], corners: np.ndarray, difficult: np.ndarray, classes: Sequence[str], size: tuple[int, int]
) -> Boxes:
    """Return objects after checking that their classes are known and their boxes lie inside the image.

    Args:
        size: width and height of the image in pixels.

    Raises:
        BrokenAnnotation: a class is unknown, or a box is empty or outside the image.
    """
    for name, box in zip(names, corners, strict=True):
        if name not in classes:
            raise BrokenAnnotation(f"an object has the class {name!r}, which is not one of data.classes")
        top, left, bottom, right = box
        # Half a pixel beyond the edge is rounding.
        inside = top >= -0.5 and left >= -0.5 and bottom <= size[1] + 0.5 and right <= size[0] + 0.5
        if not (inside and top < bottom and left < right):
            box_words = ", ".join(f"{value:g}" for value in box)
            raise BrokenAnnotation(
                f"the box of a {name!r} ({box_words}) is not inside the image of {size[0]} x {size[1]} pixels"
            )
    numbers = np.array([classes.index(name) for name in names], np.int64)
    limits = np.array([size[1], size[0], size[1], size[0]])
    return Boxes(np.clip(corners, 0, limits).astype(np.float64), numbers, difficult)
