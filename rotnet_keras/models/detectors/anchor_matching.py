"""Anchor matching: which boxes belong to which object, and which of them are sampled for the loss."""

from dataclasses import dataclass

from rotnet_keras.engine import tf


@dataclass(frozen=True)
class Matches:
    """How boxes (N, B, 4) match objects (N, M, 4).

    Attributes:
        ious: (N, B), the largest intersection over union with an object; -1 for boxes without area.
        objects: (N, B) int32, the index of this object.
        best_anchors: (N, B) bool, whether the box has the largest overlap of all boxes with some object.
    """

    ious: tf.Tensor
    objects: tf.Tensor
    best_anchors: tf.Tensor


def match(boxes: tf.Tensor, objects: tf.Tensor) -> Matches:
    """Find the best object of each box. Boxes and objects without area match nothing."""
    ious = intersection_over_union(boxes, objects)
    overlapping = ious > 0
    best_anchors = overlapping & (ious >= tf.reduce_max(ious, axis=1, keepdims=True))
    best_ious = tf.where(area(boxes) > 0, tf.reduce_max(ious, axis=2), -1.0)
    return Matches(best_ious, tf.argmax(ious, axis=2, output_type=tf.int32), tf.reduce_any(best_anchors, axis=2))


def area(boxes: tf.Tensor) -> tf.Tensor:
    """The areas (...) of boxes (..., 4); 0 where bottom is above top or right is left of left."""
    return tf.reduce_prod(tf.maximum(boxes[..., 2:] - boxes[..., :2], 0.0), axis=-1)


def intersection_over_union(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """The intersection over union of boxes (N, A, 4) with others (N, B, 4): (N, A, B); 0 for boxes without area."""
    a, b = first[:, :, None], second[:, None]
    corner, end = tf.maximum(a[..., :2], b[..., :2]), tf.minimum(a[..., 2:], b[..., 2:])
    intersection = area(tf.concat([corner, end], axis=-1))
    return tf.math.divide_no_nan(intersection, area(a) + area(b) - intersection)


def sample_balanced(positive: tf.Tensor, negative: tf.Tensor, count: int, share: float, draws: tf.Tensor) -> tf.Tensor:
    """Sample the boxes of a step at random: positive ones up to a share, the rest negative ones.

    Args:
        positive: (N, B) bool, boxes that match an object.
        negative: (N, B) bool, boxes that are background.
        count: of boxes per image, at most.
        share: of positive boxes among them, at most, 0 to 1.
        draws: (N, B) random numbers in [0, 1).

    Returns:
        (N, B) bool.
    """
    limit = tf.fill((tf.shape(positive)[0], 1), int(count * share))
    sampled = _sample(positive, limit, draws)
    found = tf.reduce_sum(tf.cast(sampled, tf.int32), axis=1, keepdims=True)
    return sampled | _sample(negative, count - found, draws)


def _sample(candidates: tf.Tensor, count: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """The candidates (N, B) with the smallest draws, at most `count` (N, 1) of them: (N, B) bool."""
    order = tf.argsort(tf.where(candidates, draws, 2.0), axis=1, stable=True)
    return candidates & (tf.argsort(order, axis=1) < count)


def smooth_l1(differences: tf.Tensor, beta: float) -> tf.Tensor:
    """Smooth L1 loss summed over the last axis: quadratic up to `beta`, then linear (Girshick, "Fast R-CNN", 2015)."""
    size = tf.abs(differences)
    return tf.reduce_sum(tf.where(size < beta, 0.5 * size**2 / beta, size - 0.5 * beta), axis=-1)
