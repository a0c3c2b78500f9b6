"""The method itself: turn images by known angles and label each copy with its angle.

Angles are degrees, counter-clockwise, as in `numpy.rot90`. The label of a copy is the position of its
angle in `angles` (Gidaris, Singh and Komodakis, ICLR 2018, section 3.1).
"""

import math
from collections.abc import Sequence

from rotnet_keras.engine import tf
from rotnet_keras.models.stateless_random import uniform

RIGHT_ANGLES = (0, 90, 180, 270)


def rotate_batch(images: tf.Tensor, angles: Sequence[int] = RIGHT_ANGLES) -> tuple[tf.Tensor, tf.Tensor]:
    """Return every image turned by every angle, with the labels.

    Right angles are exact: a transpose and flips. Once an angle between them is asked for, every copy is
    resampled with the same bilinear filter and cut to the same central square, the largest one that no
    angle leaves with an empty corner; the field of view then tells nothing about the angle.

    Args:
        images: (N, S, S, C), any real dtype, square.
        angles: K distinct multiples of 45 in [0, 360).

    Returns:
        inputs: (K*N, T, T, C) in the dtype of `images`, all N images at the first angle, then all N at
            the second, and so on; T = `rotated_size(S, angles)`.
        labels: (K*N,) int32 in [0, K).

    Raises:
        ValueError: the images are not square, or an angle is not a multiple of 45.
    """
    images = tf.convert_to_tensor(images)
    _check(images, angles)
    copies = _turned(images, angles)
    labels = tf.repeat(tf.range(len(angles)), tf.shape(images)[0])
    return tf.concat(copies, axis=0), labels


def rotate_one_each(
    images: tf.Tensor, seed: tf.Tensor, angles: Sequence[int] = RIGHT_ANGLES, positions: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return every image once, turned by one angle drawn uniformly from `angles`, with the labels.

    Args:
        images: as for `rotate_batch`.
        seed: (2,) integers; the same seed gives the same turns.
        angles: as for `rotate_batch`.
        positions: (N,) the images' positions in the whole batch, if they are a part of one.

    Returns:
        inputs: (N, T, T, C) in the dtype of `images`.
        labels: (N,) int32 in [0, K).
    """
    images = tf.convert_to_tensor(images)
    _check(images, angles)
    labels = tf.cast(len(angles) * uniform(seed, tf.shape(images)[0], 1, positions)[:, 0], tf.int32)
    copies = tf.stack(_turned(images, angles), axis=1)
    return tf.gather(copies, labels, batch_dims=1), labels


def rotated_size(size: int, angles: Sequence[int]) -> int:
    """Side in pixels of what `rotate_batch` makes of squares of side `size`.

    The square inscribed at 45 degrees has the side size / sqrt(2): 32 gives 22, 224 gives 158.
    """
    if _all_right(angles):
        return size
    return math.floor(size / math.sqrt(2))


def _check(images: tf.Tensor, angles: Sequence[int]) -> None:
    height, width = images.shape[-3], images.shape[-2]
    if height != width:
        raise ValueError(
            f"Rotation needs square images: turned by 90 degrees, others change their shape and give the "
            f"angle away. Received: {height} x {width} pixels."
        )
    wrong = [a for a in angles if a % 45 or not 0 <= a < 360]
    if wrong or not angles:
        raise ValueError(f"Angles are multiples of 45 in [0, 360). Received: {list(angles)}.")


def _all_right(angles: Sequence[int]) -> bool:
    return all(angle in RIGHT_ANGLES for angle in angles)


def _turned(images: tf.Tensor, angles: Sequence[int]) -> list[tf.Tensor]:
    if _all_right(angles):
        return [_turn_right_angle(images, angle) for angle in angles]
    # Half the turn is exact and free, so that only 0 and 45 degrees are ever resampled.
    resampled = {extra: _resample(images, extra) for extra in sorted({angle % 90 for angle in angles})}
    return [_turn_right_angle(resampled[angle % 90], angle - angle % 90) for angle in angles]


def _turn_right_angle(images: tf.Tensor, angle: int) -> tf.Tensor:
    """Turn (N, S, S, C) counter-clockwise by a multiple of 90 degrees, without resampling."""
    if angle == 90:
        return tf.reverse(tf.transpose(images, [0, 2, 1, 3]), axis=[1])
    if angle == 180:
        return tf.reverse(images, axis=[1, 2])
    if angle == 270:
        return tf.transpose(tf.reverse(images, axis=[1]), [0, 2, 1, 3])
    return images


def _resample(images: tf.Tensor, angle: int) -> tf.Tensor:
    """Turn (N, S, S, C) counter-clockwise by `angle` about the centre and cut out the inscribed square."""
    size = images.shape[1]
    side = rotated_size(size, (45,))
    centre = (size - 1) / 2
    offsets = tf.range(side, dtype=tf.float32) - (side - 1) / 2
    dy, dx = tf.meshgrid(offsets, offsets, indexing="ij")
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # The y axis of an image points down: this source grid is the output turned clockwise.
    y = centre + sin * dx + cos * dy
    x = centre + cos * dx - sin * dy
    turned = _bilinear(tf.cast(images, tf.float32), y, x)
    if images.dtype.is_integer:
        turned = tf.round(turned)
    return tf.cast(turned, images.dtype)


def _bilinear(images: tf.Tensor, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Values of (N, S, S, C) float32 at the (T, T) positions `y`, `x`, which lie inside the image."""
    last = images.shape[1] - 1
    y0 = tf.clip_by_value(tf.floor(y), 0, last - 1)
    x0 = tf.clip_by_value(tf.floor(x), 0, last - 1)
    wy, wx = (y - y0)[None, ..., None], (x - x0)[None, ..., None]

    def at(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(images, [tf.shape(images)[0], (last + 1) ** 2, images.shape[3]])
        index = tf.cast(row, tf.int32) * (last + 1) + tf.cast(column, tf.int32)
        return tf.gather(flat, index, axis=1)

    top = at(y0, x0) * (1 - wx) + at(y0, x0 + 1) * wx
    bottom = at(y0 + 1, x0) * (1 - wx) + at(y0 + 1, x0 + 1) * wx
    return top * (1 - wy) + bottom * wy
