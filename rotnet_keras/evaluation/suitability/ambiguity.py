"""Predicted rotations image by image: how many copies are correct, how images lie, and which are ambiguous."""

from collections.abc import Sequence
from typing import Any

import numpy as np

# Lower bound of probabilities before their logarithm is taken.
SMALLEST_PROBABILITY = 1e-7
# How many of the most ambiguous images are shown.
MAX_SHOWN = 16


def per_image_statistics(probabilities: np.ndarray, angles: Sequence[int]) -> dict[str, Any]:
    """Statistics of the predictions for single images, under the keys of a `suitability` event.

    Args:
        probabilities: (K*N, K), for all N images at the first angle, then for all at the second, ...
        angles: K degrees, counter-clockwise.

    Returns:
        `right`: K + 1 counts of images, with 0, 1, ... K copies predicted correctly.
        `half_turns`: the share of wrong predictions that are off by 180 degrees; None where none is wrong.
        `undecided`: the share of images for which no rotation has a probability of one half or more, all copies
        combined.
    """
    count = len(probabilities) // len(angles)
    labels, predicted = np.repeat(np.arange(len(angles)), count), probabilities.argmax(axis=1)
    correct = labels == predicted
    degrees = np.array(angles)
    opposite = (degrees[predicted] - degrees[labels])[~correct] % 360 == 180
    combined = rotation_probabilities(log_probabilities_by_image(probabilities), angles)[1]
    return {
        "right": np.bincount(correct.reshape(len(angles), count).sum(axis=0), minlength=len(angles) + 1).tolist(),
        "half_turns": round(float(opposite.mean()), 4) if len(opposite) else None,
        "undecided": round(float((combined.max(axis=1) < 0.5).mean()), 4),
    }


def log_probabilities_by_image(probabilities: np.ndarray) -> np.ndarray:
    """The log-probabilities predicted for the copies of each image.

    Args:
        probabilities: (K*N, K), see `per_image_statistics`.

    Returns:
        (N, K, K) float64. Entry [n, i, j] belongs to the probability that image n, rotated by angle i, was rotated by
        angle j.
    """
    count = probabilities.shape[1]
    logs = np.log(np.clip(probabilities.astype(np.float64), SMALLEST_PROBABILITY, None))
    return logs.reshape(count, -1, count).transpose(1, 0, 2)


def rotation_probabilities(
    log_probabilities: np.ndarray, angles: Sequence[int], temperature: float = 1.0
) -> tuple[list[int], np.ndarray]:
    """By which rotation each image deviates from upright as it is, from the predictions for all its copies.

    A copy at angle i that is predicted as angle j is evidence that the image itself is rotated by j - i. The evidence
    for each rotation is the mean log-probability over the copies.

    Args:
        log_probabilities: (N, K, K), see `log_probabilities_by_image`.
        angles: K degrees, counter-clockwise.
        temperature: divides the mean log-probabilities; above 1 it lowers the confidence.

    Returns:
        The R possible rotations, in degrees in [0, 360), and their probabilities (N, R), rows that sum to 1.
    """
    differences = (np.array(angles) - np.array(angles)[:, None]) % 360
    rotations = sorted(set(differences.ravel().tolist()))
    evidence = np.stack([log_probabilities[:, differences == each].mean(axis=1) for each in rotations], axis=1)
    evidence = evidence / temperature
    likelihood = np.exp(evidence - evidence.max(axis=1, keepdims=True))
    return rotations, likelihood / likelihood.sum(axis=1, keepdims=True)


def most_ambiguous(probabilities: np.ndarray, angles: Sequence[int]) -> list[dict[str, Any]]:
    """The images whose rotation is most uncertain by entropy, under the keys of a `suitability` event.

    Args:
        probabilities: (K*N, K), see `per_image_statistics`.
        angles: K degrees, counter-clockwise.

    Returns:
        For each image, the most ambiguous first: `image`, its index, and `turns`, the two most probable rotations as
        [degrees, probability].
    """
    rotations, combined = rotation_probabilities(log_probabilities_by_image(probabilities), angles)
    entropy = -(combined * np.log(combined + SMALLEST_PROBABILITY)).sum(axis=1)
    found = []
    for image in np.argsort(-entropy, kind="stable")[:MAX_SHOWN].tolist():
        best = np.argsort(-combined[image], kind="stable")[:2].tolist()
        found.append({"image": image, "turns": [[rotations[i], round(float(combined[image, i]), 4)] for i in best]})
    return found
