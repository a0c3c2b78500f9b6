"""The values of images with more than 8 bits: the range that they are scaled from, and how people see them.

Such images stay as they are: float32 arrays of the numbers in their files. A model begins with a layer that scales
them, so that its export takes these numbers too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# The percentiles of each channel of the training images that are its range.
PERCENTILES = (0.1, 99.9)
# Images, and values of each channel, that a range is measured on, at most.
MOST_IMAGES, MOST_VALUES = 10_000, 4_000_000
# How many decimal digits of a range are kept.
DIGITS = 7


@dataclass(frozen=True)
class ValueRange:
    """The range of the values of each channel, without the lowest and the highest thousandth.

    Attributes:
        low, high: for each channel, in the numbers of the files.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def span(self) -> np.ndarray:
        """The width of the range of each channel; 1 where all values are equal."""
        wide = np.subtract(self.high, self.low)
        return np.where(wide > 0, wide, 1.0)

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Return values (..., C) on the scale from 0 to 255, clipped: float32."""
        share = (values.astype(np.float32) - np.asarray(self.low, np.float32)) / self.span.astype(np.float32)
        return np.clip(255 * share, 0, 255)

    def facts(self) -> dict[str, Any]:
        """Return the range as `run.json` holds it."""
        return {"percentiles": list(PERCENTILES), "low": list(self.low), "high": list(self.high)}

    def sentence(self) -> str:
        """Return the range in words."""
        pairs = [f"{low:g} to {high:g}" for low, high in zip(self.low, self.high, strict=True)]
        shown = ", ".join(pairs[:4]) + (f" and {len(pairs) - 4} more channels" if len(pairs) > 4 else "")
        return f"{PERCENTILES[0]:g} to {PERCENTILES[1]:g} % of the values are from {shown}"


def known_range(facts: Mapping[str, Any]) -> ValueRange | None:
    """Return the range that an earlier start fixed, from the contents of its `run.json`."""
    found = facts.get("value_range")
    try:
        low, high = (tuple(float(each) for each in found[key]) for key in ("low", "high"))  # type: ignore[index]
    except (TypeError, KeyError, ValueError):
        return None
    return ValueRange(low, high) if low and len(low) == len(high) else None


def measure_range(parts: Sequence[np.ndarray]) -> ValueRange:
    """Measure the range of some images.

    Args:
        parts: arrays (..., C).
    """
    values = np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts])
    low, high = np.percentile(values, PERCENTILES, axis=0)
    return ValueRange(*(tuple(float(f"{each:.{DIGITS}g}") for each in ends) for ends in (low, high)))


def displayed(images: np.ndarray, values: ValueRange | None, shown: Sequence[int] | None = None) -> np.ndarray:
    """Return images as people see them: (N, H, W, 1 or 3) uint8.

    Args:
        images: (N, H, W, C).
        values: their range; None for bytes. Without one, floats are scaled from their own range.
        shown: the channels that are red, green and blue; the first three by default, the first of two.
    """
    channels = images.shape[-1]
    chosen = list(shown) if shown else ([0, 1, 2] if channels >= 3 else [0])
    if images.dtype != np.uint8:
        values = values or measure_range([images])
        images = np.rint(values.scaled(images)).astype(np.uint8)
    images = images[..., [each for each in chosen if each < channels] or [0]]
    # Two channels cannot be drawn.
    return images[..., :1] if images.shape[-1] == 2 else images
