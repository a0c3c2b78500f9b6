"""Boxes inside a model: what a network answers becomes boxes, and boxes become pieces of its map.

All of it is of `keras.ops`, with constants no larger than a map's sides, so that exported models need nothing of this
package. Boxes are (..., 4): top, left, bottom, right in pixels. Offsets are (..., 4): how far the middle of a box lies
from that of another, down and across, in shares of the other's height and width, and the logarithms of how many times
as high and as wide it is, each divided by `VARIANCE` (as keras-cv has it).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rotnet_keras.engine import keras

ops = keras.ops

VARIANCE = np.array([0.1, 0.1, 0.2, 0.2], np.float32)
# A box is at most so many times as high or wide as the one that it is told from: e to this.
LARGEST = 4.0
# Places within a cell of a region, in each direction, whose values are averaged.
SAMPLES = 2
RATIOS = (0.5, 1.0, 2.0)

# Middles down and across, heights, widths.
Places = tuple[Any, Any, Any, Any]


@dataclass(frozen=True)
class Anchors:
    """The boxes around the middle of every cell of a map, of a few shapes.

    Attributes:
        cells: height and width of the map.
        stride: pixels between the middles of cells.
        shapes: (A, 2) heights and widths, in pixels.
    """

    cells: tuple[int, int]
    stride: float
    shapes: np.ndarray

    def __len__(self) -> int:
        return self.cells[0] * self.cells[1] * len(self.shapes)

    def places(self) -> Places:
        """What broadcasts to (H, W, A)."""
        down, across = ((np.arange(count, dtype=np.float32) + 0.5) * self.stride for count in self.cells)
        heights, widths = self.shapes.astype(np.float32).T
        return down[:, None, None], across[:, None], heights, widths

    def boxes(self) -> np.ndarray:
        """(H x W x A, 4) float32, row after row of cells."""
        down, across, heights, widths = np.broadcast_arrays(*self.places())
        sides = [down - heights / 2, across - widths / 2, down + heights / 2, across + widths / 2]
        return np.stack(sides, axis=-1).reshape(-1, 4)

    def decode(self, offsets: Any) -> Any:
        """(N, H x W x A, 4) boxes, those at some offsets (N, H, W, A x 4) from the anchors."""
        answers = ops.reshape(offsets, (-1, *self.cells, len(self.shapes), 4))
        return ops.reshape(_boxes_at(self.places(), answers), (-1, len(self), 4))


def anchors_on(cells: Sequence[int], stride: float, sizes: Sequence[float], ratios: Sequence[float]) -> Anchors:
    """Anchors of some sizes (the square roots of their areas) and ratios of width to height, each with each."""
    shapes = [(size / ratio**0.5, size * ratio**0.5) for size in sizes for ratio in ratios]
    height, width = cells
    return Anchors((height, width), stride, np.array(shapes, np.float32))


def decode_boxes(boxes: Any, offsets: Any) -> Any:
    """The boxes at some offsets from others."""
    return _boxes_at(_places_of(boxes), offsets)


def encode_boxes(boxes: Any, targets: Any) -> Any:
    """What `moved` needs to get from boxes to targets; both of at least one pixel's thousandth."""
    down, across, heights, widths = _places_of(boxes)
    to_down, to_across, to_heights, to_widths = _places_of(targets)
    heights, widths, to_heights, to_widths = (
        ops.maximum(length, 1e-3) for length in (heights, widths, to_heights, to_widths)
    )
    shifts = [(to_down - down) / heights, (to_across - across) / widths]
    growth = [ops.log(to_heights / heights), ops.log(to_widths / widths)]
    return ops.stack([*shifts, *growth], axis=-1) / VARIANCE


def _places_of(boxes: Any) -> Places:
    top, left, bottom, right = (boxes[..., side] for side in range(4))
    return (top + bottom) / 2, (left + right) / 2, bottom - top, right - left


def _boxes_at(places: Places, offsets: Any) -> Any:
    down, across, heights, widths = places
    shift_down, shift_across, taller, wider = (offsets[..., i] * float(VARIANCE[i]) for i in range(4))
    # Less the opposite: Keras's sum takes a constant with one long axis for a bias, on whichever axis fits its length.
    middle_down, middle_across = shift_down * heights - (-down), shift_across * widths - (-across)
    half_height = ops.exp(ops.minimum(taller, LARGEST)) * (heights / 2)
    half_width = ops.exp(ops.minimum(wider, LARGEST)) * (widths / 2)
    sides = [
        middle_down - half_height,
        middle_across - half_width,
        middle_down + half_height,
        middle_across + half_width,
    ]
    return ops.stack(sides, axis=-1)


def clip_boxes(boxes: Any, side: int) -> Any:
    """Boxes cut off at the edges of a canvas."""
    return ops.clip(boxes, 0.0, float(side))


def roi_align(maps: Any, boxes: Any, size: int, stride: float) -> Any:
    """What a map shows in boxes, on `size` x `size` cells each: RoIAlign (He et al., "Mask R-CNN", 2017).

    Each cell is the mean of four places, each of these interpolated between the four values around it. As that is a
    weighted sum over rows and one over columns, it is done by two matrix products.

    Args:
        maps: (N, H, W, C).
        boxes: (N, R, 4).
        stride: pixels of a cell of the map.

    Returns:
        (N, R, size, size, C).
    """
    top, left, bottom, right = (boxes[..., side] / stride for side in range(4))
    rows = ops.cast(_weights(top, bottom, size, maps.shape[1]), maps.dtype)
    columns = ops.cast(_weights(left, right, size, maps.shape[2]), maps.dtype)
    return ops.einsum("nrqw,nrpwc->nrpqc", columns, ops.einsum("nrph,nhwc->nrpwc", rows, maps))


def _weights(first: Any, last: Any, size: int, cells: int) -> Any:
    """(N, R, size, cells): how much each cell of a map counts for each cell of an interval (N, R) in one direction."""
    share = (np.arange(size * SAMPLES, dtype=np.float32) + 0.5) / (size * SAMPLES)
    places = first[..., None] + (last - first)[..., None] * share - 0.5
    places = ops.clip(places, 0.0, float(cells - 1))
    near = ops.relu(1.0 - ops.abs(places[..., None] - np.arange(cells, dtype=np.float32)))
    return ops.mean(ops.reshape(near, (-1, near.shape[1], size, SAMPLES, cells)), axis=3)
