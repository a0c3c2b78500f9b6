"""Whether a rotation model relies on shortcuts: the rim of images, pixels alike in all of them, or finest traces."""

from collections.abc import Callable, Sequence

import numpy as np

from rotnet_keras.evaluation.suitability.image_shortcuts import Scores, most_similar_pixels

# Width of the rim, as a share of the side of an image.
RIM = 1 / 8

# From (M, H, W, C) to (M, K) probabilities.
Predict = Callable[[np.ndarray], np.ndarray]


def network_shortcuts(
    predict: Predict, copies: np.ndarray, angles: Sequence[int], levels: np.ndarray | None = None
) -> dict[str, Scores]:
    """Measure which part of an image the predictions follow, and whether they need the finest traces.

    A part of each copy is replaced by that of the next image at another angle, at right angles to it where there is
    such a copy. The part is the rim, 44 % of an image, or the quarter of the pixels that is most alike in all images.
    The content is mostly in the larger rest, which a model without shortcuts follows.

    Args:
        predict: the model.
        copies: (K*N, H, W, C), N > 1, see `rotate_batch`.
        angles: K degrees, counter-clockwise.
        levels: the copies as uint8, where they are values of more than 8 bits.

    Returns:
        Under the keys of a `suitability` event: for "rim" and "alike", the shares of predictions that agree with the
        "part" and with the "rest"; for "finest", the "accuracy" on copies smoothed over 3 x 3 pixels.
    """
    count = len(copies) // len(angles)
    labels = np.repeat(np.arange(len(angles)), count)
    other = np.array([_conflicting_angle(angles, number) for number in range(len(angles))])
    by_angle = copies.reshape(len(angles), count, *copies.shape[1:])
    replacements = np.roll(by_angle[other], 1, axis=1).reshape(copies.shape)
    scores = {}
    for name, part in {
        "rim": _rim(copies.shape[1:3]),
        "alike": most_similar_pixels(copies if levels is None else levels, angles),
    }.items():
        predicted = predict(np.where(part[:, :, None], replacements, copies)).argmax(axis=1)
        scores[name] = {
            "part": round(float((predicted == other[labels]).mean()), 4),
            "rest": round(float((predicted == labels).mean()), 4),
        }
    predicted = predict(_smooth(copies)).argmax(axis=1)
    scores["finest"] = {"accuracy": round(float((predicted == labels).mean()), 4)}
    return scores


def _conflicting_angle(angles: Sequence[int], number: int) -> int:
    """The index of the angle that the one of this index is combined with: at right angles to it, else the next."""
    for difference in (90, 270):
        if (angles[number] + difference) % 360 in angles:
            return list(angles).index((angles[number] + difference) % 360)
    return (number + 1) % len(angles)


def _rim(shape: Sequence[int]) -> np.ndarray:
    down, across = (max(1, round(RIM * side)) for side in shape)
    part = np.ones(tuple(shape), bool)
    part[down : shape[0] - down, across : shape[1] - across] = False
    return part


def _smooth(copies: np.ndarray) -> np.ndarray:
    """Weighted means of neighbouring pixels, 1-2-1 along both axes."""
    pixels = np.pad(copies.astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    pixels = pixels[:, :-2] + 2 * pixels[:, 1:-1] + pixels[:, 2:]
    pixels = pixels[:, :, :-2] + 2 * pixels[:, :, 1:-1] + pixels[:, :, 2:]
    return np.round(pixels / 16).astype(np.uint8) if copies.dtype == np.uint8 else pixels / 16
