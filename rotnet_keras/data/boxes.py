"""Boxes around objects, as annotations state them and as detectors find them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Boxes:
    """The objects of a picture, or what was found there.

    Attributes:
        corners: (n, 4) float, top, left, bottom, right in pixels; a box of one pixel is 1 high and wide.
        classes: (n,) int.
        difficult: (n,) bool; of objects only.
        scores: (n,) float; of what was found only.
    """

    corners: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray | None = None
    scores: np.ndarray | None = None
