"""How images of any shape become images of one shape, and crops of these: drawn at random, or in the centre.

A box is (top, left, height, width) in pixels of an image that was resized to fit a shape. Only boxes are computed here,
no pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rotnet_keras.config.sections import Data

# Draws of a random-resized crop before the central part is used instead.
TRIES = 10
How = Literal["crop", "stretch", "letterbox"]

# (top, left, height, width) of a part of an image, in pixels of the image after it was resized to fit.
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Fit:
    """The shape that images are brought to, and how.

    Attributes:
        height: in pixels.
        width: in pixels.
        how: "crop" resizes an image until it covers the shape, and keeps its central part; "stretch" resizes both sides
            to it; "letterbox" resizes an image until it lies within it, between bars of its lowest value.
    """

    height: int
    width: int
    how: How = "crop"

    @classmethod
    def of(cls, size: "int | Sequence[int] | Fit", how: How = "crop") -> "Fit":
        """Return the fit for the side of a square, or for (height, width)."""
        if isinstance(size, Fit):
            return size
        height, width = (size, size) if isinstance(size, int) else size
        return cls(int(height), int(width), how)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    def per_pixel(self, width: float, height: float) -> tuple[tuple[float, int], tuple[float, int]]:
        """Return the pixels of an image over those of the resized one, along height and along width, as fractions.

        Args:
            width: of the image in its own pixels.
            height: of the image in its own pixels.
        """
        down, across = (height, self.height), (width, self.width)
        if self.how == "stretch":
            return down, across
        taller = height * self.width > width * self.height
        chosen = across if taller == (self.how == "crop") else down
        return chosen, chosen

    def extents(self, shapes: np.ndarray) -> np.ndarray:
        """Return the boxes (N, 4) that images cover after they were resized to fit.

        Args:
            shapes: (N, 2) width and height of each image in its own pixels.

        Returns:
            (N, 4) float64; the whole shape where images are stretched or letterboxed.
        """
        if self.how != "crop":
            return np.tile([0.0, 0.0, self.height, self.width], (len(shapes), 1))
        sides = shapes[:, ::-1].astype(float)
        taller = sides[:, 0] * self.width > sides[:, 1] * self.height
        own = np.where(taller, sides[:, 1], sides[:, 0])[:, None]
        wanted = np.where(taller, self.width, self.height)[:, None]
        lengths = sides * wanted / own
        return np.concatenate([np.zeros_like(lengths), lengths], axis=1)

    @property
    def usual(self) -> bool:
        """Whether the central square is kept."""
        return self.height == self.width and self.how == "crop"

    def key(self) -> str:
        """Return what tells this fit from others in the name of a file; the side alone for central squares."""
        return str(self.height) if self.usual else f"{self.height}x{self.width}-{self.how}"

    def sentence(self) -> str:
        """Return what is done to images, for people."""
        if self.usual:
            return f"the short side is resized to {self.height} pixels and the central square is kept"
        shape = f"{self.height} x {self.width} pixels (height x width)"
        return {
            "crop": f"images are resized to cover {shape}, and the central part is kept",
            "stretch": f"images are stretched to {shape}",
            "letterbox": f"images are resized to lie within {shape}, between bars of their lowest value",
        }[self.how]


def fit_of(data: Data, size: int | Sequence[int] | None = None) -> Fit | None:
    """Return how a recipe's images are brought to one shape.

    Args:
        data: the recipe's section.
        size: the shape where the recipe sets none; without one None is returned.
    """
    wanted = data.size or size
    return None if wanted is None else Fit.of(wanted, data.fit)


def random_crops(frames: np.ndarray, size: int | tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw a crop of a fixed size in each frame.

    Args:
        frames: (N, 4) boxes that the crops must lie in, with sides of at least `size` pixels.
        size: height and width of the crops in pixels, or the side of squares.

    Returns:
        (N, 4) float64 boxes, at whole pixels from the corners of their frames.
    """
    sides = np.broadcast_to(np.asarray(size, float), (len(frames), 2))
    room = np.floor(frames[:, 2:] - sides).astype(int) + 1
    corners = frames[:, :2] + rng.integers(0, room)
    return np.concatenate([corners, sides], axis=1)


def random_resized_crops(
    frames: np.ndarray, area: Sequence[float], aspect: float, rng: np.random.Generator, shape: float = 1.0
) -> np.ndarray:
    """Draw a random-resized crop in each frame, as torchvision does.

    Args:
        frames: (N, 4) boxes that the crops must lie in.
        area: smallest and largest share of the frame that a crop covers.
        aspect: largest ratio of width to height; the smallest is its inverse, and the logarithm is uniform.
        shape: width over height of the results, by which these ratios are multiplied.

    Returns:
        (N, 4) float64 boxes; the central part of the frame if none of ten draws fits into it.
    """
    count, (height, width) = len(frames), frames[:, 2:].T[:, :, None]
    shares = rng.uniform(area[0], area[1], (count, TRIES))
    ratios = np.exp(rng.uniform(-np.log(aspect), np.log(aspect), (count, TRIES))) * shape
    widths, heights = np.sqrt(shares * height * width * ratios), np.sqrt(shares * height * width / ratios)
    fits = (widths <= width) & (heights <= height)
    first, rows = np.argmax(fits, axis=1), np.arange(count)
    boxes = np.empty((count, 4))
    boxes[:, 2], boxes[:, 3] = heights[rows, first], widths[rows, first]
    boxes[:, :2] = frames[:, :2] + rng.random((count, 2)) * (frames[:, 2:] - boxes[:, 2:])
    tall = np.minimum(height, width / shape)
    sides = np.concatenate([tall, tall * shape], axis=1)
    return np.where(fits.any(axis=1)[:, None], boxes, center_crops(frames, sides))


def center_crops(frames: np.ndarray, size: float | Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the central part of each frame.

    Args:
        frames: (N, 4) boxes.
        size: the side of squares, a height and a width, or (N, 2) heights and widths.

    Returns:
        (N, 4) float64.
    """
    sides = np.broadcast_to(np.asarray(size, float), (len(frames), 2))
    return np.concatenate([frames[:, :2] + (frames[:, 2:] - sides) / 2, sides], axis=1)
