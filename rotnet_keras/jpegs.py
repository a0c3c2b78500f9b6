"""JPEG files decoded by TensorFlow, a batch at a time and only where they are looked at.

Python's lock is not needed for any of it, so that it gets faster with every core.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.engine import tf
from rotnet_keras.images import Window, place

# What the decoder can divide both sides of an image by, at a fraction of the cost.
REDUCTIONS = (8, 4, 2, 1)
PARALLEL = 64

# A file, its (width, height), and the window of it.
Part = tuple[Path, tuple[int, int], Window]


def decode(parts: Sequence[Part], size: int, side: int, channels: int) -> list[np.ndarray]:
    """Windows of the central squares of JPEG files.

    Args:
        size: side that the whole square is resized to, with bilinear interpolation after a reduction.
        side: of all windows.

    Returns:
        (side, side, channels) uint8 of each, in order.

    Raises:
        tf.errors.OpError: one of the files is damaged, or gone.
    """
    pixels: dict[int, np.ndarray] = {}
    for reduction in REDUCTIONS:
        chosen = [i for i, (_, shape, _) in enumerate(parts) if _reduction(shape, size) == reduction]
        if chosen:
            names = tf.constant([str(parts[i][0]) for i in chosen])
            boxes = tf.constant([_box(*parts[i][1:], size, reduction) for i in chosen], tf.int32)
            pixels |= zip(chosen, _decoder(reduction, side, channels)(names, boxes).numpy(), strict=True)
    return [pixels[i] for i in range(len(parts))]


def _reduction(shape: tuple[int, int], size: int) -> int:
    return next((factor for factor in REDUCTIONS if min(shape) >= factor * size), 1)


def _box(shape: tuple[int, int], window: Window, size: int, reduction: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of a window, in whole pixels of the reduced image."""
    width, height = (-(-length // reduction) for length in shape)
    left, top, extent = place(width, height, size, window)
    whole = min(max(1, round(extent)), width, height)
    return min(round(top), height - whole), min(round(left), width - whole), whole, whole


@cache
def _decoder(reduction: int, side: int, channels: int) -> Any:
    shape = (side, side, channels)

    def one(part: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        name, box = part
        pixels = tf.io.decode_and_crop_jpeg(
            tf.io.read_file(name), box, channels, reduction, fancy_upscaling=False, dct_method="INTEGER_FAST"
        )
        return tf.cast(tf.round(tf.image.resize(pixels, shape[:2])), tf.uint8)

    def decoder(names: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(
            one, (names, boxes), parallel_iterations=PARALLEL, fn_output_signature=tf.TensorSpec(shape, tf.uint8)
        )

    return tf.function(decoder, input_signature=[tf.TensorSpec([None], tf.string), tf.TensorSpec([None, 4], tf.int32)])
