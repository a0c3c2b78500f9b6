"""Random colours of training images, before they are turned.

The paper changes no colours. Later work does (Kolesnikov et al. 2019 with Inception's preprocessing, SimCLR and its
like with the strengths used here): a net that cannot go by colour has to look at shape.
"""

import math

import numpy as np

from rotnet_keras.engine import tf
from rotnet_keras.models.stateless_random import uniform

LUMA = (0.299, 0.587, 0.114)
# From RGB to luma and two chroma axes, in which a turn about the luma axis is a change of hue.
TO_YIQ = np.array([LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)], np.float32)
FROM_YIQ = np.linalg.inv(TO_YIQ).astype(np.float32)
# Hue turns by at most a quarter of the strength of the rest, of a whole circle.
HUE_SHARE = 0.25


def color_jitter(
    images: tf.Tensor, seed: tf.Tensor, jitter: float, greyscale: float, positions: tf.Tensor | None = None
) -> tf.Tensor:
    """Change brightness, contrast, saturation and hue of each image at random, and take all colour from some.

    Args:
        images: (N, H, W, C) pixels in [0, 255], of any type. Saturation, hue and greyscale need C = 3.
        seed: (2,) integers; the same seed draws the same.
        jitter: brightness, contrast and saturation are multiplied by 1 - jitter to 1 + jitter, hue is turned by up to
            a quarter of it, in circles.
        greyscale: probability of an image to be grey.
        positions: (N,) the images' positions in the whole batch, if they are a part of one.

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
    """Luma, or the mean of channels that are not three: (N, H, W, 1)."""
    weights = LUMA if pixels.shape[-1] == 3 else [1 / pixels.shape[-1]] * pixels.shape[-1]
    return tf.reduce_sum(pixels * weights, axis=-1, keepdims=True)


def _hue_rotated(pixels: tf.Tensor, angles: tf.Tensor) -> tf.Tensor:
    """Colours turned by angles (N,) in radians about the grey axis."""
    cos, sin = tf.cos(angles), tf.sin(angles)
    zero, one = tf.zeros_like(angles), tf.ones_like(angles)
    turn = tf.reshape(tf.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], axis=-1), (-1, 3, 3))
    whole = tf.matmul(tf.matmul(FROM_YIQ, turn), TO_YIQ)
    return tf.clip_by_value(tf.einsum("nhwc,ndc->nhwd", pixels, whole), 0, 255)
