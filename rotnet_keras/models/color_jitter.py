"""Colour jitter of training images, before they are rotated.

The paper does not use it. Later work does (Kolesnikov et al. 2019 with Inception's preprocessing, SimCLR with the
proportions used here): a network that cannot rely on colour has to learn shape.
"""

import math

import numpy as np

from rotnet_keras.engine import tf
from rotnet_keras.models.stateless_random import uniform

LUMA = (0.299, 0.587, 0.114)
# From RGB to luma and two chroma axes; a rotation about the luma axis changes the hue.
TO_YIQ = np.array([LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)], np.float32)
FROM_YIQ = np.linalg.inv(TO_YIQ).astype(np.float32)
# The largest change of hue, as a share of the full circle, relative to the strength of the other changes.
HUE_SHARE = 0.25


def color_jitter(
    images: tf.Tensor, seed: tf.Tensor, jitter: float, greyscale: float, positions: tf.Tensor | None = None
) -> tf.Tensor:
    """Change brightness, contrast, saturation and hue of each image at random, and turn some images grey.

    Args:
        images: (N, H, W, C) pixels in [0, 255], of any dtype. Saturation, hue and greyscale apply only if C = 3.
        seed: (2,) integers; the same seed gives the same changes.
        jitter: the strength, in [0, 1]. Brightness, contrast and saturation are multiplied by factors in
            [1 - jitter, 1 + jitter]; hue is rotated by at most jitter / 4 of the full circle.
        greyscale: the probability that an image becomes grey.
        positions: (N,) int32, the positions of the images in the whole batch, where they are only a part of it.

    Returns:
        (N, H, W, C) float32 in [0, 255].
    """
    pixels = tf.cast(images, tf.float32)
    draws = tf.transpose(uniform(seed, tf.shape(pixels)[0], 5, positions))[..., None, None, None]
    brightness, contrast, saturation = tf.unstack(1 + jitter * (2 * draws[:3] - 1))
    pixels = tf.clip_by_value(pixels * brightness, 0, 255)
    mean = tf.reduce_mean(_grey(pixels), axis=(1, 2), keepdims=True)
    pixels = tf.clip_by_value(mean + (pixels - mean) * contrast, 0, 255)
    if pixels.shape[-1] != 3:
        return pixels
    grey = _grey(pixels)
    pixels = tf.clip_by_value(grey + (pixels - grey) * saturation, 0, 255)
    pixels = _hue_rotated(pixels, 2 * math.pi * HUE_SHARE * jitter * (2 * draws[3, :, 0, 0, 0] - 1))
    return tf.where(draws[4] < greyscale, tf.broadcast_to(_grey(pixels), tf.shape(pixels)), pixels)


def _grey(pixels: tf.Tensor) -> tf.Tensor:
    """The luma of RGB images, or the mean of the channels of others: (N, H, W, 1)."""
    weights = LUMA if pixels.shape[-1] == 3 else [1 / pixels.shape[-1]] * pixels.shape[-1]
    return tf.reduce_sum(pixels * weights, axis=-1, keepdims=True)


def _hue_rotated(pixels: tf.Tensor, angles: tf.Tensor) -> tf.Tensor:
    """The images with their hue rotated by angles (N,) in radians."""
    cos, sin = tf.cos(angles), tf.sin(angles)
    zero, one = tf.zeros_like(angles), tf.ones_like(angles)
    rotation = tf.reshape(tf.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], axis=-1), (-1, 3, 3))
    matrix = tf.matmul(tf.matmul(FROM_YIQ, rotation), TO_YIQ)
    return tf.clip_by_value(tf.einsum("nhwc,ndc->nhwd", pixels, matrix), 0, 255)
