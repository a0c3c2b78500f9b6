"""Where the crops of images lie: at random for training, in the middle for evaluation.

A box is (top, left, height, width) in the pixels of an image that was resized to a known short side. Nothing here
sees a pixel.
"""

from collections.abc import Sequence

import numpy as np

# How often a crop of random size is drawn before the central square is taken.
TRIES = 10


def anywhere(frames: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Boxes of a fixed size, each anywhere in its frame.

    Args:
        frames: (N, 4) boxes to stay inside of, `size` pixels a side or more.

    Returns:
        (N, 4) float64 boxes; they lie on whole pixels of their frames.
    """
    room = np.floor(frames[:, 2:] - size).astype(int) + 1
    corners = frames[:, :2] + rng.integers(0, room)
    return np.concatenate([corners, np.full((len(frames), 2), float(size))], axis=1)


def resized(frames: np.ndarray, area: Sequence[float], aspect: float, rng: np.random.Generator) -> np.ndarray:
    """Boxes of random size and shape, anywhere in their frames: "random-resized crops", as torchvision draws them.

    Args:
        frames: (N, 4) boxes to stay inside of.
        area: smallest and largest share of the frame.
        aspect: the largest ratio of width to height; its inverse is the smallest, and their logarithm is uniform.

    Returns:
        (N, 4) float64 boxes; the frame's central square where none of ten draws fits into it.
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
    return np.where(fits.any(axis=1)[:, None], boxes, central(frames, np.minimum(height, width)[:, 0]))


def central(frames: np.ndarray, size: float | np.ndarray) -> np.ndarray:
    """Squares of a size (a number, or one for each) in the middle of their frames: (N, 4) float64."""
    sides = np.broadcast_to(np.asarray(size, float), len(frames))[:, None]
    return np.concatenate([frames[:, :2] + (frames[:, 2:] - sides) / 2, sides, sides], axis=1)
