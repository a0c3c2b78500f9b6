"""What a network that tells turns goes by: the rim of an image or what it is the rim of, finest traces or content."""

from collections.abc import Callable, Sequence

import numpy as np

from rotnet_keras.evaluation.suitability.image_shortcuts import Told, where_marks_are

# How wide a rim is, of the side of an image.
RIM = 1 / 8

# From (M, T, T, C) uint8 to (M, K) probabilities.
Predict = Callable[[np.ndarray], np.ndarray]


def reliance(predict: Predict, copies: np.ndarray, angles: Sequence[int]) -> dict[str, Told]:
    """What a network says where a part of each copy disagrees with the rest, and where the finest traces are gone.

    The rim, 44 % of an image, is replaced by that of the next image, turned otherwise, by a right angle if there is
    such a copy; likewise the quarter of the pixels that is most alike in all images. What is on the images is mostly in
    the larger rest, and so is what a network goes by that looks at it.

    Args:
        copies: (K*N, T, T, C) uint8, N > 1, see `rotate_batch`.
        angles: K degrees.

    Returns:
        For "rim" and "alike": how often the "part" was followed, and how often the "rest". For "finest": the
        "accuracy" on copies smoothed over 3 x 3 pixels.
    """
    count, side = len(copies) // len(angles), copies.shape[1]
    labels = np.repeat(np.arange(len(angles)), count)
    other = np.array([_disagreeing(angles, number) for number in range(len(angles))])
    by_angle = copies.reshape(len(angles), count, *copies.shape[1:])
    others = np.roll(by_angle[other], 1, axis=1).reshape(copies.shape)
    told = {}
    for name, part in {"rim": _rim(side), "alike": where_marks_are(copies, angles)}.items():
        said = predict(np.where(part[:, :, None], others, copies)).argmax(axis=1)
        told[name] = {
            "part": round(float((said == other[labels]).mean()), 4),
            "rest": round(float((said == labels).mean()), 4),
        }
    said = predict(_smoothed(copies)).argmax(axis=1)
    told["finest"] = {"accuracy": round(float((said == labels).mean()), 4)}
    return told


def _disagreeing(angles: Sequence[int], number: int) -> int:
    """Which angle is set against that of this number: one at right angles, else the next."""
    for turn in (90, 270):
        if (angles[number] + turn) % 360 in angles:
            return list(angles).index((angles[number] + turn) % 360)
    return (number + 1) % len(angles)


def _rim(side: int) -> np.ndarray:
    width = max(1, round(RIM * side))
    part = np.ones((side, side), bool)
    part[width : side - width, width : side - width] = False
    return part


def _smoothed(copies: np.ndarray) -> np.ndarray:
    """Weighted means, 1-2-1 along both axes."""
    pixels = np.pad(copies.astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    pixels = pixels[:, :-2] + 2 * pixels[:, 1:-1] + pixels[:, 2:]
    pixels = pixels[:, :, :-2] + 2 * pixels[:, :, 1:-1] + pixels[:, :, 2:]
    return np.round(pixels / 16).astype(np.uint8)
