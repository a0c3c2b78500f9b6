"""What gives a turn away in images themselves, whatever is on them: marks, a grid of blocks, one-way sharpness, bars.

Each is told to a simple model that cannot know what is on an image. It is trained on some images and asked about the
turns of others; what it knows, a network may learn instead of looking at the content.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

# Images are looked at for marks at this side at most, and for finer traces in a central square of that one, in pixels.
MARKS_SIDE, TRACES_SIDE = 64, 96
# JPEG's blocks, and the side from which on several of them are in an image.
BLOCK, LEAST_BLOCKS = 8, 3
# Distances, in pixels, that sharpness is compared over.
LAGS = (1, 2, 4)
FOLDS = 4
# Of a bar of one colour: its least depth in pixels, how far a value may be off, and on how much of its length none is.
DEPTH, TOLERANCE, LENGTH = 2, 8, 0.98
# Grey levels under which a difference is noise.
FLOOR = 0.25

Told = dict[str, float]


def giveaways(images: np.ndarray, copies: np.ndarray, angles: Sequence[int]) -> dict[str, Told]:
    """How much of the turns is told by what is no content.

    Args:
        images: (N, S, S, C) uint8, upright, N >= 4.
        copies: (K*N, T, T, C) uint8, the same turned, see `rotate_batch`.
        angles: K degrees.

    Returns:
        For each of "marks", "grid" and "sharpness": the "accuracy" of a simple model, and "axis", how often it was
        right but for half a turn, if the angles have more than one axis; and "bars" with the "share" of images that
        have some. What cannot be asked of such images is left out.
    """
    lying = len({angle % 180 for angle in angles}) > 1
    told = {"marks": _told(_marks(copies), angles, caution=1000.0)}
    fine = _central(copies, TRACES_SIDE)
    if fine.shape[1] >= LEAST_BLOCKS * BLOCK:
        told["grid"] = _told(_grid(fine), angles)
    if fine.shape[1] > max(LAGS) and lying:
        told["sharpness"] = _told(_sharpness(fine), angles)
    if lying:
        told["bars"] = {"share": round(float(_barred(images).mean()), 4)}
    return told


def where_marks_are(copies: np.ndarray, angles: Sequence[int]) -> np.ndarray:
    """The quarter of the pixels that are most alike in all images turned by the same angle: (T, T) bool.

    Args:
        copies: see `giveaways`.
    """
    fine = _without_slow_changes(copies)
    strength = np.zeros(fine.shape[1:], np.float32)
    for turned in np.split(fine, len(angles)):
        strength += np.abs(turned.mean(axis=0)) / (turned.std(axis=0) + FLOOR)
    around = _mean_of_nine(strength[None])[0]
    factor = -(-copies.shape[1] // MARKS_SIDE)
    part = np.zeros(copies.shape[1:3], bool)
    strong = np.kron(around > np.quantile(around, 0.75), np.ones((factor, factor), bool))
    part[: len(strong), : len(strong)] = strong
    return part


def _told(features: np.ndarray, angles: Sequence[int], caution: float = 1.0) -> Told:
    """What a linear model tells of images that it was not trained on.

    Args:
        features: (K*N, F), all images at the first angle, then all at the second, ...
        caution: weight of its ridge penalty, times F. A large one makes it compare with the mean of each turn.
    """
    from sklearn.linear_model import RidgeClassifier
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    count = len(features) // len(angles)
    labels, image = np.repeat(np.arange(len(angles)), count), np.tile(np.arange(count), len(angles))
    model = make_pipeline(StandardScaler(), RidgeClassifier(caution * features.shape[1]))
    predicted = cross_val_predict(model, features, labels, groups=image, cv=GroupKFold(FOLDS))
    axes = np.array(angles) % 180
    told = {"accuracy": round(float((predicted == labels).mean()), 4)}
    if len(set(axes)) > 1:
        told["axis"] = round(float((axes[predicted] == axes[labels]).mean()), 4)
    return told


def _marks(copies: np.ndarray) -> np.ndarray:
    """Every pixel without slow changes of brightness: lines, letters and edges at the same place in all images tell."""
    return _without_slow_changes(copies).reshape(len(copies), -1)


def _without_slow_changes(copies: np.ndarray) -> np.ndarray:
    """How brightness differs from that around, (M, s, s) with s of at most `MARKS_SIDE`, over its usual difference."""
    grey = copies.mean(axis=3, dtype=np.float32)
    factor = -(-grey.shape[1] // MARKS_SIDE)
    side = grey.shape[1] // factor
    grey = grey[:, : side * factor, : side * factor].reshape(-1, side, factor, side, factor).mean((2, 4))
    fine = grey - _mean_of_nine(grey)
    # No image counts more than another, and no pixel more than a few others.
    return np.clip(fine / (np.abs(fine).mean((1, 2), keepdims=True) + 1), -3, 3)


def _mean_of_nine(grey: np.ndarray) -> np.ndarray:
    """Each pixel's mean with its neighbours."""
    height, width = grey.shape[1:]
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="edge")
    parts = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.sum(parts, axis=0) / 9


