"""Images drawn with half blocks, two pixels per cell, which work in every terminal, in tmux and in a browser."""

from pathlib import Path

from PIL import Image
from rich_pixels import Pixels

from rotnet_keras.reports.samples import read_strip


def open_image(path: Path) -> Image.Image | None:
    """An image that a run has drawn, in RGB; None if it is missing, damaged, or not a file of the run's own."""
    try:
        return read_strip(path).convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return None


def half_blocks(image: Image.Image, width: int, height: int) -> Pixels:
    """The image in `width` cells and `height` rows."""
    size = (width, 2 * height)
    smaller = size[0] < image.width or size[1] < image.height
    resized = image.resize(size, Image.Resampling.BOX if smaller else Image.Resampling.NEAREST)
    return Pixels.from_image(resized)
