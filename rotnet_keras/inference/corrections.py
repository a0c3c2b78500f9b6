"""Which images of an album are to be rotated: by posterior odds, with a prior that the album itself gives."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rotnet_keras.inference.orientation import Predictions, orientation_probabilities
from rotnet_keras.text import percent

# Share of upright images that the estimate of an album's share starts from.
USUAL_UPRIGHT = 0.9
# How many images that start counts for: a single image must not decide what is usual in its album.
USUAL_WEIGHT = 10
# Steps of expectation-maximisation, at most, and the change of the share at which it ends.
MAX_STEPS, TOLERANCE = 500, 1e-6
# Defaults of the decision.
MIN_CONFIDENCE = 0.95
SPOIL_COST = 10.0


@dataclass(frozen=True)
class Correction:
    """The rotation that makes an image upright.

    Attributes:
        file: the image.
        clockwise: the most probable of 0, 90, 180 and 270 degrees; 0 for an image that is upright.
        confidence: the posterior probability that this is correct, 0 to 1, rounded to four digits.
        confident: whether the confidence suffices, and for a rotation also the odds against spoiling the image.
    """

    file: Path
    clockwise: int
    confidence: float
    confident: bool

    @property
    def needed(self) -> bool:
        """Whether the image is not upright, with enough confidence to rotate it."""
        return self.confident and self.clockwise > 0

    def as_json(self) -> dict[str, object]:
        """The correction under the keys of `upright --json`, which are also the columns of its CSV file."""
        return {
            "file": str(self.file),
            "clockwise": self.clockwise,
            "confidence": self.confidence,
            "sure": self.confident,
        }


@dataclass(frozen=True)
class Corrections:
    """What is to be done with the images of an album.

    Attributes:
        images: a correction for each image, in the order of the predictions.
        prior: the share of upright images that the decisions assume, 0 to 1.
        estimated: whether the prior was estimated from the album.
        wrong_before: expected share of the images that are not upright as they are, 0 to 1.
        wrong_after: expected share that is not upright once the confident corrections are made, 0 to 1.
        spoiled: expected share that is upright and would be rotated, 0 to 1.
    """

    images: list[Correction]
    prior: float
    estimated: bool
    wrong_before: float
    wrong_after: float
    spoiled: float

    def as_json(self) -> dict[str, object]:
        """The figures of the album under the keys of `upright --json`."""
        return {
            "prior": self.prior,
            "prior_estimated": self.estimated,
            "wrong_before": self.wrong_before,
            "wrong_after": self.wrong_after,
            "spoiled": self.spoiled,
        }


def estimate_prior(likelihoods: np.ndarray) -> float:
    """The share of upright images in an album, by expectation-maximisation.

    The three other rotations share the rest equally. The estimate starts at 0.9, which counts for ten images.

    Args:
        likelihoods: (N, 4), from `orientation_probabilities`: the probabilities if all rotations were as frequent.

    Returns:
        The share, 0 to 1; 0.9 for an empty album.
    """
    share = USUAL_UPRIGHT
    for _ in range(MAX_STEPS):
        expected = float(posteriors(likelihoods, share)[:, 0].sum())
        before, share = share, (expected + USUAL_UPRIGHT * USUAL_WEIGHT) / (len(likelihoods) + USUAL_WEIGHT)
        if abs(share - before) < TOLERANCE:
            break
    return share


def posteriors(likelihoods: np.ndarray, prior: float) -> np.ndarray:
    """The probabilities of the rotations where a share `prior` of the images is upright.

    Args:
        likelihoods: (N, 4), see `estimate_prior`.
        prior: 0 to 1, the ends excluded; the other rotations that the model knows share the rest equally.

    Returns:
        (N, 4), rows that sum to 1.
    """
    # A model that knows 0 and 180 degrees alone leaves the other two without a likelihood.
    others = max(1, int(likelihoods[:, 1:].any(axis=0).sum()))
    weighted = likelihoods * np.array([prior, *[(1 - prior) / others] * 3])
    return np.asarray(weighted / weighted.sum(axis=1, keepdims=True))


def find_corrections(
    predictions: Predictions,
    temperature: float,
    min_confidence: float = MIN_CONFIDENCE,
    prior: float | None = None,
    spoil_cost: float = SPOIL_COST,
) -> Corrections:
    """Decide which images of an album are to be rotated.

    An image is rotated where two conditions hold. The rotation is more than `spoil_cost` times as probable as that the
    image is upright already, so that the expected gain outweighs the expected harm. Its probability reaches
    `min_confidence`, so that it is not one of several likely rotations.

    Args:
        predictions: from `predict`, by a model that knows 0, 90, 180 and 270 degrees, or 0 and 180.
        temperature: from `fit_temperature` or `calibrate_temperature`; 1 leaves the confidences uncalibrated.
        min_confidence: from which posterior probability on a correction counts as confident, 0 to 1.
        prior: the share of upright images in the album, 0 to 1, the ends excluded; None estimates it from the album.
        spoil_cost: how many images left not upright one spoiled upright image outweighs.

    Returns:
        One correction for each of `predictions.files`, in their order, and what they mean for the album.
    """
    likelihoods = orientation_probabilities(predictions.log_probabilities, temperature)
    assumed = estimate_prior(likelihoods) if prior is None else prior
    probabilities = posteriors(likelihoods, assumed)
    rotations, confidences = probabilities.argmax(axis=1), probabilities.max(axis=1, initial=0)
    worthwhile = (rotations == 0) | (confidences > spoil_cost * probabilities[:, 0])
    confident = worthwhile & (confidences >= min_confidence)
    rotated = confident & (rotations > 0)
    images = [
        Correction(file, 90 * int(rotation), round(float(confidence), 4), bool(sure))
        for file, rotation, confidence, sure in zip(predictions.files, rotations, confidences, confident, strict=True)
    ]
    return Corrections(
        images=images,
        prior=assumed,
        estimated=prior is None,
        wrong_before=_mean(1 - probabilities[:, 0]),
        wrong_after=_mean(1 - np.where(rotated, confidences, probabilities[:, 0])),
        spoiled=_mean(np.where(rotated, probabilities[:, 0], 0)),
    )


def summarize(corrections: Corrections) -> str:
    """How many images need rotation, are doubtful and are upright, and what to expect of the album, in sentences."""
    images = corrections.images
    needed = sum(each.needed for each in images)
    doubtful = sum(not each.confident for each in images)
    assumed = "estimated from these images" if corrections.estimated else "as given by --prior"
    before, after, spoiled = (
        percent(share, significant=2)
        for share in (corrections.wrong_before, corrections.wrong_after, corrections.spoiled)
    )
    return (
        f"{needed:,} of {len(images):,} images need rotation; {doubtful:,} are doubtful and left alone; "
        f"{len(images) - needed - doubtful:,} are upright. "
        f"Share of upright images: {percent(corrections.prior)}, {assumed}. "
        f"Of an album like this {before} are expected to be wrong now and "
        f"{after} after the rotation, {spoiled} because an upright image was "
        "rotated."
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0