def _grid(copies: np.ndarray) -> np.ndarray:
    """How large the steps between neighbours are at each of the eight places in JPEG's blocks, along either axis.

    Medians over the other axis and over the blocks, which a mark in one of them does not move.
    """
    grey = copies.mean(axis=3, dtype=np.float32)
    features = []
    for axis in (1, 2):
        steps = np.log(np.median(np.abs(np.diff(grey, axis=axis)), axis=3 - axis) + FLOOR)
        usual = np.median(steps, axis=1)
        features += [np.median(steps[:, place::BLOCK], axis=1) - usual for place in range(BLOCK)]
    return np.stack(features, axis=1)


def _sharpness(copies: np.ndarray) -> np.ndarray:
    """How much less close neighbours differ than distant ones, along either axis, in brightness and in colour.

    Content differs along the axes too, but much the same over all distances. Blur or scan lines in one direction,
    colour that was stored at half the width, and images that were stretched, are known by the closest ones. Of 16 parts
    of an image it is the median, which a mark in one of them does not move.
    """
    pixels = copies.astype(np.float32)
    planes = [pixels.mean(3)]
    if pixels.shape[3] == 3:
        planes += [pixels[..., 0] - pixels[..., 1], pixels[..., 2] - pixels[..., 1]]
    features = []
    for plane in planes:
        for along in (plane, plane.transpose(0, 2, 1)):
            apart = [_in_parts(np.abs(along[:, lag:] - along[:, :-lag])) for lag in LAGS]
            features += [np.median(near - far, axis=1) for near, far in pairwise(apart)]
    return np.stack(features, axis=1)


def _in_parts(differences: np.ndarray) -> np.ndarray:
    """Logarithms of the mean difference in 4 x 4 parts of images: (M, 16)."""
    rows = [part.mean(axis=1) for part in np.array_split(differences, 4, axis=1)]
    parts = [part.mean(axis=1) for row in rows for part in np.array_split(row, 4, axis=1)]
    return np.log(np.stack(parts, axis=1) + FLOOR)


def _barred(images: np.ndarray) -> np.ndarray:
    """Which images have bars of one colour at two opposite sides, and not at the two others: (N,) bool.

    A bar ends along its whole length at once; what stands free on a ground of one colour has none.
    """
    top, right, bottom, left = (_bar_on_top(np.rot90(images, quarter, (1, 2))) for quarter in range(4))
    return (top & bottom) != (left & right)


def _bar_on_top(images: np.ndarray) -> np.ndarray:
    pixels = images.astype(np.int16)
    size = pixels.shape[1]
    colour = np.median(pixels[:, 0], axis=1)[:, None, None]
    like = np.abs(pixels - colour).max(axis=3) <= TOLERANCE
    flat = like.mean(axis=2) >= LENGTH
    depth = np.where(flat.all(1), size, np.argmin(flat, axis=1))
    # The row after next: the next may be a blend.
    beyond = like[np.arange(len(pixels)), np.minimum(depth + 1, size - 1)].mean(1) <= 0.1
    return (depth >= DEPTH) & (depth < size // 2) & beyond


def _central(copies: np.ndarray, side: int) -> np.ndarray:
    cut = max(0, (copies.shape[1] - side) // 2)
    return copies[:, cut : copies.shape[1] - cut, cut : copies.shape[1] - cut]
