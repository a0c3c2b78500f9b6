"""How well pictures are set upright: upright ones, turned at random, are to be recognised and to be known for it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from rotnet_keras.errors import DataError
from rotnet_keras.files import write_atomically
from rotnet_keras.inference.loading import Progress
from rotnet_keras.inference.orientation import Judge, needed_turns, see, turns_of
from rotnet_keras.reports.figures import BLUE, GREY, STYLE, save
from rotnet_keras.reports.report import render

# Of equal width, from 0 to 1 (Guo et al., 2017, section 2).
BINS = 15
# What is left when the least confident tenth is left out.
COVERED = 0.9
# Standard deviations that hold 95 % of a normal distribution.
Z = 1.96


@dataclass(frozen=True)
class Share:
    """A part of some pictures.

    Attributes:
        of: how many these are.
        value: 0 to 1.
        low: of its 95 % confidence interval (Wilson's).
        high: likewise.
    """

    of: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Angle:
    """The pictures that were turned by one angle.

    Attributes:
        counter_clockwise: in degrees.
        accuracy: by all four copies; None without pictures.
        single: by the picture as it lies alone.
    """

    counter_clockwise: int
    accuracy: Share | None
    single: Share | None


@dataclass(frozen=True)
class Bin:
    """The pictures of which the network is about equally sure.

    Attributes:
        confidence: their mean, 0 to 1.
        accuracy: of them.
    """

    confidence: float
    accuracy: Share


@dataclass(frozen=True)
class Uprightness:
    """How well a network sets pictures upright.

    Attributes:
        temperature: by which its confidences are calibrated.
        min_confidence: from which on it decides.
        accuracy: of the turn, by all four copies.
        single: by the picture as it lies alone.
        covered: of the most confident 90 %.
        decided: how many it decides.
        accuracy_of_decided: of those; None where there are none.
        calibration_error: expected, over 15 bins: how far confidence and accuracy lie apart on average, 0 to 1.
        uncalibrated_error: the same at temperature 1.
        bins: those that hold pictures.
        unreadable: files, and why.
    """

    seed: int
    temperature: float
    min_confidence: float
    accuracy: Share
    single: Share
    covered: Share
    decided: Share
    accuracy_of_decided: Share | None
    calibration_error: float
    uncalibrated_error: float
    angles: list[Angle]
    bins: list[Bin]
    unreadable: list[tuple[str, str]]

    def write(self, folder: Path, command: str, doubt: str) -> None:
        """Write `upright.md`, `upright.json` and the plot of its bins, `reliability.png` and `.svg`.

        Args:
            command: that measured it.
            doubt: why confidences are not calibrated, or nothing.
        """
        folder.mkdir(parents=True, exist_ok=True)
        draw_reliability(self, folder / "reliability.png")
        write_atomically(folder / "upright.json", json.dumps({"command": command, **asdict(self)}, indent=2).encode())
        values = {"found": self, "rows": self.rows(), "angles": self.by_angle(), "command": command, "doubt": doubt}
        text = render("upright.md", values)
        write_atomically(folder / "upright.md", text.encode())

    def rows(self) -> list[list[str]]:
        """What came out, each in %, and its 95 % interval."""
        percent = f"{100 * self.min_confidence:.4g} %"
        shares = {
            "accuracy": self.accuracy,
            f"accuracy of the most confident {COVERED:.0%}".replace("%", " %"): self.covered,
            f"decided, with a confidence of {percent} or more": self.decided,
            "accuracy of those": self.accuracy_of_decided,
            "accuracy by one look, without the turned copies": self.single,
        }
        errors = {
            "expected calibration error": self.calibration_error,
            "the same without a temperature": self.uncalibrated_error,
        }
        return [
            *([name, *in_percent(share)] for name, share in shares.items()),
            *([name, f"{100 * error:.1f}", ""] for name, error in errors.items()),
        ]

    def by_angle(self) -> list[list[str]]:
        """Angle, pictures, accuracy and that of one look, each in % with its 95 % interval."""
        return [
            [f"{each.counter_clockwise}°", _count(each.accuracy), *in_percent(each.accuracy), *in_percent(each.single)]
            for each in self.angles
        ]


def measure(
    judge: Judge,
    files: Sequence[Path],
    temperature: float,
    min_confidence: float,
    seed: int,
    progress: Progress = lambda what, done, total: None,
) -> Uprightness:
    """Turn upright pictures at random, their pixels to the bit, and see what a network makes of them.

    By all copies together a picture gets the same confidence however it lies (`turns_of`), so that angles differ by
    which pictures they got; by one look alone they differ by what the network knows.

    Args:
        files: upright pictures that it was not trained on.
        seed: of the turns.

    Raises:
        DataError: none can be read.
    """
    quarters = dict(zip(files, np.random.default_rng(seed).integers(0, 4, len(files)).tolist(), strict=True))
    seen = see(judge, files, progress, quarters)
    if not seen.files:
        raise DataError(f"no picture can be read, for example {seen.unreadable[0][0]}: {seen.unreadable[0][1]}")
    truth = np.array([quarters[file] for file in seen.files])
    turns = needed_turns(seen, temperature, min_confidence)
    right = np.array([turn.clockwise for turn in turns]) == 90 * truth
    confidence, sure = np.array([turn.confidence for turn in turns]), np.array([turn.sure for turn in turns])
    single = seen.log_probabilities[:, 0].argmax(axis=1) == truth
    most = np.argsort(-confidence, kind="stable")[: int(np.ceil(COVERED * len(right)))]
    bins = bins_of(confidence, right)
    raw = turns_of(seen.log_probabilities)
    return Uprightness(
        seed=seed,
        temperature=temperature,
        min_confidence=min_confidence,
        accuracy=_share(right),
        single=_share(single),
        covered=_share(right[most]),
        decided=_share(sure),
        accuracy_of_decided=_share(right[sure]) if sure.any() else None,
        calibration_error=calibration_error(bins),
        uncalibrated_error=calibration_error(bins_of(raw.max(axis=1), raw.argmax(axis=1) == truth)),
        angles=[
            Angle(
                90 * turn,
                *(_share(found[truth == turn]) if (truth == turn).any() else None for found in (right, single)),
            )
            for turn in range(4)
        ],
        bins=bins,
        unreadable=[(file.name, why) for file, why in seen.unreadable],
    )


def bins_of(confidence: np.ndarray, right: np.ndarray) -> list[Bin]:
    """Pictures by confidence, (N,) from 0 to 1, in bins of equal width; empty ones are left out."""
    numbers = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        Bin(float(confidence[numbers == number].mean()), _share(right[numbers == number]))
        for number in np.unique(numbers)
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error (Guo et al., 2017, equation 3)."""
    apart = sum(each.accuracy.of * abs(each.accuracy.value - each.confidence) for each in bins)
    return apart / sum(each.accuracy.of for each in bins)


def draw_reliability(found: Uprightness, path: Path) -> None:
    """Accuracy over confidence, with 95 % intervals, and below how many pictures are how sure; PNG and SVG."""
    confidence = [each.confidence for each in found.bins]
    shares = [each.accuracy for each in found.bins]
    errors = [[share.value - share.low for share in shares], [share.high - share.value for share in shares]]
    with plt.rc_context(STYLE):
        figure, (above, below) = plt.subplots(
            2, 1, figsize=(5.2, 6.2), height_ratios=(3, 1), sharex=True, layout="constrained"
        )
        above.plot([0, 1], [0, 1], ":", color=GREY, label="as right as sure")
        above.errorbar(confidence, [share.value for share in shares], np.maximum(errors, 0), fmt="o-", ms=4, capsize=3,
                       color=BLUE, label="pictures, 95 % intervals")  # fmt: skip
        above.set(ylabel="share that is right", ylim=(0, 1.02), xlim=(0.2, 1.02))
        above.set_title(f"{found.accuracy.of:,} pictures, calibration error {100 * found.calibration_error:.1f} %")
        above.legend(loc="lower right")
        below.set_axisbelow(True)
        below.bar(confidence, [share.of for share in shares], width=0.8 / BINS, color=BLUE)
        below.set(xlabel="confidence", ylabel="pictures")
        save(figure, path)


def in_percent(share: Share | None) -> list[str]:
    """A share and its interval."""
    if share is None:
        return ["", ""]
    return [f"{100 * share.value:.1f}", f"{100 * share.low:.1f} to {100 * share.high:.1f}"]


def _count(share: Share | None) -> str:
    return f"{share.of:,}" if share else "0"


def _share(hits: np.ndarray) -> Share:
    """Of N pictures, (N,) of True and False."""
    count, share = len(hits), float(hits.mean())
    middle, scale = share + Z**2 / (2 * count), 1 + Z**2 / count
    half = Z * float(np.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2)))
    return Share(count, share, max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale))
