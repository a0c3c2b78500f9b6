"""What a detector is to answer: which of its boxes belong to which object, and which of them are counted in a step."""

from dataclasses import dataclass

from rotnet_keras.engine import tf


@dataclass(frozen=True)
class Matches:
    """What boxes (N, B, 4) have to do with objects (N, M, 4).

    Attributes:
        overlaps: (N, B) the best intersection over union with an object; -1 for what is no box.
        objects: (N, B) int32: the object that it is.
        best_anchors: (N, B) bool: no box overlaps some object more.
    """

    overlaps: tf.Tensor
    objects: tf.Tensor
    best_anchors: tf.Tensor


def match(boxes: tf.Tensor, objects: tf.Tensor) -> Matches:
    """Find the object of each box; boxes and objects without area are none."""
    overlaps = intersection_over_union(boxes, objects)
    there = overlaps > 0
    best_anchors = there & (overlaps >= tf.reduce_max(overlaps, axis=1, keepdims=True))
    best = tf.where(area(boxes) > 0, tf.reduce_max(overlaps, axis=2), -1.0)
    return Matches(best, tf.argmax(overlaps, axis=2, output_type=tf.int32), tf.reduce_any(best_anchors, axis=2))


def area(boxes: tf.Tensor) -> tf.Tensor:
    """(...) of boxes (..., 4); 0 where bottom is above top, or right before left."""
    return tf.reduce_prod(tf.maximum(boxes[..., 2:] - boxes[..., :2], 0.0), axis=-1)


def intersection_over_union(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """(N, A, B) of boxes (N, A, 4) with others (N, B, 4); 0 where one has no area."""
    one, other = first[:, :, None], second[:, None]
    corner, end = tf.maximum(one[..., :2], other[..., :2]), tf.minimum(one[..., 2:], other[..., 2:])
    common = area(tf.concat([corner, end], axis=-1))
    return tf.math.divide_no_nan(common, area(one) + area(other) - common)


def sample_balanced(right: tf.Tensor, wrong: tf.Tensor, count: int, share: float, draws: tf.Tensor) -> tf.Tensor:
    """Boxes that a step counts, (N, B) bool: at random, up to a share of right ones, the rest wrong ones.

    Args:
        right, wrong: (N, B) bool.
        count: of each image, at most.
        draws: (N, B) in [0, 1).
    """
    most = tf.fill((tf.shape(right)[0], 1), int(count * share))
    positive = _first(right, most, draws)
    found = tf.reduce_sum(tf.cast(positive, tf.int32), axis=1, keepdims=True)
    return positive | _first(wrong, count - found, draws)


def _first(those: tf.Tensor, count: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """At most `count` (N, 1) of those with the smallest draws."""
    order = tf.argsort(tf.where(those, draws, 2.0), axis=1, stable=True)
    return those & (tf.argsort(order, axis=1) < count)


def smooth_l1(differences: tf.Tensor, beta: float) -> tf.Tensor:
    """Quadratic up to `beta`, then linear: (...) summed over the last axis (Girshick, "Fast R-CNN", 2015)."""
    size = tf.abs(differences)
    return tf.reduce_sum(tf.where(size < beta, 0.5 * size**2 / beta, size - 0.5 * beta), axis=-1)
