"""Text for people: safe to print, durations, percentages, and long lists cut short."""

import math
from collections.abc import Sequence

# How many names of a long list are shown.
NAMED = 5


def printable(text: str) -> str:
    """Return the text without control characters, which could take over a terminal, and other unprintable ones."""
    return "".join(c for c in text if c in "\n\t" or c.isprintable())


def duration(seconds: float | None) -> str:
    """Format seconds in their two largest units: "3 d 04 h", "1 h 02 min", "3 min 10 s", "8 s"; empty for None."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(whole / 60), 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(round(whole / 3600), 24)
    return f"{days} d {hours:02d} h"


def percent(share: float | None, digits: int | None = 1, sign: str = " %", significant: int = 0) -> str:
    """Format a share from 0 to 1 as "84.0 %"; empty for None.

    Args:
        share: the share, or None if it is not known.
        digits: how many digits follow the point; None for as many as the share has, up to four significant ones.
        sign: "" if the heading of a column says already that its numbers are percentages.
        significant: how many significant digits a share below 1 % has at least: with 2, 0.00034 is "0.034 %".
    """
    if share is None:
        return ""
    if digits is None:
        return f"{100 * share:.4g}{sign}"
    if significant and 0 < abs(share) < 0.01:
        digits = max(digits, significant - 1 - math.floor(math.log10(100 * abs(share))))
    return f"{100 * share:.{digits}f}{sign}"


def first_few(names: Sequence[str], most: int = NAMED, separator: str = ", ") -> str:
    """Join the first names of a list and say how many more there are: "a, b and 3 more"."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return printable(separator.join(names[:most])) + more
