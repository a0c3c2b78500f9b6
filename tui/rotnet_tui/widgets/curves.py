"""The curves of a chart: their points, their looks, and how they are smoothed and thinned."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

# Weights of the past in the exponential moving average of a curve; the first means no smoothing.
SMOOTHING = (0.0, 0.8, 0.95)
# Curves of a chart differ by colour, and without colours by their strokes, which the legend shows.
COLORS = ("$text-primary", "$text-warning", "$text-success", "$text-error", "$text-accent", "$text-secondary")
DASHES: tuple[tuple[str, tuple[int, ...]], ...] = (*(("━", ()), ("╍", (7, 4)), ("┉", (2, 3)), ("╸·", (9, 3, 2, 3))),)


@dataclass(frozen=True)
class Curve:
    """One curve of a chart.

    Attributes:
        x: in ascending order.
        color: a colour of Textual's themes, such as "$text-primary".
        dash: index into `DASHES`.
        smooth: whether the curve may be smoothed.
    """

    name: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    color: str
    dash: int = 0
    smooth: bool = False


def value_at(curve: Curve, x: float) -> float:
    """The value of a curve at the point that is nearest to a position."""
    xs = np.asarray(curve.x)
    after = min(int(np.searchsorted(xs, x)), len(xs) - 1)
    before = max(0, after - 1)
    return float(curve.y[before if abs(xs[before] - x) <= abs(xs[after] - x) else after])


def shortened(names: Sequence[str], room: int) -> list[str]:
    """Names cut in the middle, the longest first, so that they take so many cells together; at least five each."""
    most = max(map(len, names), default=0)
    while most > 5 and sum(min(len(name), most) for name in names) > room:
        most -= 1
    half = (most - 1) // 2
    return [name if len(name) <= most else f"{name[: most - 1 - half]}…{name[len(name) - half :]}" for name in names]


def finite(
    x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, positive: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The points of a curve that are finite, and above zero where they have to be."""
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    good = np.isfinite(xs) & np.isfinite(ys)
    if positive:
        good[good] = ys[good] > 0
    return xs[good], ys[good]


def smoothed(values: np.ndarray, weight: float) -> np.ndarray:
    """Exponential moving average, corrected for the bias at its start."""
    if not weight:
        return values
    smooth = np.empty_like(values)
    average = total = 0.0
    for i, value in enumerate(values.tolist()):
        average = weight * average + (1 - weight) * value
        total = weight * total + (1 - weight)
        smooth[i] = average / total
    return smooth


def decimated(x: np.ndarray, y: np.ndarray, buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """At most two points per bucket, the lowest and the highest, so that spikes stay visible."""
    if len(x) <= 2 * buckets:
        return x, y
    cuts = np.linspace(0, len(x), buckets + 1).astype(int)
    keep = {start + int(pick(y[start:end])) for start, end in pairwise(cuts) for pick in (np.argmin, np.argmax)}
    chosen = sorted(keep | {0, len(x) - 1})
    return x[chosen], y[chosen]
