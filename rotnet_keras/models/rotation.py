"""The method itself: rotate images by known angles, and label each copy with its angle.

Angles are degrees, counter-clockwise, as in `numpy.rot90`. The label of a copy is the index of its angle in `angles`
(Gidaris, Singh and Komodakis, ICLR 2018, section 3.1).
"""

import math
from collections.abc import Sequence

from rotnet_keras.engine import tf
from rotnet_keras.models.stateless_random import uniform

RIGHT_ANGLES = (0, 90, 180, 270)


def rotate_batch(images: tf.Tensor, angles: Sequence[int] = RIGHT_ANGLES) -> tuple[tf.Tensor, tf.Tensor]:
    """Rotate every image by every angle, and return the copies with their labels.

    Multiples of 90 degrees are exact: a transpose and flips. If any other angle is among them, all images are
    resampled with the same bilinear filter and cropped to the same central square, the largest one without an empty
    corner at any angle. Otherwise the blur or the field of view would give the angle away.

    Args:
        images: (N, H, W, C) of any real dtype; a tensor or an array. Squares, unless the angles are 0 and 180.
        angles: K distinct multiples of 45 in [0, 360).

    Returns:
        inputs: (K * N, T, U, C) in the dtype of `images`: all N images at the first angle, then all N at the second,
            and so on. (T, U) is `rotated_shape((H, W), angles)`, which is (H, W) for right angles.
        labels: (K * N,) int32 in [0, K).

    Raises:
        ValueError: the images are no squares and an angle is not 0 or 180, or an angle is not a multiple of 45 in
            [0, 360).

    Example:
        >>> import numpy as np
        >>> from rotnet_keras import rotate_batch
        >>> images = np.zeros((2, 32, 32, 3), np.uint8)
        >>> inputs, labels = rotate_batch(images)
        >>> inputs.shape.as_list(), labels.numpy().tolist()
        ([8, 32, 32, 3], [0, 0, 1, 1, 2, 2, 3, 3])
    """
    images = tf.convert_to_tensor(images)
    _check(images, angles)
    copies = _rotated(images, angles)
    labels = tf.repeat(tf.range(len(angles)), tf.shape(images)[0])
    return tf.concat(copies, axis=0), labels


def rotate_one_each(
    images: tf.Tensor, seed: tf.Tensor, angles: Sequence[int] = RIGHT_ANGLES, positions: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Rotate every image by one angle, drawn uniformly from `angles`, and return the images with their labels.

    Args:
        images: (N, H, W, C) of any real dtype; squares, unless the angles are 0 and 180.
        seed: (2,) integers; the same seed draws the same angles.
        angles: K distinct multiples of 45 in [0, 360).
        positions: (N,) int32, the positions of the images in the whole batch, where they are only a part of it; so an
            image gets the same angle however the batch is split.

    Returns:
        inputs: (N, T, U, C) in the dtype of `images`; (T, U) is `rotated_shape((H, W), angles)`.
        labels: (N,) int32 in [0, K).

    Raises:
        ValueError: the images are no squares and an angle is not 0 or 180, or an angle is not a multiple of 45 in
            [0, 360).

    Example:
        >>> import numpy as np
        >>> inputs, labels = rotate_one_each(np.zeros((2, 32, 32, 3), np.uint8), seed=(0, 1))
        >>> inputs.shape.as_list(), labels.shape.as_list()
        ([2, 32, 32, 3], [2])
    """
    images = tf.convert_to_tensor(images)
    _check(images, angles)
    labels = tf.cast(len(angles) * uniform(seed, tf.shape(images)[0], 1, positions)[:, 0], tf.int32)
    copies = tf.stack(_rotated(images, angles), axis=1)
    return tf.gather(copies, labels, batch_dims=1), labels


def rotated_size(size: int, angles: Sequence[int]) -> int:
    """The side in pixels of the images that `rotate_batch` returns for images of side `size`.

    It is `size` for right angles. Otherwise it is the side of the square that fits at 45 degrees, size / sqrt(2)
    rounded down: 22 for 32, 158 for 224.
    """
    if _only_right_angles(angles):
        return size
    return math.floor(size / math.sqrt(2))


def rotated_shape(shape: Sequence[int], angles: Sequence[int]) -> tuple[int, int]:
    """Height and width in pixels of the images that `rotate_batch` returns, given those of its images.

    Raises:
        ValueError: the images are no squares, and an angle is not 0 or 180.
    """
    height, width = shape[:2]
    if height == width:
        side = rotated_size(height, angles)
        return side, side
    if any(angle % 180 for angle in angles):
        raise ValueError(
            "Rotation prediction needs square images, because rotating others by 90 degrees swaps height and width. "
            f"Images of other shapes can be rotated by 0 and 180 degrees. Received: {height} x {width} pixels, angles "
            f"{list(angles)}."
        )
    return height, width


def _check(images: tf.Tensor, angles: Sequence[int]) -> None:
    rotated_shape(images.shape[-3:-1], angles)
    wrong = [a for a in angles if a % 45 or not 0 <= a < 360]
    if wrong or not angles:
        raise ValueError(f"Expected angles that are multiples of 45 in [0, 360). Received: {list(angles)}.")


def _only_right_angles(angles: Sequence[int]) -> bool:
    return all(angle in RIGHT_ANGLES for angle in angles)


def _rotated(images: tf.Tensor, angles: Sequence[int]) -> list[tf.Tensor]:
    if _only_right_angles(angles):
        return [_rotate_right_angle(images, angle) for angle in angles]
    # The multiple of 90 degrees in each rotation is exact, so that images are resampled at 0 and 45 degrees only.
    resampled = {rest: _resample_rotated(images, rest) for rest in sorted({angle % 90 for angle in angles})}
    return [_rotate_right_angle(resampled[angle % 90], angle - angle % 90) for angle in angles]


def _rotate_right_angle(images: tf.Tensor, angle: int) -> tf.Tensor:
    """Rotate (N, H, W, C) counter-clockwise by a multiple of 90 degrees, without resampling."""
    if angle == 90:
        return tf.reverse(tf.transpose(images, [0, 2, 1, 3]), axis=[1])
    if angle == 180:
        return tf.reverse(images, axis=[1, 2])
    if angle == 270:
        return tf.transpose(tf.reverse(images, axis=[1]), [0, 2, 1, 3])
    return images


def _resample_rotated(images: tf.Tensor, angle: int) -> tf.Tensor:
    """Rotate (N, S, S, C) counter-clockwise by `angle` about the centre, and crop to the inscribed square."""
    size = images.shape[1]
    side = rotated_size(size, (45,))
    centre = (size - 1) / 2
    offsets = tf.range(side, dtype=tf.float32) - (side - 1) / 2
    dy, dx = tf.meshgrid(offsets, offsets, indexing="ij")
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # The y axis of an image points down: these source positions are the output's grid rotated clockwise.
    y = centre + sin * dx + cos * dy
    x = centre + cos * dx - sin * dy
    rotated = _bilinear(tf.cast(images, tf.float32), y, x)
    if images.dtype.is_integer:
        rotated = tf.round(rotated)
    return tf.cast(rotated, images.dtype)


def _bilinear(images: tf.Tensor, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Bilinear samples (N, T, T, C) of (N, S, S, C) float32 at the positions `y` and `x`, (T, T), inside the image."""
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
