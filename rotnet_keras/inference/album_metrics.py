"""What the decisions of `upright` do to an album whose rotations are known, and shares with their intervals."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from rotnet_keras.inference.corrections import Corrections
from rotnet_keras.text import percent

# Standard deviations on either side that hold 95 % of a normal distribution.
Z = 1.96


@dataclass(frozen=True)
class Proportion:
    """A share of some images, with its 95 % confidence interval (Wilson's).

    Attributes:
        count: how many images it is a share of.
        value: the share, 0 to 1.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    count: int
    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """The share under the keys of `upright.json`."""
        return {"of": self.count, "value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class AlbumMetrics:
    """What the decisions of `upright` do to an album of which it is known how the images were rotated.

    Attributes:
        prior: the share of upright images that the decisions assumed, 0 to 1.
        estimated: whether it was estimated from the album.
        spoil_cost: how many images left not upright one spoiled image outweighs.
        spoiled: of the upright images, those that are rotated; None without upright images.
        righted: of the rotated images, those that are set upright; None without rotated images.
        wrong_before: of all images, those that were not upright.
        wrong_after: of all images, those that are not upright after the corrections.
    """

    prior: float
    estimated: bool
    spoil_cost: float
    spoiled: Proportion | None
    righted: Proportion | None
    wrong_before: Proportion
    wrong_after: Proportion

    def as_json(self) -> dict[str, Any]:
        """The figures under the key `album` of `upright.json`."""
        return {
            "prior": self.prior,
            "prior_estimated": self.estimated,
            "spoil_cost": self.spoil_cost,
            "spoiled": json_or_none(self.spoiled),
            "righted": json_or_none(self.righted),
            "wrong_before": self.wrong_before.as_json(),
            "wrong_after": self.wrong_after.as_json(),
        }

    def rows(self) -> list[list[str]]:
        """The rows of the album's table: name, images, percentage and 95 % interval."""
        shares = {
            "not upright as they are": self.wrong_before,
            "not upright after the corrections": self.wrong_after,
            "spoiled, of the upright images": self.spoiled,
            "set upright, of the rotated images": self.righted,
        }
        return [
            [name, f"{share.count:,}" if share else "0", *percent_and_interval(share)] for name, share in shares.items()
        ]


def draw_quarters(count: int, seed: int, rotated: float | None = None) -> list[int]:
    """How many times each of some images is rotated by 90 degrees, counter-clockwise.

    Args:
        count: of the images.
        seed: of the random numbers.
        rotated: the share of images that are rotated at all, 0 to 1, rounded to whole images; None rotates each by a
            random right angle, also 0.
    """
    rng = np.random.default_rng(seed)
    if rotated is None:
        return [int(quarter) for quarter in rng.integers(0, 4, count)]
    quarters = np.zeros(count, int)
    chosen = rng.permutation(count)[: round(rotated * count)]
    quarters[chosen] = rng.integers(1, 4, len(chosen))
    return [int(quarter) for quarter in quarters]


def album_metrics(corrections: Corrections, truth: np.ndarray, spoil_cost: float) -> AlbumMetrics:
    """What corrections do to an album.

    Args:
        corrections: of its N images.
        truth: (N,) by how many times 90 degrees each image is rotated, counter-clockwise.
        spoil_cost: that the corrections were made with.
    """
    applied = np.array([each.clockwise // 90 if each.needed else 0 for each in corrections.images])
    upright, wrong = truth == 0, applied != truth
    return AlbumMetrics(
        prior=corrections.prior,
        estimated=corrections.estimated,
        spoil_cost=spoil_cost,
        spoiled=proportion(wrong[upright]) if upright.any() else None,
        righted=None if upright.all() else proportion(~wrong[~upright]),
        wrong_before=proportion(~upright),
        wrong_after=proportion(wrong),
    )


def percent_and_interval(share: Proportion | None) -> list[str]:
    """A share and its interval as cells of a table, in percent; empty where there is none."""
    if share is None:
        return ["", ""]
    return [percent(share.value, sign=""), f"{percent(share.low, sign='')} to {percent(share.high, sign='')}"]


def json_or_none(share: Proportion | None) -> dict[str, float] | None:
    """A share under its keys of JSON."""
    return share.as_json() if share else None


def proportion(hits: np.ndarray) -> Proportion:
    """The share of True in (N,) bool, with Wilson's interval."""
    count, share = len(hits), float(hits.mean())
    middle, scale = share + Z**2 / (2 * count), 1 + Z**2 / count
    half = Z * float(np.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2)))
    return Proportion(count, share, max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale))
