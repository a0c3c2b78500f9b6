"""Frozen features: computed once, kept on disk as float16, read back in any order."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rotnet_keras.config.sections import Augment
from rotnet_keras.data.batches import centred, evaluation_images
from rotnet_keras.data.datasets import Dataset
from rotnet_keras.data.stores import Progress, Split
from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import DataError
from rotnet_keras.models.backbones.blocks import normalization
from rotnet_keras.models.backbones.registry import layer_outputs
from rotnet_keras.models.fused_batch_norm import with_fused_batch_norm

CALIBRATION_STEPS = 60
# So many images at a time, or as many as have so many pixels, but never fewer than the least.
BATCH, PIXELS = 256, 2**22
CALIBRATION_BATCH, CALIBRATION_PIXELS = 128, 2**20
LEAST = 16
HALF_MAX = 65504.0

Features = dict[str, np.ndarray]


def feature_extractor(backbone: keras.Model, taps: Sequence[str]) -> keras.Model:
    """A model from pixels to {tap: features}, not trainable, its batch normalisation in inference mode."""
    trunk = keras.Model(backbone.input, layer_outputs(backbone, taps), name="trunk")
    trunk = with_fused_batch_norm(trunk)
    trunk.trainable = False
    return trunk


def check_disk_space(wanted: Sequence[tuple[keras.Model, int]], folder: Path) -> None:
    """Make sure that the disk can take the features of so many images each.

    Raises:
        DataError: it cannot.
    """
    needed = sum(
        2 * images * int(np.prod(output.shape[1:])) for trunk, images in wanted for output in trunk.output.values()
    )
    free = shutil.disk_usage(folder.parent).free
    if needed > 0.95 * free:
        raise DataError(
            f"{folder.parent}: frozen features need {needed / 1e9:.1f} GB here for a while, and {free / 1e9:.1f} GB "
            "are free: probe fewer taps, take fewer views, or keep the runs elsewhere (--runs-dir)"
        )


def extract(
    trunk: keras.Model,
    split: Split,
    augment: Augment,
    folder: Path,
    progress: Progress,
    what: str,
    view: tuple[int, int] | None = None,
) -> Features:
    """Features of a whole split, in its order.

    Args:
        folder: where the arrays are written, one file a tap.
        view: which of the random crops and flips, a function of these numbers; by default the central crop.

    Returns:
        {tap: (N, ...) float16, mapped from disk}.
    """
    folder.mkdir(parents=True)
    stores: Features = {}
    done = 0
    for tap, output in trunk.output.items():
        shape = (len(split), *output.shape[1:])
        stores[tap] = np.lib.format.open_memmap(folder / f"{tap}.npy", "w+", np.float16, shape)

    def halves(images: tf.Tensor) -> dict[str, tf.Tensor]:
        values = trunk(images, training=False)
        return {tap: tf.cast(tf.clip_by_value(v, -HALF_MAX, HALF_MAX), tf.float16) for tap, v in values.items()}

    batch = _at_a_time(BATCH, PIXELS, trunk.input.shape[1:])
    batches = evaluation_images(split, augment, batch=batch, view=view)
    compute = tf.function(halves, input_signature=[batches.element_spec])
    for images in batches:
        for tap, values in compute(images).items():
            stores[tap][done : done + len(images)] = values
        done += len(images)
        progress(what, done, len(split))
    return stores


def _at_a_time(most: int, pixels: int, shape: tuple[int, int, int]) -> int:
    return max(LEAST, min(most, pixels // (shape[0] * shape[1])))


def random_backbone(backbone: keras.Model, seed: int) -> keras.Model:
    """The same architecture with fresh weights: the control that says what training added.

    Its batch normalisations have mean 0 and variance 1, as the released code leaves them.
    """
    keras.utils.set_random_seed(seed)
    return keras.models.clone_model(backbone)


def estimate_batch_norm_statistics(backbone: keras.Model, dataset: Dataset, augment: Augment, seed: int) -> None:
    """Give the batch normalisations of a backbone running statistics from training images.

    Without them the activations of untrained layers shrink from block to block, and a random control may
    look worse than it is.
    """
    batch = _at_a_time(CALIBRATION_BATCH, CALIBRATION_PIXELS, dataset.image_shape)
    for step in range(CALIBRATION_STEPS):
        rng = np.random.default_rng((seed, step))
        rows = rng.integers(0, len(dataset.train), batch)
        backbone(centred(dataset.train.images(rows), augment), training=True)


def raw_pixels_backbone(dataset: Dataset, side: int) -> keras.Model:
    """No network at all: normalised pixels under the tap `pixels`, the other control."""
    inputs = keras.Input((side, side, dataset.image_shape[2]))
    outputs = keras.layers.Identity(name="pixels")(normalization(dataset.mean, dataset.std)(inputs))
    return keras.Model(inputs, outputs, name="pixels")
