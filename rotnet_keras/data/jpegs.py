"""Decoding crops of JPEG files with TensorFlow, a batch at a time.

TensorFlow does not hold Python's global lock meanwhile, so that every core makes it faster.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from rotnet_keras.data.decoding import Box, box_in_pixels
from rotnet_keras.engine import tf

# Factors by which the decoder can reduce both sides of an image, at a fraction of the cost of decoding it in full.
REDUCTIONS = (8, 4, 2, 1)
# Images that are decoded in parallel.
PARALLEL = 64

# The bytes of a file, its (width, height), and the crop.
Crop = tuple[bytes, tuple[int, int], Box]


def decode(crops: Sequence[Crop], size: int, side: int, channels: int) -> list[np.ndarray]:
    """Decode crops of JPEG files.

    Args:
        size: length in pixels that short sides are resized to, bilinearly after a reduction; the boxes count in these
            pixels.
        side: length in pixels that the crops' sides are resized to.

    Returns:
        (side, side, channels) uint8 of each crop, in order.

    Raises:
        tf.errors.OpError: one of the files is damaged.
    """
    pixels: dict[int, np.ndarray] = {}
    reductions = [_reduction(shape, size, box, side) for _, shape, box in crops]
    for reduction in sorted(set(reductions)):
        chosen = [i for i, its in enumerate(reductions) if its == reduction]
        contents = tf.constant([crops[i][0] for i in chosen])
        boxes = tf.constant([_in_pixels(*crops[i][1:], size, reduction) for i in chosen], tf.int32)
        pixels |= zip(chosen, _decoder(reduction, side, channels)(contents, boxes).numpy(), strict=True)
    return [pixels[i] for i in range(len(crops))]


def _reduction(shape: tuple[int, int], size: int, box: Box, side: int) -> int:
    """Return the largest factor by which the decoder can reduce the image and still leave `side` pixels in the crop."""
    *_, tall, wide = box_in_pixels(*shape, size, box)
    # A whole multiple may have become slightly less by rounding.
    return next((factor for factor in REDUCTIONS if min(tall, wide) * (1 + 1e-9) >= factor * side), 1)


def _in_pixels(shape: tuple[int, int], box: Box, size: int, reduction: int) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a box in whole pixels of the reduced image."""
    width, height = (-(-length // reduction) for length in shape)
    top, left, tall, wide = box_in_pixels(width, height, size, box)
    tall, wide = min(max(1, round(tall)), height), min(max(1, round(wide)), width)
    return max(0, min(round(top), height - tall)), max(0, min(round(left), width - wide)), tall, wide


@cache
def _decoder(reduction: int, side: int, channels: int) -> Any:
    shape = (side, side, channels)

    def decode_one(crop: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        contents, box = crop
        pixels = tf.io.decode_and_crop_jpeg(
            contents, box, channels, reduction, fancy_upscaling=False, dct_method="INTEGER_FAST"
        )
        return tf.cast(tf.round(tf.image.resize(pixels, shape[:2])), tf.uint8)

    def decoder(contents: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(
            decode_one,
            (contents, boxes),
            parallel_iterations=PARALLEL,
            fn_output_signature=tf.TensorSpec(shape, tf.uint8),
        )

    return tf.function(decoder, input_signature=[tf.TensorSpec([None], tf.string), tf.TensorSpec([None, 4], tf.int32)])
