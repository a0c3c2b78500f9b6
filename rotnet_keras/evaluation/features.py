"""Frozen features: computed once, stored on disk as float16, and read in any order."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rotnet_keras.config.sections import Augment
from rotnet_keras.data.batches import center_crop, crop_shape, evaluation_batches
from rotnet_keras.data.datasets import Dataset
from rotnet_keras.data.stores import Progress, Split
from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import DataError
from rotnet_keras.files import create_file, make_folder
from rotnet_keras.models.backbones.airbench import WHITENING
from rotnet_keras.models.backbones.blocks import normalization
from rotnet_keras.models.backbones.registry import layer_outputs
from rotnet_keras.models.fused_batch_norm import with_fused_batch_norm

# Batches that the statistics of a random backbone are estimated from.
CALIBRATION_STEPS = 60
# Images in a batch, at most, and their pixels, at most; a batch has `FEWEST` images or more in any case.
BATCH, PIXELS = 256, 2**22
CALIBRATION_BATCH, CALIBRATION_PIXELS = 128, 2**20
FEWEST = 16
# The largest float16.
FLOAT16_MAX = 65504.0

# Arrays (N, ...) by the name of their tap.
Features = dict[str, np.ndarray]


def feature_extractor(backbone: keras.Model, taps: Sequence[str]) -> keras.Model:
    """A frozen model from pixels to the features of some taps, with batch normalisation in inference mode.

    Args:
        backbone: from raw pixels (N, S, S, C), 0 to 255.
        taps: names of its layers.

    Returns:
        A model with the output {tap: features}.
    """
    extractor = keras.Model(backbone.input, layer_outputs(backbone, taps), name="feature_extractor")
    extractor = with_fused_batch_norm(extractor)
    extractor.trainable = False
    return extractor


def check_disk_space(wanted: Sequence[tuple[keras.Model, int]], folder: Path) -> None:
    """Make sure that the disk has room for features.

    Args:
        wanted: feature extractors, each with the number of images that it is applied to.
        folder: where the features are going to be stored; its parent exists.

    Raises:
        DataError: there is too little room.
    """
    needed = sum(
        2 * images * int(np.prod(output.shape[1:]))
        for extractor, images in wanted
        for output in extractor.output.values()
    )
    free = shutil.disk_usage(folder.parent).free
    if needed > 0.95 * free:
        raise DataError(
            f"{folder.parent}: the probes need {needed / 1e9:.1f} GB on disk for frozen features while they run, and "
            f"{free / 1e9:.1f} GB are free: probe fewer taps, use fewer views, or put the runs elsewhere (--runs-dir)"
        )


def extract_features(
    extractor: keras.Model,
    split: Split,
    augment: Augment,
    folder: Path,
    progress: Progress,
    what: str,
    view: tuple[int, int] | None = None,
    warn: Callable[[str], None] = lambda message: None,
    inside: Path | None = None,
) -> Features:
    """Compute the features of a whole split and store them.

    Args:
        extractor: from `feature_extractor`.
        split: N images.
        augment: how they are cropped.
        folder: where the arrays are written, one new file for each tap; made if it does not exist.
        progress: called after each batch with `what`, the images done, and N.
        what: what is being done, for `progress`.
        view: numbers that determine random crops and flips; None for the central crop.
        warn: called with a sentence for each tap with features beyond float16's range, which are clipped to it.
        inside: a folder that holds `folder`, at any depth; below this folder no link is followed.

    Returns:
        {tap: (N, ...) float16}, memory-mapped, in the order of the split.

    Raises:
        DataError: a feature is NaN.
        OSError: a file is there already, would be reached by a link below `inside`, or cannot be written.
    """
    make_folder(folder, inside)
    stores: Features = {}
    done = 0
    clipped = dict.fromkeys(extractor.output, 0)
    for tap, output in extractor.output.items():
        shape = (len(split), *output.shape[1:])
        with create_file(folder / f"{tap}.npy", inside) as file:
            stores[tap] = _new_array(file, shape)

    def features(images: tf.Tensor) -> dict[str, tf.Tensor]:
        values = extractor(images, training=False)
        return {tap: tf.cast(tf.clip_by_value(v, -FLOAT16_MAX, FLOAT16_MAX), tf.float16) for tap, v in values.items()}

    batch = _batch_size(BATCH, PIXELS, extractor.input.shape[1:])
    batches = evaluation_batches(split, augment, batch=batch, view=view)
    compute = tf.function(features, input_signature=[batches.element_spec])
    for images in batches:
        for tap, values in compute(images).items():
            stored = np.asarray(values)
            stores[tap][done : done + len(images)] = stored
            clipped[tap] += _count_clipped(stored, tap)
        done += len(images)
        progress(what, done, len(split))
    for tap, count in clipped.items():
        if count:
            warn(
                f"{what}: {count:,} of {stores[tap].size:,} values of {tap} are clipped to ±{FLOAT16_MAX:.0f}, the "
                "range of float16. Probe a layer after a normalisation instead"
            )
    return stores


def _new_array(file: BinaryIO, shape: tuple[int, ...]) -> np.ndarray:
    """Return a memory-mapped array of zeros in a new .npy file: (N, ...) float16."""
    described = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
    return np.memmap(file, np.float16, "r+", file.tell(), shape)


def _count_clipped(values: np.ndarray, tap: str) -> int:
    # Without their sign, the bits of float16 are ordered as its numbers are, and NaN comes last.
    magnitudes = values.view(np.uint16) & np.uint16(0x7FFF)
    largest = np.float16(FLOAT16_MAX).view(np.uint16)
    if magnitudes.max(initial=0) < largest:
        return 0
    if magnitudes.max() > largest:
        raise DataError(
            f"the features of {tap} are NaN for some images: a weight of the backbone is NaN or infinite. Probe a "
            "backbone whose training did not diverge"
        )
    return int(np.count_nonzero(magnitudes == largest))


def _batch_size(most: int, pixels: int, shape: tuple[int, int, int]) -> int:
    return max(FEWEST, min(most, pixels // (shape[0] * shape[1])))


def random_backbone(backbone: keras.Model, seed: int) -> keras.Model:
    """The same architecture with random weights: the baseline that shows what training added.

    Its batch normalisations have mean 0 and variance 1, as in the authors' released code; see
    `estimate_batch_norm_statistics`.
    """
    keras.utils.set_random_seed(seed)
    copy = keras.models.clone_model(backbone)
    for layer in copy.layers:
        if layer.name == WHITENING:
            # It comes from the images, and pretraining did not change it.
            layer.set_weights(backbone.get_layer(WHITENING).get_weights())
    return copy


def estimate_batch_norm_statistics(backbone: keras.Model, dataset: Dataset, augment: Augment, seed: int) -> None:
    """Set the running statistics of a backbone's batch normalisations from training images.

    Without them the activations of untrained layers shrink from block to block, and a random baseline can look worse
    than it is.
    """
    batch = _batch_size(CALIBRATION_BATCH, CALIBRATION_PIXELS, dataset.image_shape)
    for step in range(CALIBRATION_STEPS):
        rng = np.random.default_rng((seed, step))
        rows = rng.integers(0, len(dataset.train), batch)
        backbone(center_crop(dataset.train.images(rows), augment, dataset.values), training=True)


def raw_pixels_backbone(dataset: Dataset, augment: Augment) -> keras.Model:
    """A model without weights that outputs normalised pixels under the tap `pixels`: the other baseline."""
    inputs = keras.Input((*crop_shape(augment, dataset.image_shape), dataset.image_shape[2]))
    outputs = keras.layers.Identity(name="pixels")(normalization(dataset.mean, dataset.std)(inputs))
    return keras.Model(inputs, outputs, name="pixels")
