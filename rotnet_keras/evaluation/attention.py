"""Attention maps: where in an image the features of a tap are strong, and whether the map rotates with the image."""

import numpy as np

from rotnet_keras.engine import keras
from rotnet_keras.evaluation.features import feature_extractor
from rotnet_keras.models.rotation import RIGHT_ANGLES, rotate_batch


def attention_maps(features: np.ndarray, power: float) -> np.ndarray:
    """Attention maps as in the paper (section 3.1, figure 3): the sum over channels of each activation to a power.

    Args:
        features: (N, H, W, C); negative values count as zero.
        power: 1, 2 and 4 in the paper, from the first to the last layer that it shows.

    Returns:
        (N, H, W), each map scaled to a maximum of 1; all 0 where nothing is active.
    """
    return scaled_to_one((np.maximum(features, 0.0).astype(np.float64) ** power).sum(axis=-1))


def scaled_to_one(maps: np.ndarray) -> np.ndarray:
    """Scale each of some maps (..., H, W), which are nowhere negative, to a maximum of 1; those that are 0 stay 0."""
    highest = maps.max(axis=(-2, -1), keepdims=True)
    return np.divide(maps, highest, out=np.zeros_like(maps), where=highest > 0)


def rotated_attention_maps(backbone: keras.Model, tap: str, images: np.ndarray, power: float) -> np.ndarray:
    """Attention maps of the four rotated copies of square images.

    Args:
        backbone: a model from raw pixels, 0 to 255.
        tap: name of the layer to read.
        images: (N, S, S, C).
        power: see `attention_maps`.

    Returns:
        (N, 4, H, H); map k belongs to the copy rotated by 90 k degrees, counter-clockwise.
    """
    copies = np.asarray(rotate_batch(images, RIGHT_ANGLES)[0])
    features = feature_extractor(backbone, [tap]).predict(copies, verbose=0)[tap]
    maps = attention_maps(np.asarray(features), power)
    return maps.reshape(4, len(images), *maps.shape[1:]).swapaxes(0, 1)


def equivariance_scores(maps: np.ndarray) -> np.ndarray:
    """How well attention maps rotate with their image: 1 for exact equivariance, about 0 for unrelated maps.

    The paper has no such number.

    Args:
        maps: (N, 4, H, H), from `rotated_attention_maps`.

    Returns:
        (N,): each copy's map is rotated back and correlated (Pearson) with that of the upright image; the mean of the
        three correlations.
    """
    upright = maps[:, 0].reshape(len(maps), -1)
    scores = [_correlation(upright, np.rot90(maps[:, k], -k, (1, 2)).reshape(len(maps), -1)) for k in (1, 2, 3)]
    return np.mean(scores, axis=0)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), scale, out=np.zeros(len(a)), where=scale > 0)
