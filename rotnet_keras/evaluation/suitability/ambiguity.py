"""What a network that tells turns makes of single images: how many copies are right, which turns are likely."""

from collections.abc import Sequence
from typing import Any

import numpy as np

# Probabilities below it are taken for it.
LEAST = 1e-7
# The most ambiguous images that are shown.
SHOWN = 16


def by_image(probabilities: np.ndarray, angles: Sequence[int]) -> dict[str, Any]:
    """How images fared.

    Args:
        probabilities: (K*N, K), of all images at the first angle, then of all at the second, ...
        angles: K degrees.

    Returns:
        `right`: K + 1 numbers of images, those with no copy right, with one, ... up to all.
        `half_turns`: of the wrong copies, the share taken for the opposite angle; None where none is wrong.
        `undecided`: the share of images of which no turn is as probable as one half.
    """
    count = len(probabilities) // len(angles)
    labels, predicted = np.repeat(np.arange(len(angles)), count), probabilities.argmax(axis=1)
    right = labels == predicted
    degrees = np.array(angles)
    opposite = (degrees[predicted] - degrees[labels])[~right] % 360 == 180
    likely = turn_probabilities(logarithms(probabilities), angles)[1]
    return {
        "right": np.bincount(right.reshape(len(angles), count).sum(axis=0), minlength=len(angles) + 1).tolist(),
        "half_turns": round(float(opposite.mean()), 4) if len(opposite) else None,
        "undecided": round(float((likely.max(axis=1) < 0.5).mean()), 4),
    }


def logarithms(probabilities: np.ndarray) -> np.ndarray:
    """What is said of each image's copies: [n, i, j] of image n, turned by angle i, that it was turned by angle j.

    Args:
        probabilities: see `by_image`.

    Returns:
        (N, K, K) float64.
    """
    number = probabilities.shape[1]
    said = np.log(np.clip(probabilities.astype(np.float64), LEAST, None))
    return said.reshape(number, -1, number).transpose(1, 0, 2)


def turn_probabilities(
    said: np.ndarray, angles: Sequence[int], temperature: float = 1.0
) -> tuple[list[int], np.ndarray]:
    """By how much each image may be turned as it is, by what is said of all its copies.

    A copy at angle i that is taken for angle j tells of an image that is turned by j - i. The logarithms of what all
    copies say of a turn are averaged.

    Args:
        said: (N, K, K), see `logarithms`.
        temperature: the larger, the less sure.

    Returns:
        The turns, degrees in [0, 360), and (N, turns), their sum 1.
    """
    turned = (np.array(angles) - np.array(angles)[:, None]) % 360
    turns = sorted(set(turned.ravel().tolist()))
    mean = np.stack([said[:, turned == turn].mean(axis=1) for turn in turns], axis=1) / temperature
    likely = np.exp(mean - mean.max(axis=1, keepdims=True))
    return turns, likely / likely.sum(axis=1, keepdims=True)


def most_ambiguous(probabilities: np.ndarray, angles: Sequence[int]) -> list[dict[str, Any]]:
    """The images whose turn is most uncertain, by entropy: `image`, its position, and the two likeliest `turns`.

    Args:
        probabilities: see `by_image`.
    """
    turns, likely = turn_probabilities(logarithms(probabilities), angles)
    entropy = -(likely * np.log(likely + LEAST)).sum(axis=1)
    found = []
    for image in np.argsort(-entropy, kind="stable")[:SHOWN].tolist():
        best = np.argsort(-likely[image], kind="stable")[:2].tolist()
        found.append({"image": image, "turns": [[turns[i], round(float(likely[image, i]), 4)] for i in best]})
    return found
