"""Features in the plane: a principal component analysis of a sample, aligned so that epochs can be compared."""

import numpy as np

# The share of images that lie within the unit circle; those beyond are drawn on it.
INSIDE = 0.95


def unit_features(features: np.ndarray) -> np.ndarray:
    """Return features (N, D) scaled to length 1, so that distances agree with the cosine similarity; 0 stays 0."""
    values = np.asarray(features, np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0)


def principal_plane(features: np.ndarray, previous: np.ndarray | None = None) -> np.ndarray:
    """Project features to the plane of their first two principal components.

    The two components are determined up to their signs, and up to their order where both explain the same variance, so
    that the points of two epochs could be mirror images. They are therefore rotated and mirrored within the plane to
    lie as close as possible to the points of the epoch before (orthogonal Procrustes).

    Args:
        features: (N, D) of length 1, from `unit_features`.
        previous: (N, 2), the points of the same images in the epoch before; None for the first.

    Returns:
        (N, 2), scaled by one factor so that 95 % of the points lie within the unit circle; the others are moved to it.
    """
    centred = features - features.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(features), 2))
    count = min(2, len(values))
    points[:, :count] = left[:, :count] * values[:count]
    if previous is None:
        # The point that is farthest out on an axis is on its positive side.
        farthest = points[np.abs(points).argmax(axis=0), (0, 1)]
        points *= np.where(farthest < 0, -1, 1)
    else:
        u, _, v = np.linalg.svd(points.T @ previous)
        points = points @ u @ v
    radii = np.linalg.norm(points, axis=1)
    scale = np.quantile(radii, INSIDE) or radii.max() or 1.0
    return points / np.maximum(radii, scale)[:, None]


def nearest(features: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the images of a sample whose features are most similar to those of each.

    Args:
        features: (N, D) of length 1, from `unit_features`.
        count: how many.

    Returns:
        neighbours: (N, min(count, N - 1)), the positions of the nearest images, the nearest first.
        similarities: of the same shape, cosine similarities, -1 to 1.
    """
    similarities = features @ features.T
    np.fill_diagonal(similarities, -np.inf)
    neighbours = np.argsort(-similarities, axis=1, kind="stable")[:, : min(count, len(features) - 1)]
    return neighbours, np.take_along_axis(similarities, neighbours, axis=1)
