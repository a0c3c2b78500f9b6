"""How well a model sets images upright: upright images are rotated at random and predicted, with known answers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from rotnet_keras.files import write_atomically
from rotnet_keras.inference.album_metrics import (
    AlbumMetrics,
    Proportion,
    album_metrics,
    draw_quarters,
    json_or_none,
    percent_and_interval,
    proportion,
)
from rotnet_keras.inference.corrections import SPOIL_COST, find_corrections
from rotnet_keras.inference.loading import Progress, check_any_readable
from rotnet_keras.inference.orientation import HALF_TURN, OrientationModel, orientation_probabilities, predict
from rotnet_keras.reports.figures import BLUE, GREY, STYLE, save_png_and_svg
from rotnet_keras.reports.report import render
from rotnet_keras.text import percent

# Bins of confidence, of equal width from 0 to 1 (Guo et al., 2017, section 2).
BINS = 15
# The coverage that the accuracy of the most confident images is measured at.
COVERAGE = 0.9


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
        rotated: the share of images that were rotated; None where each was rotated by a random right angle, also 0.
        temperature: that the confidences are calibrated with.
        min_confidence: from which confidence on an image counts as covered.
        accuracy: from the predictions for all four copies, as all that follow without a prior.
        single: accuracy from the prediction for the image as it lies.
        most_confident: accuracy on the most confident 90 % of the images.
        coverage: the share of images that reach `min_confidence`.
        selective_accuracy: accuracy on those; None where there are none.
        calibration_error: expected calibration error, 0 to 1: the mean distance of confidence and accuracy over bins.
        uncalibrated_error: the same at temperature 1.
        angles: the accuracies by angle.
        bins: those that hold images.
        album: what the decisions of `upright` do to these images, with its prior and its cost of spoiling.
        unreadable: names of files that could not be read, each with the reason.
    """

    seed: int
    rotated: float | None
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
    album: AlbumMetrics
    unreadable: list[tuple[str, str]]

    def as_json(self) -> dict[str, Any]:
        """The metrics under the keys of `upright.json` and of `measure-upright --json`."""
        return {
            "seed": self.seed,
            "rotated": self.rotated,
            "temperature": self.temperature,
            "min_confidence": self.min_confidence,
            "accuracy": self.accuracy.as_json(),
            "single": self.single.as_json(),
            "covered": self.most_confident.as_json(),
            "decided": self.coverage.as_json(),
            "accuracy_of_decided": json_or_none(self.selective_accuracy),
            "calibration_error": self.calibration_error,
            "uncalibrated_error": self.uncalibrated_error,
            "angles": [
                {
                    "counter_clockwise": each.counter_clockwise,
                    "accuracy": json_or_none(each.accuracy),
                    "single": json_or_none(each.single),
                }
                for each in self.angles
            ],
            "bins": [{"confidence": each.confidence, "accuracy": each.accuracy.as_json()} for each in self.bins],
            "album": self.album.as_json(),
            "unreadable": [list(each) for each in self.unreadable],
        }

    def write(self, folder: Path, command: str, uncalibrated: str, calibration: str) -> None:
        """Write `upright.md`, `upright.json` and the plot of the bins, `reliability.png` and `.svg`.

        Args:
            folder: made if it does not exist.
            command: the command that measured this.
            uncalibrated: why the confidences are not calibrated; empty where they are.
            calibration: which images they are calibrated on otherwise.
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
            "calibration": calibration,
            "album": self.album.rows(),
        }
        write_atomically(folder / "upright.md", render("upright.md", values).encode())

    def rows(self) -> list[list[str]]:
        """The rows of the main table: name, percentage and 95 % interval."""
        shares = {
            "accuracy": self.accuracy,
            f"accuracy on the most confident {percent(COVERAGE, 0)}": self.most_confident,
            f"coverage: images with a confidence of {percent(self.min_confidence, None)} or more": self.coverage,
            "accuracy on those images": self.selective_accuracy,
            "accuracy from a single prediction, without the rotated copies": self.single,
        }
        errors = {
            "expected calibration error": self.calibration_error,
            "expected calibration error without temperature": self.uncalibrated_error,
        }
        return [
            *([name, *percent_and_interval(share)] for name, share in shares.items()),
            *([name, percent(error, sign=""), ""] for name, error in errors.items()),
        ]

    def rows_by_angle(self) -> list[list[str]]:
        """The rows of the second table: angle, images, then both accuracies in % with their 95 % intervals."""
        return [
            [
                f"{each.counter_clockwise}°",
                f"{each.accuracy.count:,}" if each.accuracy else "0",
                *percent_and_interval(each.accuracy),
                *percent_and_interval(each.single),
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
    *,
    rotated: float | None = None,
    prior: float | None = None,
    spoil_cost: float = SPOIL_COST,
) -> OrientationMetrics:
    """Rotate upright images at random by right angles and measure how well a model finds the rotations.

    The rotation of the pixels is exact. From all copies together an image gets the same confidence however it was
    rotated (`orientation_probabilities`), so accuracies by angle differ only by which images got which angle. A single
    prediction shows what the model knows about each angle.

    Args:
        model: knows 0, 90, 180 and 270 degrees, or 0 and 180; images are rotated by what it knows.
        files: upright images that the model was not trained on.
        temperature: that calibrates the confidences; 1 leaves them as they are.
        min_confidence: from which confidence on an image counts as covered, or is rotated in the album, 0 to 1.
        seed: of the rotations.
        progress: called after each batch.
        rotated: the share of images that are rotated by 90, 180 or 270 degrees, 0 to 1; None rotates each image by a
            random right angle, also 0.
        prior: the share of upright images that the album's decisions assume; None estimates it from the album.
        spoil_cost: see `find_corrections`.

    Raises:
        DataError: none of the files can be read.
    """
    half_turn = model.angles == HALF_TURN
    drawn = draw_quarters(len(files), seed, rotated)
    if half_turn:
        drawn = [2 * (number % 2 if rotated is None else min(number, 1)) for number in drawn]
    quarters = dict(zip(files, drawn, strict=True))
    predictions = predict(model, files, progress, quarters)
    check_any_readable(predictions.files, predictions.unreadable)
    truth = np.array([quarters[file] for file in predictions.files])
    # All rotations are taken as equally frequent, so that the figures of the model do not depend on the album.
    probabilities = orientation_probabilities(predictions.log_probabilities, temperature)
    correct = probabilities.argmax(axis=1) == truth
    confidence = probabilities.max(axis=1)
    confident = confidence >= min_confidence
    single = predictions.log_probabilities[:, 0].argmax(axis=1) * (2 if half_turn else 1) == truth
    most = np.argsort(-confidence, kind="stable")[: int(np.ceil(COVERAGE * len(correct)))]
    bins = calibration_bins(confidence, correct)
    raw = orientation_probabilities(predictions.log_probabilities)
    return OrientationMetrics(
        seed=seed,
        rotated=rotated,
        temperature=temperature,
        min_confidence=min_confidence,
        accuracy=proportion(correct),
        single=proportion(single),
        most_confident=proportion(correct[most]),
        coverage=proportion(confident),
        selective_accuracy=proportion(correct[confident]) if confident.any() else None,
        calibration_error=calibration_error(bins),
        uncalibrated_error=calibration_error(calibration_bins(raw.max(axis=1), raw.argmax(axis=1) == truth)),
        angles=[
            AngleAccuracy(
                90 * k,
                *(proportion(hits[truth == k]) if (truth == k).any() else None for hits in (correct, single)),
            )
            for k in range(0, 4, 2 if half_turn else 1)
        ],
        bins=bins,
        album=album_metrics(
            find_corrections(predictions, temperature, min_confidence, prior, spoil_cost), truth, spoil_cost
        ),
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
        CalibrationBin(float(confidence[numbers == number].mean()), proportion(correct[numbers == number]))
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
        save_png_and_svg(figure, path, None)
