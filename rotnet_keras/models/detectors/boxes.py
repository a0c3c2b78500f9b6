"""Box operations inside a model: anchors, encoding and decoding, clipping, RoI align.

All of them use `keras.ops`, with constants no larger than the sides of a feature map, so that exported models need
nothing of this package. Boxes are (..., 4): top, left, bottom, right in pixels. Offsets (..., 4) encode a box relative
to another one: the distances of the centres down and across, as shares of the other's height and width, and the
logarithms of the ratios of heights and of widths, each divided by `VARIANCE`, as in keras-cv.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rotnet_keras.engine import keras

ops = keras.ops

VARIANCE = np.array([0.1, 0.1, 0.2, 0.2], np.float32)
# The largest logarithm of a ratio of heights or widths that is decoded.
MAX_LOG_RATIO = 4.0
# The samples per cell of a region in each direction that RoI align averages.
SAMPLES = 2
# Ratios of width to height of anchors.
RATIOS = (0.5, 1.0, 2.0)

# Boxes as (centres down, centres across, heights, widths).
CentersAndSizes = tuple[Any, Any, Any, Any]


@dataclass(frozen=True)
class Anchors:
    """Anchors: A boxes of fixed shapes around the centre of every cell of a feature map.

    Attributes:
        cells: height H and width W of the map.
        stride: pixels between the centres of neighbouring cells.
        shapes: (A, 2), heights and widths in pixels.
    """

    cells: tuple[int, int]
    stride: float
    shapes: np.ndarray

    def __len__(self) -> int:
        return self.cells[0] * self.cells[1] * len(self.shapes)

    def centers_and_sizes(self) -> CentersAndSizes:
        """Their centres and sizes, in arrays that broadcast to (H, W, A)."""
        down, across = ((np.arange(count, dtype=np.float32) + 0.5) * self.stride for count in self.cells)
        heights, widths = self.shapes.astype(np.float32).T
        return down[:, None, None], across[:, None], heights, widths

    def boxes(self) -> np.ndarray:
        """All anchors as boxes, (H * W * A, 4) float32, in row-major order of the cells."""
        down, across, heights, widths = np.broadcast_arrays(*self.centers_and_sizes())
        sides = [down - heights / 2, across - widths / 2, down + heights / 2, across + widths / 2]
        return np.stack(sides, axis=-1).reshape(-1, 4)

    def decode(self, offsets: Any) -> Any:
        """The boxes (N, H * W * A, 4) with the offsets (N, H, W, A * 4) from the anchors."""
        offsets = ops.reshape(offsets, (-1, *self.cells, len(self.shapes), 4))
        return ops.reshape(_decode(self.centers_and_sizes(), offsets), (-1, len(self), 4))


def make_anchors(cells: Sequence[int], stride: float, sizes: Sequence[float], ratios: Sequence[float]) -> Anchors:
    """Anchors of every combination of size and ratio.

    Args:
        cells: height and width of the feature map.
        stride: pixels between the centres of neighbouring cells.
        sizes: square roots of the anchors' areas, in pixels.
        ratios: of width to height.
    """
    shapes = [(size / ratio**0.5, size * ratio**0.5) for size in sizes for ratio in ratios]
    height, width = cells
    return Anchors((height, width), stride, np.array(shapes, np.float32))


def decode_boxes(boxes: Any, offsets: Any) -> Any:
    """The boxes (..., 4) with some offsets (..., 4) from other boxes (..., 4)."""
    return _decode(_centers_and_sizes(boxes), offsets)


def encode_boxes(boxes: Any, targets: Any) -> Any:
    """The offsets (..., 4) of target boxes from boxes; sides count as at least 0.001 pixels."""
    down, across, heights, widths = _centers_and_sizes(boxes)
    to_down, to_across, to_heights, to_widths = _centers_and_sizes(targets)
    heights, widths, to_heights, to_widths = (
        ops.maximum(length, 1e-3) for length in (heights, widths, to_heights, to_widths)
    )
    shifts = [(to_down - down) / heights, (to_across - across) / widths]
    growth = [ops.log(to_heights / heights), ops.log(to_widths / widths)]
    return ops.stack([*shifts, *growth], axis=-1) / VARIANCE


def _centers_and_sizes(boxes: Any) -> CentersAndSizes:
    top, left, bottom, right = (boxes[..., side] for side in range(4))
    return (top + bottom) / 2, (left + right) / 2, bottom - top, right - left


def _decode(anchors: CentersAndSizes, offsets: Any) -> Any:
    down, across, heights, widths = anchors
    shift_down, shift_across, taller, wider = (offsets[..., i] * float(VARIANCE[i]) for i in range(4))
    # Subtracting the negative, because Keras's addition takes a constant with one long axis for a bias, along any axis
    # of that length.
    center_down, center_across = shift_down * heights - (-down), shift_across * widths - (-across)
    half_height = ops.exp(ops.minimum(taller, MAX_LOG_RATIO)) * (heights / 2)
    half_width = ops.exp(ops.minimum(wider, MAX_LOG_RATIO)) * (widths / 2)
    sides = [
        center_down - half_height,
        center_across - half_width,
        center_down + half_height,
        center_across + half_width,
    ]
    return ops.stack(sides, axis=-1)


def clip_boxes(boxes: Any, side: int) -> Any:
    """The boxes, clipped to an image of some side in pixels."""
    return ops.clip(boxes, 0.0, float(side))


def roi_align(maps: Any, boxes: Any, size: int, stride: float) -> Any:
    """RoI align (He et al., "Mask R-CNN", 2017): read a feature map in boxes, on `size` x `size` cells each.

    Each cell is the mean of four samples, and each sample is interpolated between the four values around it. That is a
    weighted sum over rows and one over columns, so two matrix products compute it.

    Args:
        maps: (N, H, W, C).
        boxes: (N, R, 4).
        size: cells per side of the result.
        stride: pixels per cell of the map.

    Returns:
        (N, R, size, size, C).
    """
    top, left, bottom, right = (boxes[..., side] / stride for side in range(4))
    rows = ops.cast(_interpolation_weights(top, bottom, size, maps.shape[1]), maps.dtype)
    columns = ops.cast(_interpolation_weights(left, right, size, maps.shape[2]), maps.dtype)
    return ops.einsum("nrqw,nrpwc->nrpqc", columns, ops.einsum("nrph,nhwc->nrpwc", rows, maps))


def _interpolation_weights(first: Any, last: Any, size: int, cells: int) -> Any:
    """The weights of a map's cells for the cells of intervals (N, R) in one direction: (N, R, size, cells)."""
    fractions = (np.arange(size * SAMPLES, dtype=np.float32) + 0.5) / (size * SAMPLES)
    samples = first[..., None] + (last - first)[..., None] * fractions - 0.5
    samples = ops.clip(samples, 0.0, float(cells - 1))
    weights = ops.relu(1.0 - ops.abs(samples[..., None] - np.arange(cells, dtype=np.float32)))
    return ops.mean(ops.reshape(weights, (-1, weights.shape[1], size, SAMPLES, cells)), axis=3)
