"""How well a model sets images upright: upright images are rotated at random and predicted, with known answers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from rotnet_keras.files import write_atomically
from rotnet_keras.inference.loading import Progress, check_any_readable
from rotnet_keras.inference.orientation import OrientationModel, find_corrections, orientation_probabilities, predict
from rotnet_keras.reports.figures import BLUE, GREY, STYLE, save_png_and_svg
from rotnet_keras.reports.report import render
from rotnet_keras.text import percent

# Bins of confidence, of equal width from 0 to 1 (Guo et al., 2017, section 2).
BINS = 15
# The coverage that the accuracy of the most confident images is measured at.
COVERAGE = 0.9
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
class AngleAccuracy:
    """Accuracy on the images that were rotated by one angle.

    Attributes:
        counter_clockwise: the angle, in degrees.
        accuracy: from the predictions for all four copies; None without images.
        single: from the prediction for the image as it lies; None without images.
    """

    counter_clockwise: int
    accuracy: Proportion | None
    single: Proportion | None


@dataclass(frozen=True)
class CalibrationBin:
    """The images whose confidence falls into one bin.

    Attributes:
        confidence: their mean confidence, 0 to 1.
        accuracy: their accuracy.
    """

    confidence: float
    accuracy: Proportion


@dataclass(frozen=True)
class OrientationMetrics:
    """How well a model sets images upright.

    Attributes:
        seed: of the random rotations.
        temperature: that the confidences are calibrated with.
        min_confidence: from which confidence on an image is rotated.
        accuracy: from the predictions for all four copies.
        single: accuracy from the prediction for the image as it lies.
        most_confident: accuracy on the most confident 90 % of the images.
        coverage: the share of images that reach `min_confidence`.
        selective_accuracy: accuracy on those; None where there are none.
        calibration_error: expected calibration error, 0 to 1: the mean distance of confidence and accuracy over bins.
        uncalibrated_error: the same at temperature 1.
        angles: the accuracies by angle.
        bins: those that hold images.
        unreadable: names of files that could not be read, each with the reason.
    """

    seed: int
    temperature: float
    min_confidence: float
    accuracy: Proportion
    single: Proportion
    most_confident: Proportion
    coverage: Proportion
    selective_accuracy: Proportion | None
    calibration_error: float
    uncalibrated_error: float
    angles: list[AngleAccuracy]
    bins: list[CalibrationBin]
    unreadable: list[tuple[str, str]]

    def as_json(self) -> dict[str, Any]:
        """The metrics under the keys of `upright.json` and of `measure-upright --json`."""
        return {
            "seed": self.seed,
            "temperature": self.temperature,
            "min_confidence": self.min_confidence,
            "accuracy": self.accuracy.as_json(),
            "single": self.single.as_json(),
            "covered": self.most_confident.as_json(),
            "decided": self.coverage.as_json(),
            "accuracy_of_decided": _json_or_none(self.selective_accuracy),
            "calibration_error": self.calibration_error,
            "uncalibrated_error": self.uncalibrated_error,
            "angles": [
                {
                    "counter_clockwise": each.counter_clockwise,
                    "accuracy": _json_or_none(each.accuracy),
                    "single": _json_or_none(each.single),
                }
                for each in self.angles
            ],
            "bins": [{"confidence": each.confidence, "accuracy": each.accuracy.as_json()} for each in self.bins],
            "unreadable": [list(each) for each in self.unreadable],
        }

    def write(self, folder: Path, command: str, uncalibrated: str) -> None:
        """Write `upright.md`, `upright.json` and the plot of the bins, `reliability.png` and `.svg`.

        Args:
            folder: made if it does not exist.
            command: the command that measured this.
            uncalibrated: why the confidences are not calibrated; empty where they are.
        """
        folder.mkdir(parents=True, exist_ok=True)
        draw_reliability(self, folder / "reliability.png")
        content = json.dumps({"command": command, **self.as_json()}, indent=2)
        write_atomically(folder / "upright.json", content.encode())
        values = {
            "metrics": self,
            "rows": self.rows(),
            "angles": self.rows_by_angle(),
            "command": command,
            "uncalibrated": uncalibrated,
        }
        write_atomically(folder / "upright.md", render("upright.md", values).encode())

    def rows(self) -> list[list[str]]:
        """The rows of the main table: name, percentage and 95 % interval."""
        shares = {
            "accuracy": self.accuracy,
            f"accuracy on the most confident {percent(COVERAGE, 0)}": self.most_confident,
            f"coverage: images with a confidence of {100 * self.min_confidence:.4g} % or more": self.coverage,
            "accuracy on those images": self.selective_accuracy,
            "accuracy from a single prediction, without the rotated copies": self.single,
        }
        errors = {
            "expected calibration error": self.calibration_error,
            "expected calibration error without temperature": self.uncalibrated_error,
        }
        return [
            *([name, *_percent_and_interval(share)] for name, share in shares.items()),
            *([name, percent(error, sign=""), ""] for name, error in errors.items()),
        ]

    def rows_by_angle(self) -> list[list[str]]:
        """The rows of the second table: angle, images, then both accuracies in % with their 95 % intervals."""
        return [
            [
                f"{each.counter_clockwise}°",
                f"{each.accuracy.count:,}" if each.accuracy else "0",
                *_percent_and_interval(each.accuracy),
                *_percent_and_interval(each.single),
            ]
            for each in self.angles
        ]


def measure(
    model: OrientationModel,
    files: Sequence[Path],
    temperature: float,
    min_confidence: float,
    seed: int,
    progress: Progress = lambda what, done, total: None,
) -> OrientationMetrics:
    """Rotate upright images at random by right angles and measure how well a model finds the rotations.

    The rotation of the pixels is exact. From all copies together an image gets the same confidence however it was
    rotated (`orientation_probabilities`), so accuracies by angle differ only by which images got which angle. A single
    prediction shows what the model knows about each angle.

    Args:
        model: knows 0, 90, 180 and 270 degrees.
        files: upright images that the model was not trained on.
        temperature: that calibrates the confidences; 1 leaves them as they are.
        min_confidence: from which confidence on an image counts as covered, 0 to 1.
        seed: of the rotations.
        progress: called after each batch.

    Raises:
        DataError: none of the files can be read.
    """
    quarters = dict(zip(files, np.random.default_rng(seed).integers(0, 4, len(files)).tolist(), strict=True))
    predictions = predict(model, files, progress, quarters)
    check_any_readable(predictions.files, predictions.unreadable)
    truth = np.array([quarters[file] for file in predictions.files])
    corrections = find_corrections(predictions, temperature, min_confidence)
    correct = np.array([each.clockwise for each in corrections]) == 90 * truth
    confidence = np.array([each.confidence for each in corrections])
    confident = np.array([each.confident for each in corrections])
    single = predictions.log_probabilities[:, 0].argmax(axis=1) == truth
    most = np.argsort(-confidence, kind="stable")[: int(np.ceil(COVERAGE * len(correct)))]
    bins = calibration_bins(confidence, correct)
    raw = orientation_probabilities(predictions.log_probabilities)
    return OrientationMetrics(
        seed=seed,
        temperature=temperature,
        min_confidence=min_confidence,
        accuracy=_proportion(correct),
        single=_proportion(single),
        most_confident=_proportion(correct[most]),
        coverage=_proportion(confident),
        selective_accuracy=_proportion(correct[confident]) if confident.any() else None,
        calibration_error=calibration_error(bins),
        uncalibrated_error=calibration_error(calibration_bins(raw.max(axis=1), raw.argmax(axis=1) == truth)),
        angles=[
            AngleAccuracy(
                90 * k,
                *(_proportion(hits[truth == k]) if (truth == k).any() else None for hits in (correct, single)),
            )
            for k in range(4)
        ],
        bins=bins,
        unreadable=[(file.name, reason) for file, reason in predictions.unreadable],
    )


def calibration_bins(confidence: np.ndarray, correct: np.ndarray) -> list[CalibrationBin]:
    """Sort predictions by confidence into bins of equal width, leaving out the empty ones.

    Args:
        confidence: (N,), 0 to 1.
        correct: (N,) bool.
    """
    numbers = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        CalibrationBin(float(confidence[numbers == number].mean()), _proportion(correct[numbers == number]))
        for number in np.unique(numbers)
    ]


def calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Expected calibration error (Guo et al., 2017, equation 3), 0 to 1."""
    distance = sum(each.accuracy.count * abs(each.accuracy.value - each.confidence) for each in bins)
    return distance / sum(each.accuracy.count for each in bins)


