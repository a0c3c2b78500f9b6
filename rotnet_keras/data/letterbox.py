"""Letterboxing: resizing images of any shape, with their masks and boxes, into squares of one size and back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

# The mean colour of ImageNet, which normalisation makes zero.
FILL = (124, 116, 104)


@dataclass(frozen=True)
class Placement:
    """How an image is placed in a letterbox.

    Attributes:
        width, height: size of the image in its own pixels.
        scale: factor that the size is multiplied by.
        top, left: position of the image's corner in pixels of the letterbox; negative where the image is cropped.
        flip: whether the image is mirrored left to right before it is placed.
    """

    width: int
    height: int
    scale: float
    top: int = 0
    left: int = 0
    flip: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the letterbox."""
        return max(1, round(self.width * self.scale)), max(1, round(self.height * self.scale))


def fitted_placement(size: tuple[int, int], side: int, short: int | None = None) -> Placement:
    """Return the placement of a whole image in the top left corner, as large as it fits.

    Args:
        size: width and height of the image in pixels.
        side: of the letterbox in pixels.
        short: the length in pixels that the image's short side is not to exceed.
    """
    largest = side / max(size)
    return Placement(*size, largest if short is None else min(largest, short / min(size)))


def random_placement(
    size: tuple[int, int], side: int, scales: Sequence[float], flip: bool, rng: np.random.Generator
) -> Placement:
    """Draw a placement at a random scale; a random crop of the image where it is larger than the letterbox.

    Args:
        size: width and height of the image in pixels.
        side: of the letterbox in pixels.
        scales: smallest and largest scale, drawn uniformly in the logarithm. At 1 the image just fits.
        flip: whether half of the placements are mirrored.
    """
    scale = side / max(size) * float(np.exp(rng.uniform(*np.log(scales))))
    placement = Placement(*size, scale)
    # The same number of draws is made whatever the arguments are.
    corners = [-int(rng.integers(0, max(0, length - side) + 1)) for length in placement.size]
    mirrored = bool(rng.random() < 0.5) and flip
    return Placement(*size, scale, corners[1], corners[0], mirrored)


def letterbox_image(pixels: np.ndarray, placement: Placement, side: int) -> np.ndarray:
    """Letterbox an image (H, W, 3) uint8: (side, side, 3) uint8."""
    image = Image.fromarray(pixels).resize(placement.size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return _paste(np.asarray(image), placement, np.full((side, side, 3), FILL, np.uint8))


def letterbox_mask(mask: np.ndarray, placement: Placement, side: int, void: int) -> np.ndarray:
    """Letterbox a mask (H, W) uint8: (side, side) uint8, with `void` where there is no image."""
    image = Image.fromarray(mask).resize(placement.size, Image.Resampling.NEAREST)
    return _paste(np.asarray(image), placement, np.full((side, side), void, np.uint8))


def unletterbox_mask(mask: np.ndarray, placement: Placement) -> np.ndarray:
    """Undo the letterboxing of a mask (side, side) by `fitted_placement`: (H, W) in the image's own size."""
    width, height = placement.size
    image = Image.fromarray(mask[:height, :width])
    return np.asarray(image.resize((placement.width, placement.height), Image.Resampling.NEAREST))


def letterbox_boxes(corners: np.ndarray, placement: Placement, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Letterbox the boxes of an image.

    Args:
        corners: (n, 4) top, left, bottom, right in the image's own pixels.

    Returns:
        (n, 4) corners in pixels of the letterbox, clipped to it, and (n,) the share of each box's area that is left.
    """
    # The actual scale along each axis: the resized sides are whole pixels.
    across, down = (new / old for new, old in zip(placement.size, (placement.width, placement.height), strict=True))
    top, left, bottom, right = corners.T
    if placement.flip:
        left, right = placement.width - right, placement.width - left
    placed = np.stack([top * down, left * across, bottom * down, right * across], axis=1)
    placed += [placement.top, placement.left, placement.top, placement.left]
    clipped = np.clip(placed, 0, side)
    return clipped, _areas(clipped) / np.maximum(_areas(placed), 1e-9)


def unletterbox_boxes(corners: np.ndarray, placement: Placement) -> np.ndarray:
    """Undo the letterboxing of boxes (n, 4) by `fitted_placement`: corners in the image's own pixels, clipped to it."""
    across, down = (old / new for new, old in zip(placement.size, (placement.width, placement.height), strict=True))
    limits = [placement.height, placement.width] * 2
    return np.clip(corners * [down, across, down, across], 0, limits)


def _areas(corners: np.ndarray) -> np.ndarray:
    return np.prod(corners[:, 2:] - corners[:, :2], axis=1)


def _paste(image: np.ndarray, placement: Placement, canvas: np.ndarray) -> np.ndarray:
    if placement.flip:
        image = image[:, ::-1]
    image = image[-placement.top or None :, -placement.left or None :] if placement.top or placement.left else image
    height, width = (min(a, b) for a, b in zip(image.shape, canvas.shape[:2], strict=False))
    canvas[:height, :width] = image[:height, :width]
    return canvas
