"""Round positions for the ticks of an axis, and their labels."""

import math
from collections.abc import Sequence
from itertools import pairwise


def ticks(low: float, high: float, most: int, log: bool = False) -> list[float]:
    """Round positions on an axis; the middle alone if it is constant.

    Args:
        low: the lower end; of a logarithmic axis, its decimal logarithm.
        high: the upper end.
        most: how many ticks there is room for, at least 1.
        log: whether the axis is logarithmic.
    """
    if high - low <= 1e-4 * max(abs(low), abs(high)):
        return [(low + high) / 2]
    if log:
        powers = range(math.floor(low), math.ceil(high) + 1)
        for digits in ((1, 2, 5), (1,)):
            inside = [p + math.log10(m) for p in powers for m in digits if low <= p + math.log10(m) <= high]
            if 1 < len(inside) <= most:
                return inside
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * m for m in (1, 2, 5, 10, 20) if (high - low) // (power * m) < most)
    found = [step * n for n in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]
    return found or [(low + high) / 2]


def labels(positions: Sequence[float], log: bool = False) -> list[str]:
    """A short label for each tick: 20k instead of 20000, 1e-3 instead of 0.001."""
    if log:
        return [f"{10**position:.3g}" for position in positions]
    largest = max(map(abs, positions), default=0.0)
    if len(positions) == 1 or 0 < largest < 0.01:
        return [f"{position:.3g}" for position in positions]
    if largest >= 10_000 and all(math.isclose(position, round(position)) for position in positions):
        return [f"{position / 1e6:g}M" if largest >= 1e7 else f"{position / 1e3:g}k" for position in positions]
    step = min(abs(b - a) for a, b in pairwise(positions))
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{position:.{decimals}f}" for position in positions]
