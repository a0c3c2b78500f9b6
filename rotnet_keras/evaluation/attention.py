"""Attention maps: where in an image the features of a tap are strong, and whether that turns with the image."""

import numpy as np

from rotnet_keras.engine import keras
from rotnet_keras.evaluation.features import frozen_taps
from rotnet_keras.models.rotation import rotate_batch

RIGHT_TURNS = (0, 90, 180, 270)


def attention(features: np.ndarray, power: float) -> np.ndarray:
    """The paper's map (section 3.1, figure 3): at each place the sum over channels of activation to a power.

    Args:
        features: (N, H, W, C); below zero counts as zero.
        power: 1, 2 and 4 in the paper, from its first to its last layer shown.

    Returns:
        (N, H, W), each map scaled to a highest value of 1; all 0 where nothing is active.
    """
    maps = (np.maximum(features, 0.0).astype(np.float64) ** power).sum(axis=-1)
    highest = maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps, highest, out=np.zeros_like(maps), where=highest > 0)


def turned_maps(backbone: keras.Model, tap: str, images: np.ndarray, power: float) -> np.ndarray:
    """Attention maps of the four copies of square images.

    Args:
        images: (N, S, S, C) of raw pixels.

    Returns:
        (N, 4, H, H); copy k is turned by 90 k degrees counter-clockwise.
    """
    copies = np.asarray(rotate_batch(images, RIGHT_TURNS)[0])
    maps = attention(np.asarray(frozen_taps(backbone, [tap]).predict(copies, verbose=0)[tap]), power)
    return maps.reshape(4, len(images), *maps.shape[1:]).swapaxes(0, 1)


def turning_scores(maps: np.ndarray) -> np.ndarray:
    """How well maps turn with their image: 1 where they do exactly, about 0 where they have nothing in common.

    Args:
        maps: (N, 4, H, H), as `turned_maps` gives them.

    Returns:
        (N,): Pearson's correlation of each turned copy's map, turned back, with the upright one's; the mean of
        the three. The paper gives no such number; this one is ours.
    """
    upright = maps[:, 0].reshape(len(maps), -1)
    scores = [_correlation(upright, np.rot90(maps[:, k], -k, (1, 2)).reshape(len(maps), -1)) for k in (1, 2, 3)]
    return np.mean(scores, axis=0)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), scale, out=np.zeros(len(a)), where=scale > 0)
