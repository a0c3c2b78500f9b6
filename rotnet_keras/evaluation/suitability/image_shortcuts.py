"""Shortcuts in images: marks, block grids, directional sharpness and bars, which reveal a rotation without any content.

For each of these a linear model is trained on features that hold no content, and predicts the rotations of other
images. Whatever it can predict, a network may learn instead of the content.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

# Side that images are reduced to for marks, and side of the central square that finer traces are read in, in pixels.
MARKS_SIDE, TRACES_SIDE = 64, 96
# Side of a JPEG block in pixels, and how many of them an image needs along a side.
BLOCK, FEWEST_BLOCKS = 8, 3
# Distances of the pixels whose differences measure sharpness.
LAGS = (1, 2, 4)
# Folds of the cross-validation.
FOLDS = 4
# A bar of one colour: its least depth in pixels, the largest deviation of a value, and the share of a row within that.
DEPTH, TOLERANCE, LENGTH = 2, 8, 0.98
# Added to differences in grey levels: smaller ones are noise.
FLOOR = 0.25

# Shares by what they are of, as a `suitability` event holds them.
Scores = dict[str, float]


def image_shortcuts(images: np.ndarray, copies: np.ndarray, angles: Sequence[int]) -> dict[str, Scores]:
    """Measure how well rotations can be predicted from what is not content.

    Args:
        images: (N, S, S, C) uint8, upright, N >= 4.
        copies: (K*N, T, T, C) uint8, the same images rotated, see `rotate_batch`.
        angles: K degrees, counter-clockwise.

    Returns:
        Under the keys of a `suitability` event: for "marks", "grid" and "sharpness" the "accuracy" of a linear model
        and, where the angles have two axes, "axis", its accuracy up to 180 degrees; for "bars" the "share" of images
        that have some. What cannot be measured on images of this size, or with these angles, is left out.
    """
    two_axes = len({angle % 180 for angle in angles}) > 1
    scores = {"marks": _predictability(_marks(copies), angles, penalty=1000.0)}
    fine = _central(copies, TRACES_SIDE)
    if min(fine.shape[1:3]) >= FEWEST_BLOCKS * BLOCK:
        scores["grid"] = _predictability(_grid(fine), angles)
    if min(fine.shape[1:3]) > max(LAGS) and two_axes:
        scores["sharpness"] = _predictability(_sharpness(fine), angles)
    if two_axes:
        scores["bars"] = {"share": round(float(_has_bars(images).mean()), 4)}
    return scores


def most_similar_pixels(copies: np.ndarray, angles: Sequence[int]) -> np.ndarray:
    """The quarter of the pixels that are most alike in all images rotated by the same angle.

    Args:
        copies: (K*N, T, T, C) uint8, see `image_shortcuts`.
        angles: K degrees, counter-clockwise.

    Returns:
        (T, T) bool.
    """
    fine = _local_contrast(copies)
    strength = np.zeros(fine.shape[1:], np.float32)
    for rotated in np.split(fine, len(angles)):
        strength += np.abs(rotated.mean(axis=0)) / (rotated.std(axis=0) + FLOOR)
    smooth = _box_blur(strength[None])[0]
    factor = -(-max(copies.shape[1:3]) // MARKS_SIDE)
    part = np.zeros(copies.shape[1:3], bool)
    strong = np.kron(smooth > np.quantile(smooth, 0.75), np.ones((factor, factor), bool))
    part[: strong.shape[0], : strong.shape[1]] = strong
    return part


def _predictability(features: np.ndarray, angles: Sequence[int], penalty: float = 1.0) -> Scores:
    """The cross-validated accuracy of a linear model that predicts rotations from features.

    Args:
        features: (K*N, F), for all images at the first angle, then for all at the second, ...
        angles: K degrees, counter-clockwise.
        penalty: the ridge penalty, divided by F. A large one makes the model compare with the mean of each rotation.
    """
    from sklearn.linear_model import RidgeClassifier
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    count = len(features) // len(angles)
    labels, image = np.repeat(np.arange(len(angles)), count), np.tile(np.arange(count), len(angles))
    model = make_pipeline(StandardScaler(), RidgeClassifier(penalty * features.shape[1]))
    predicted = cross_val_predict(model, features, labels, groups=image, cv=GroupKFold(FOLDS))
    axes = np.array(angles) % 180
    scores = {"accuracy": round(float((predicted == labels).mean()), 4)}
    if len(set(axes)) > 1:
        scores["axis"] = round(float((axes[predicted] == axes[labels]).mean()), 4)
    return scores


def _marks(copies: np.ndarray) -> np.ndarray:
    """The local contrast of every pixel, where lines, letters and edges at one position in all images show up."""
    return _local_contrast(copies).reshape(len(copies), -1)


def _local_contrast(copies: np.ndarray) -> np.ndarray:
    """The difference of brightness from that of the surroundings, over its mean: (M, s, s), s at most `MARKS_SIDE`."""
    grey = copies.mean(axis=3, dtype=np.float32)
    factor = -(-max(grey.shape[1:]) // MARKS_SIDE)
    tall, wide = max(1, grey.shape[1] // factor), max(1, grey.shape[2] // factor)
    grey = grey[:, : tall * factor, : wide * factor].reshape(len(grey), tall, -1, wide, grey.shape[2] // wide)
    grey = grey.mean((2, 4))
    fine = grey - _box_blur(grey)
    # So that no image weighs more than another, and no pixel more than a few others.
    return np.clip(fine / (np.abs(fine).mean((1, 2), keepdims=True) + 1), -3, 3)


def _box_blur(grey: np.ndarray) -> np.ndarray:
    """The mean of each pixel and its eight neighbours."""
    height, width = grey.shape[1:]
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="edge")
    parts = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.sum(parts, axis=0) / 9


def _grid(copies: np.ndarray) -> np.ndarray:
    """How large the steps between neighbouring pixels are at each of the eight offsets in JPEG blocks, along each axis.

    Medians over the other axis and over the blocks are robust against a mark in one of them.
    """
    grey = copies.mean(axis=3, dtype=np.float32)
    features = []
    for axis in (1, 2):
        steps = np.log(np.median(np.abs(np.diff(grey, axis=axis)), axis=3 - axis) + FLOOR)
        typical = np.median(steps, axis=1)
        features += [np.median(steps[:, offset::BLOCK], axis=1) - typical for offset in range(BLOCK)]
    return np.stack(features, axis=1)


def _sharpness(copies: np.ndarray) -> np.ndarray:
    """How much less adjacent pixels differ than distant ones, along each axis, in brightness and in colour.

    Content differs between the axes too, but much the same at all distances. Directional blur, scan lines, chroma
    stored at half the width and stretched images show at the smallest distances. The median over 16 parts of an image
    is robust against a mark in one of them.
    """
    pixels = copies.astype(np.float32)
    planes = [pixels.mean(3)]
    if pixels.shape[3] == 3:
        planes += [pixels[..., 0] - pixels[..., 1], pixels[..., 2] - pixels[..., 1]]
    features = []
    for plane in planes:
        for along in (plane, plane.transpose(0, 2, 1)):
            differences = [_log_mean_of_parts(np.abs(along[:, lag:] - along[:, :-lag])) for lag in LAGS]
            features += [np.median(near - far, axis=1) for near, far in pairwise(differences)]
    return np.stack(features, axis=1)


def _log_mean_of_parts(differences: np.ndarray) -> np.ndarray:
    """The logarithm of the mean difference in each of 4 x 4 parts of images: (M, 16)."""
    rows = [part.mean(axis=1) for part in np.array_split(differences, 4, axis=1)]
    parts = [part.mean(axis=1) for row in rows for part in np.array_split(row, 4, axis=1)]
    return np.log(np.stack(parts, axis=1) + FLOOR)


def _has_bars(images: np.ndarray) -> np.ndarray:
    """Which images have bars of one colour at two opposite sides and none at the other two: (N,) bool.

    A bar ends along its whole length at once. An object on a background of one colour has no bars.
    """
    top, right, bottom, left = (_bar_on_top(np.rot90(images, quarter, (1, 2))) for quarter in range(4))
    return (top & bottom) != (left & right)


def _bar_on_top(images: np.ndarray) -> np.ndarray:
    """Which images begin with rows of one colour that end at once: (N,) bool."""
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
    top, left = (max(0, (length - side) // 2) for length in copies.shape[1:3])
    return copies[:, top : copies.shape[1] - top, left : copies.shape[2] - left]
