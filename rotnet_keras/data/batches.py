"""Batches as a function of (seed, step): which images, which crops, which flips.

Nothing here keeps a state, so a run that is resumed at a step sees what it would have seen anyway.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from rotnet_keras.config.sections import Augment
from rotnet_keras.data.crops import anywhere, resized
from rotnet_keras.data.decoding import cut_array
from rotnet_keras.data.lazy_images import EncodedImages
from rotnet_keras.data.stores import Split
from rotnet_keras.engine import tf

PARALLEL_LOADS = 2
# Of an array, without its number of rows: shape and type.
Spec = tuple[tuple[int, ...], tf.DType]
WEIGHTS: Spec = ((), tf.float32)
# The arrays of a batch: of positions in the data set, what is drawn for all of them, and which of them are wanted.
Make = Callable[[np.ndarray, np.random.Generator, np.ndarray | slice], list[np.ndarray]]
# Of crops of random size: 4/3 and 3/4, as in the Inception papers and the released code.
MOST_ASPECT = 4 / 3


def crop_size(augment: Augment, image_size: int) -> int:
    """Side in pixels of what the network sees before rotation."""
    return augment.crop or image_size


def augmented(
    split: Split,
    positions: np.ndarray,
    augment: Augment,
    rng: np.random.Generator,
    part: np.ndarray | slice = slice(None),
) -> np.ndarray:
    """Pad, crop and mirror images at random, all before any rotation, as the released code does.

    Args:
        positions: (N,) of the images in the split.
        part: which M of them are wanted; they come out the same as among all.

    Returns:
        (M, T, T, C) uint8, T = `crop_size`.
    """
    crops = _crops(split, positions, augment, rng, part)
    flips = (rng.random(len(positions)) < (0.5 if augment.flip else 0.0))[part]
    crops[flips] = crops[flips, :, ::-1]
    return crops


def _crops(
    split: Split, positions: np.ndarray, augment: Augment, rng: np.random.Generator, part: np.ndarray | slice
) -> np.ndarray:
    size, pad, store = crop_size(augment, split.store.shape[1]), augment.pad, split.store
    rows = split.rows[positions]
    if isinstance(store, EncodedImages) and not pad:
        frames = store.frames(rows)
        boxes = resized(frames, augment.area, MOST_ASPECT, rng) if augment.area else anywhere(frames, size, rng)
        return store.cut(rows[part], boxes[part], size)
    images = split.images(positions[part])
    if augment.area:
        frames = np.tile([0.0, 0.0, *images.shape[1:3]], (len(positions), 1))
        boxes = resized(frames, augment.area, MOST_ASPECT, rng)[part]
        cuts = zip(images, boxes.tolist(), strict=True)
        return np.stack([cut_array(image, images.shape[1], tuple(box), size) for image, box in cuts])
    corners = rng.integers(0, store.shape[1] + 2 * pad - size + 1, (len(positions), 2))[part]
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    return windows[np.arange(len(images)), corners[:, 0], corners[:, 1]].transpose(0, 2, 3, 1)


def centred(images: np.ndarray, augment: Augment) -> np.ndarray:
    """The central crop that evaluation uses: (N, T, T, C) uint8."""
    size = crop_size(augment, images.shape[1])
    if size > images.shape[1]:
        pad = -(-(size - images.shape[1]) // 2)
        images = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    start = (images.shape[1] - size) // 2
    return images[:, start : start + size, start : start + size]


def positions_of_step(count: int, batch: int, seed: int, step: int) -> np.ndarray:
    """Which of `count` images step `step` uses: each once per epoch, in an order of the epoch's own."""
    epoch, within = divmod(step, -(-count // batch))
    return _order(count, seed, epoch)[within * batch : (within + 1) * batch]


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


@dataclass(frozen=True)
class Replicas:
    """Which replicas of a training take their images here: those numbered `here`, of `count`."""

    here: range
    count: int


def shared_batches(
    count: int,
    make: Make,
    specs: Sequence[Spec | None],
    *,
    batch: int,
    seed: int,
    first: int,
    last: int,
    replicas: Replicas | None = None,
) -> tf.data.Dataset:
    """The batches of the steps from `first` up to, without, `last`, of data that has `count` of something.

    Args:
        make: gives the arrays of a batch.
        specs: of these; None for what is not there.
        replicas: who shares the batches. Then every step gives as many elements as there are replicas here, each with
            weights, (N,) float32, behind it; they make the mean of the replicas' mean losses that of the whole batch.
    """

    def fetch(step: int) -> list[np.ndarray]:
        positions = positions_of_step(count, batch, seed, step)
        return make(positions, np.random.default_rng((seed, 1, step)), slice(None))

    def fetch_part(number: int) -> list[np.ndarray]:
        assert replicas is not None
        step, which = divmod(number, len(replicas.here))
        positions = positions_of_step(count, batch, seed, step)
        part = np.arange(replicas.here[which], len(positions), replicas.count)
        weight = len(part) * replicas.count / len(positions)
        # A replica without an image is given one that counts nothing.
        part = part if len(part) else np.zeros(1, np.int64)
        arrays = make(positions, np.random.default_rng((seed, 1, step)), part)
        return [*arrays, np.full(len(part), weight, np.float32)]

    if replicas is None:
        return numbered_batches(tf.data.Dataset.range(first, last), fetch, specs)
    each = len(replicas.here)
    return numbered_batches(tf.data.Dataset.range(first * each, last * each), fetch_part, [*specs, WEIGHTS])


def training_images(
    split: Split,
    augment: Augment,
    *,
    batch: int,
    seed: int,
    first: int,
    last: int,
    labelled: bool = False,
    replicas: Replicas | None = None,
) -> tf.data.Dataset:
    """Augmented, unrotated images of the steps from `first` up to, without, `last`: (N, T, T, C) uint8.

    Args:
        labelled: their labels, (N,) int64, beside them.
        replicas: see `shared_batches`. Labels are None there if they are not asked for.
    """
    labels = split.required_labels() if labelled else None

    def make(positions: np.ndarray, rng: np.random.Generator, part: np.ndarray | slice) -> list[np.ndarray]:
        images = augmented(split, positions, augment, rng, part)
        return [images] if labels is None else [images, labels[positions[part]]]

    specs = _specs(split, augment, labels)
    if replicas and not labelled:
        specs.append(None)
    steps = {"batch": batch, "seed": seed, "first": first, "last": last}
    return shared_batches(len(split), make, specs, replicas=replicas, **steps)


def evaluation_images(
    split: Split, augment: Augment, *, batch: int, view: tuple[int, int] | None = None, labelled: bool = False
) -> tf.data.Dataset:
    """All images of a split in order: (N, T, T, C) uint8.

    Args:
        view: (seed, number) of a random crop and flip of each image; the central crop when not given.
        labelled: their labels, (N,) int64, beside them.
    """
    labels = split.required_labels() if labelled else None

    def fetch(first: int) -> list[np.ndarray]:
        positions = np.arange(first, min(first + batch, len(split)))
        if view is None:
            images = centred(split.images(positions), augment)
        else:
            images = augmented(split, positions, augment, np.random.default_rng((*view, first)))
        return [images] if labels is None else [images, labels[positions]]

    return numbered_batches(tf.data.Dataset.range(0, len(split), batch), fetch, _specs(split, augment, labels))


def pipeline(steps: tf.data.Dataset, load: Callable[[tf.Tensor], Any]) -> tf.data.Dataset:
    """Batches that `load` makes of step numbers: in order, two at a time, a few ahead of their use.

    Nothing is left to tf.data's autotuning, whose thread would be waited for, for seconds, whenever an
    iterator is given up.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    # Loading may call TensorFlow itself, and would wait for ever for threads that all wait for it.
    options.threading.private_threadpool_size = PARALLEL_LOADS
    batches = steps.map(load, num_parallel_calls=PARALLEL_LOADS, deterministic=True).prefetch(4)
    return batches.with_options(options)


def numbered_batches(
    numbers: tf.data.Dataset, fetch: Callable[[int], list[np.ndarray]], specs: Sequence[Spec | None]
) -> tf.data.Dataset:
    """Batches of the arrays that `fetch` gives for numbers; a single one by itself, several as a tuple.

    Args:
        specs: of the arrays, without their number of rows; None for what is not there.
    """
    known = [spec for spec in specs if spec is not None]

    def load(number: tf.Tensor) -> Any:
        types = [dtype for _, dtype in known]
        arrays = tf.numpy_function(lambda n: fetch(int(n)), [number], types, stateful=False)
        there = iter(tf.ensure_shape(array, (None, *shape)) for array, (shape, _) in zip(arrays, known, strict=True))
        found = tuple(None if spec is None else next(there) for spec in specs)
        return found if len(found) > 1 else found[0]

    return pipeline(numbers, load)


def _specs(split: Split, augment: Augment, labels: np.ndarray | None) -> list[Spec | None]:
    size, channels = crop_size(augment, split.store.shape[1]), split.store.shape[3]
    of_labels: list[Spec] = [] if labels is None else [(labels.shape[1:], tf.int64)]
    return [((size, size, channels), tf.uint8), *of_labels]
