"""Bounding boxes of annotated and of detected objects."""

from dataclasses import dataclass

import numpy as np


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
