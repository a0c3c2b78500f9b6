"""Drawing crops: at random for training, in the centre for evaluation.

A box is (top, left, height, width) in pixels of an image whose short side was resized to a known length. Only boxes are
computed here, no pixels.
"""

from collections.abc import Sequence

import numpy as np

# Draws of a random-resized crop before the central square is used instead.
TRIES = 10


def random_crops(frames: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a square crop of a fixed size in each frame.

    Args:
        frames: (N, 4) boxes that the crops must lie in, with sides of at least `size` pixels.
        size: side of the crops in pixels.

    Returns:
        (N, 4) float64 boxes, at whole pixels from the corners of their frames.
    """
    room = np.floor(frames[:, 2:] - size).astype(int) + 1
    corners = frames[:, :2] + rng.integers(0, room)
    return np.concatenate([corners, np.full((len(frames), 2), float(size))], axis=1)


def random_resized_crops(
    frames: np.ndarray, area: Sequence[float], aspect: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw a random-resized crop in each frame, as torchvision does.

    Args:
        frames: (N, 4) boxes that the crops must lie in.
        area: smallest and largest share of the frame that a crop covers.
        aspect: largest ratio of width to height; the smallest is its inverse, and the logarithm is uniform.

    Returns:
        (N, 4) float64 boxes; the central square of the frame if none of ten draws fits into it.
    """
    count, (height, width) = len(frames), frames[:, 2:].T[:, :, None]
    shares = rng.uniform(area[0], area[1], (count, TRIES))
    ratios = np.exp(rng.uniform(-np.log(aspect), np.log(aspect), (count, TRIES)))
    widths, heights = np.sqrt(shares * height * width * ratios), np.sqrt(shares * height * width / ratios)
    fits = (widths <= width) & (heights <= height)
    first, rows = np.argmax(fits, axis=1), np.arange(count)
    boxes = np.empty((count, 4))
    boxes[:, 2], boxes[:, 3] = heights[rows, first], widths[rows, first]
    boxes[:, :2] = frames[:, :2] + rng.random((count, 2)) * (frames[:, 2:] - boxes[:, 2:])
    return np.where(fits.any(axis=1)[:, None], boxes, center_crops(frames, np.minimum(height, width)[:, 0]))


def center_crops(frames: np.ndarray, size: float | np.ndarray) -> np.ndarray:
    """Return the central square of each frame, of one size or of a size for each: (N, 4) float64."""
    sides = np.broadcast_to(np.asarray(size, float), len(frames))[:, None]
    return np.concatenate([frames[:, :2] + (frames[:, 2:] - sides) / 2, sides, sides], axis=1)
