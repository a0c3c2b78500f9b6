"""JPEG files decoded by TensorFlow, a batch at a time and only where they are looked at.

Python's lock is not needed for any of it, so that it gets faster with every core.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from rotnet_keras.data.decoding import Box, place
from rotnet_keras.engine import tf

# What the decoder can divide both sides of an image by, at a fraction of the cost.
REDUCTIONS = (8, 4, 2, 1)
PARALLEL = 64

# The bytes of a file, its (width, height), and the part of it that is wanted.
Part = tuple[bytes, tuple[int, int], Box]


def decode(parts: Sequence[Part], size: int, side: int, channels: int) -> list[np.ndarray]:
    """Parts of JPEG files.

    Args:
        size: what the short sides are resized to, with bilinear interpolation after a reduction; the boxes count in
            these pixels.
        side: what each part is resized to.

    Returns:
        (side, side, channels) uint8 of each, in order.

    Raises:
        tf.errors.OpError: one of the files is damaged.
    """
    pixels: dict[int, np.ndarray] = {}
    reductions = [_reduction(shape, size, box, side) for _, shape, box in parts]
    for reduction in sorted(set(reductions)):
        chosen = [i for i, its in enumerate(reductions) if its == reduction]
        contents = tf.constant([parts[i][0] for i in chosen])
        boxes = tf.constant([_in_pixels(*parts[i][1:], size, reduction) for i in chosen], tf.int32)
        pixels |= zip(chosen, _decoder(reduction, side, channels)(contents, boxes).numpy(), strict=True)
    return [pixels[i] for i in range(len(parts))]


def _reduction(shape: tuple[int, int], size: int, box: Box, side: int) -> int:
    """What the decoder can divide the image's sides by, with as many pixels left as are asked for."""
    *_, tall, wide = place(*shape, size, box)
    # What is a whole multiple may have become a hair less.
    return next((factor for factor in REDUCTIONS if min(tall, wide) * (1 + 1e-9) >= factor * side), 1)


def _in_pixels(shape: tuple[int, int], box: Box, size: int, reduction: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of a box, in whole pixels of the reduced image."""
    width, height = (-(-length // reduction) for length in shape)
    top, left, tall, wide = place(width, height, size, box)
    tall, wide = min(max(1, round(tall)), height), min(max(1, round(wide)), width)
    return max(0, min(round(top), height - tall)), max(0, min(round(left), width - wide)), tall, wide


@cache
def _decoder(reduction: int, side: int, channels: int) -> Any:
    shape = (side, side, channels)

    def one(part: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        contents, box = part
        pixels = tf.io.decode_and_crop_jpeg(
            contents, box, channels, reduction, fancy_upscaling=False, dct_method="INTEGER_FAST"
        )
        return tf.cast(tf.round(tf.image.resize(pixels, shape[:2])), tf.uint8)

    def decoder(contents: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(
            one, (contents, boxes), parallel_iterations=PARALLEL, fn_output_signature=tf.TensorSpec(shape, tf.uint8)
        )

    return tf.function(decoder, input_signature=[tf.TensorSpec([None], tf.string), tf.TensorSpec([None, 4], tf.int32)])
