"""Pictures of any shape on squares of one size: where they lie there, with their masks and boxes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

# ImageNet's mean, which backbones see as nothing.
FILL = (124, 116, 104)


@dataclass(frozen=True)
class Placement:
    """How a picture is laid on a canvas.

    Attributes:
        width, height: of the picture, in its own pixels.
        scale: what these are multiplied by.
        top, left: where its corner lies, in pixels of the canvas; negative where it is cut off.
        flip: whether it is mirrored, left and right, before that.
    """

    width: int
    height: int
    scale: float
    top: int = 0
    left: int = 0
    flip: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height on the canvas, in pixels."""
        return max(1, round(self.width * self.scale)), max(1, round(self.height * self.scale))


def fitted(size: tuple[int, int], side: int) -> Placement:
    """All of a picture of some width and height in the canvas's corner, as large as it can be."""
    return Placement(*size, side / max(size))


def at_random(
    size: tuple[int, int], side: int, scales: Sequence[float], flip: bool, rng: np.random.Generator
) -> Placement:
    """A picture at a random scale, at a random place: a window of it where it is larger than the canvas.

    Args:
        scales: the least and the greatest; drawn evenly in their logarithm. At 1 the picture just fills the canvas.
    """
    scale = side / max(size) * float(np.exp(rng.uniform(*np.log(scales))))
    placement = Placement(*size, scale)
    # The drawn numbers are as many whatever comes of them.
    corners = [-int(rng.integers(0, max(0, length - side) + 1)) for length in placement.size]
    mirrored = bool(rng.random() < 0.5) and flip
    return Placement(*size, scale, corners[1], corners[0], mirrored)


def lay(pixels: np.ndarray, placement: Placement, side: int) -> np.ndarray:
    """(side, side, 3) uint8 of a picture (H, W, 3)."""
    image = Image.fromarray(pixels).resize(placement.size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return _laid(np.asarray(image), placement, np.full((side, side, 3), FILL, np.uint8))


def lay_mask(mask: np.ndarray, placement: Placement, side: int, void: int) -> np.ndarray:
    """(side, side) uint8 of a mask (H, W); `void` where there is no picture."""
    image = Image.fromarray(mask).resize(placement.size, Image.Resampling.NEAREST)
    return _laid(np.asarray(image), placement, np.full((side, side), void, np.uint8))


def taken_off(mask: np.ndarray, placement: Placement) -> np.ndarray:
    """(H, W) of a mask (side, side): what it shows where `fitted` laid the picture, in the picture's own size."""
    width, height = placement.size
    image = Image.fromarray(mask[:height, :width])
    return np.asarray(image.resize((placement.width, placement.height), Image.Resampling.NEAREST))


def lay_boxes(corners: np.ndarray, placement: Placement, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Where boxes (n, 4), top, left, bottom, right in the picture's pixels, lie on the canvas, and how much of each.

    Returns:
        (n, 4) in the canvas's pixels, cut off at its edges, and (n,) the shares of their areas that are left.
    """
    # What the picture is really enlarged by: its sides are whole pixels.
    across, down = (new / old for new, old in zip(placement.size, (placement.width, placement.height), strict=True))
    top, left, bottom, right = corners.T
    if placement.flip:
        left, right = placement.width - right, placement.width - left
    laid = np.stack([top * down, left * across, bottom * down, right * across], axis=1)
    laid += [placement.top, placement.left, placement.top, placement.left]
    cut = np.clip(laid, 0, side)
    return cut, _areas(cut) / np.maximum(_areas(laid), 1e-9)


def boxes_taken_off(corners: np.ndarray, placement: Placement) -> np.ndarray:
    """(n, 4) in the picture's own pixels, cut off at its edges, of boxes on a canvas where `fitted` laid it."""
    across, down = (old / new for new, old in zip(placement.size, (placement.width, placement.height), strict=True))
    limits = [placement.height, placement.width] * 2
    return np.clip(corners * [down, across, down, across], 0, limits)


def _areas(corners: np.ndarray) -> np.ndarray:
    return np.prod(corners[:, 2:] - corners[:, :2], axis=1)


def _laid(image: np.ndarray, placement: Placement, canvas: np.ndarray) -> np.ndarray:
    if placement.flip:
        image = image[:, ::-1]
    image = image[-placement.top or None :, -placement.left or None :] if placement.top or placement.left else image
    height, width = (min(a, b) for a, b in zip(image.shape, canvas.shape[:2], strict=False))
    canvas[:height, :width] = image[:height, :width]
    return canvas