def draw_reliability(metrics: OrientationMetrics, path: Path) -> None:
    """Draw the reliability diagram: accuracy over confidence, and the number of images below it, as PNG and SVG."""
    confidence = [each.confidence for each in metrics.bins]
    shares = [each.accuracy for each in metrics.bins]
    errors = [[share.value - share.low for share in shares], [share.high - share.value for share in shares]]
    with plt.rc_context(STYLE):
        figure, (above, below) = plt.subplots(
            2, 1, figsize=(5.2, 6.2), height_ratios=(3, 1), sharex=True, layout="constrained"
        )
        above.plot([0, 1], [0, 1], ":", color=GREY, label="perfect calibration")
        above.errorbar(confidence, [share.value for share in shares], np.maximum(errors, 0), fmt="o-", ms=4, capsize=3,
                       color=BLUE, label="images, 95 % intervals")  # fmt: skip
        above.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0.2, 1.02))
        error = percent(metrics.calibration_error)
        above.set_title(f"{metrics.accuracy.count:,} images, calibration error {error}")
        above.legend(loc="lower right")
        below.set_axisbelow(True)
        below.bar(confidence, [share.count for share in shares], width=0.8 / BINS, color=BLUE)
        below.set(xlabel="confidence", ylabel="images")
        save_png_and_svg(figure, path)


def _percent_and_interval(share: Proportion | None) -> list[str]:
    if share is None:
        return ["", ""]
    return [percent(share.value, sign=""), f"{percent(share.low, sign='')} to {percent(share.high, sign='')}"]


def _json_or_none(share: Proportion | None) -> dict[str, float] | None:
    return share.as_json() if share else None


def _proportion(hits: np.ndarray) -> Proportion:
    """The share of True in (N,) bool, with Wilson's interval."""
    count, share = len(hits), float(hits.mean())
    middle, scale = share + Z**2 / (2 * count), 1 + Z**2 / count
    half = Z * float(np.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2)))
    return Proportion(count, share, max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale))
