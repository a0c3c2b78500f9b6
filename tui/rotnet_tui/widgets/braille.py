"""A canvas of braille dots, two wide and four high in each cell."""

from collections.abc import Sequence

import numpy as np

# The bit of each dot in a cell, by row and column.
BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], np.uint8)
BLANK = 0x2800


class DotCanvas:
    """Cells of dots, each with the number of the line that was drawn there last.

    Attributes:
        dots: (height, width) uint8, the dots of each cell as bits.
        owners: (height, width) int, the number of a line; -1 where there is none.
    """

    def __init__(self, width: int, height: int) -> None:
        self.dots = np.zeros((height, width), np.uint8)
        self.owners = np.full((height, width), -1)

    def line(self, x: np.ndarray, y: np.ndarray, owner: int, dash: Sequence[int] = ()) -> None:
        """Draw a line through points; a single point becomes a dot.

        Args:
            x: (N,) in dots from the left edge; parts outside are cut off.
            y: (N,) in dots from the upper edge.
            owner: the number of the line.
            dash: lengths of strokes and gaps by turns, in dots; empty for a line without gaps.
        """
        high, wide = 4 * self.dots.shape[0], 2 * self.dots.shape[1]
        if len(x) == 1:
            x, y = np.repeat(x, 2), np.repeat(y, 2)
        x0, y0, dx, dy = x[:-1], y[:-1], np.diff(x), np.diff(y)
        first, last = np.zeros(len(x0)), np.ones(len(x0))
        # Liang and Barsky: the part of each segment that lies inside.
        for start, change, limit in ((x0, dx, wide), (y0, dy, high)):
            with np.errstate(divide="ignore", invalid="ignore"):
                a, b = (-0.5 - start) / change, (limit - 0.5 - start) / change
            still = change == 0
            outside = still & ((start < -0.5) | (start >= limit - 0.5))
            first = np.where(still, first, np.maximum(first, np.minimum(a, b)))
            last = np.where(outside, -1.0, np.where(still, last, np.minimum(last, np.maximum(a, b))))
        seen = first <= last
        x0, y0, dx, dy, first, last = (values[seen] for values in (x0, y0, dx, dy, first, last))
        count = np.ceil(np.maximum(abs(dx), abs(dy)) * (last - first)).astype(int) + 1
        segment = np.repeat(np.arange(len(count)), count)
        position = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        share = first[segment] + (last - first)[segment] * position / np.maximum(1, count - 1)[segment]
        column = np.floor(x0[segment] + share * dx[segment] + 0.5 + 1e-6).astype(int).clip(0, wide - 1)
        row = np.floor(y0[segment] + share * dy[segment] + 0.5 + 1e-6).astype(int).clip(0, high - 1)
        if dash:
            pattern = np.repeat(np.arange(len(dash)) % 2 == 0, dash)
            drawn = pattern[np.arange(len(column)) % len(pattern)]
            column, row = column[drawn], row[drawn]
        np.bitwise_or.at(self.dots, (row // 4, column // 2), BITS[row % 4, column % 2])
        self.owners[row // 4, column // 2] = owner

    def characters(self, row: int) -> list[str]:
        """The cells of a row as characters; a space where there is no dot."""
        return [chr(BLANK + int(bits)) if bits else " " for bits in self.dots[row]]
