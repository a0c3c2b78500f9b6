"""Batches of images as a function of seed and step: the order of the images, their crops and flips.

Nothing here keeps a state, so that a resumed run sees the batches that it would have seen without the interruption.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from rotnet_keras.config.sections import Augment
from rotnet_keras.data.crops import Fit, random_crops, random_resized_crops
from rotnet_keras.data.decoding import crop_array
from rotnet_keras.data.lazy_images import LazyImages
from rotnet_keras.data.stores import Split
from rotnet_keras.data.values.ranges import ValueRange
from rotnet_keras.engine import tf

PARALLEL_LOADS = 2
# Shape, without the number of rows, and type of an array of a batch.
Spec = tuple[tuple[int, ...], tf.DType]
SAMPLE_WEIGHTS: Spec = ((), tf.float32)
# Makes the arrays of a batch from the positions of its images, a random generator, and the part of the batch to return.
MakeArrays = Callable[[np.ndarray, np.random.Generator, np.ndarray | slice], list[np.ndarray]]
# Aspect ratios of random-resized crops are from 3/4 to 4/3, as in the Inception papers and the released code.
MAX_ASPECT = 4 / 3


def crop_shape(augment: Augment, image_shape: Sequence[int]) -> tuple[int, int]:
    """Return height and width in pixels of the images that are rotated and given to the model."""
    return Fit.of(augment.crop or tuple(image_shape[:2])).shape


def load_augmented(
    split: Split,
    positions: np.ndarray,
    augment: Augment,
    rng: np.random.Generator,
    part: np.ndarray | slice = slice(None),
) -> np.ndarray:
    """Load images and pad, crop and flip them at random, before any rotation, as the released code does.

    Args:
        positions: (N,) of the images in the split.
        part: the M of the N images to return; they are the same as if all were returned.

    Returns:
        (M, H, W, C) in the type of the images, with `crop_shape`.
    """
    crops = _load_crops(split, positions, augment, rng, part)
    flips = (rng.random(len(positions)) < (0.5 if augment.flip else 0.0))[part]
    crops[flips] = crops[flips, :, ::-1]
    return crops


def _load_crops(
    split: Split, positions: np.ndarray, augment: Augment, rng: np.random.Generator, part: np.ndarray | slice
) -> np.ndarray:
    pad, store = augment.pad, split.store
    size = crop_shape(augment, store.shape[1:])
    tall, wide = size
    rows = split.rows[positions]
    if isinstance(store, LazyImages) and not pad:
        frames = store.frames(rows)
        if augment.area:
            boxes = random_resized_crops(frames, augment.area, MAX_ASPECT, rng, wide / tall)
        else:
            boxes = random_crops(frames, size, rng)
        return store.crops(rows[part], boxes[part], size)
    images = split.images(positions[part])
    if augment.area:
        frames = np.tile([0.0, 0.0, *images.shape[1:3]], (len(positions), 1))
        boxes = random_resized_crops(frames, augment.area, MAX_ASPECT, rng, wide / tall)[part]
        pairs = zip(images, boxes.tolist(), strict=True)
        return np.stack([crop_array(image, images.shape[1:3], tuple(box), size) for image, box in pairs])
    down, across = store.shape[1] + 2 * pad - tall + 1, store.shape[2] + 2 * pad - wide + 1
    # One limit for both draws other numbers than two equal ones.
    limit = down if down == across else np.array([down, across])
    corners = rng.integers(0, limit, (len(positions), 2))[part]
    padded = _padded(images, pad, pad, split.values)
    windows = np.lib.stride_tricks.sliding_window_view(padded, size, axis=(1, 2))
    return windows[np.arange(len(images)), corners[:, 0], corners[:, 1]].transpose(0, 2, 3, 1)


def center_crop(images: np.ndarray, augment: Augment, values: ValueRange | None = None) -> np.ndarray:
    """Return the central crops that evaluation uses: (N, H, W, C), see `crop_shape`.

    Args:
        values: the range of values that are no bytes.
    """
    tall, wide = crop_shape(augment, images.shape[1:])
    down, across = (max(0, -(-(a - b) // 2)) for a, b in zip((tall, wide), images.shape[1:3], strict=True))
    images = _padded(images, down, across, values)
    top, left = (images.shape[1] - tall) // 2, (images.shape[2] - wide) // 2
    return images[:, top : top + tall, left : left + wide]


def _padded(images: np.ndarray, down: int, across: int, values: ValueRange | None) -> np.ndarray:
    """Return images with borders of zeros, or of the lowest value in the range of what are no bytes."""
    if not down and not across:
        return images
    _, height, width, _ = images.shape
    padded = np.zeros((len(images), height + 2 * down, width + 2 * across, images.shape[3]), images.dtype)
    if values is not None:
        padded += np.asarray(values.low, images.dtype)
    padded[:, down : down + height, across : across + width] = images
    return padded


def positions_of_step(count: int, batch: int, seed: int, step: int) -> np.ndarray:
    """Return the positions of the images of a step: each of `count` once per epoch, in another order every epoch."""
    epoch, within = divmod(step, -(-count // batch))
    return _order(count, seed, epoch)[within * batch : (within + 1) * batch]


def whole_batch_of_step(count: int, batch: int, seed: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions (batch,) of the images of a step, and the pass over all images (batch,) that each is of.

    Each of `count` images is drawn once per pass, in another order every pass, as by `positions_of_step`. A batch goes
    on into the next pass, or into several, where one ends.
    """
    passes, within = np.divmod(np.arange(step * batch, (step + 1) * batch), count)
    orders = [_order(count, seed, number)[within[passes == number]] for number in np.unique(passes).tolist()]
    return np.concatenate(orders), passes


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


@dataclass(frozen=True)
class Replicas:
    """The replicas of a training that this process feeds.

    Attributes:
        here: their numbers.
        count: the number of replicas in all processes.
    """

    here: range
    count: int


def step_batches(
    count: int,
    make: MakeArrays,
    specs: Sequence[Spec | None],
    *,
    batch: int,
    seed: int,
    first: int,
    last: int,
    replicas: Replicas | None = None,
) -> tf.data.Dataset:
    """Return a data set of the batches of the steps from `first` up to, but without, `last`.

    Args:
        count: the number of images of the split.
        make: makes the arrays of a batch.
        specs: of these arrays; None in place of an array that is None.
        batch: images in a batch.
        seed: of the order of the images and of what is drawn for them.
        replicas: the replicas that share every batch. A step then has one element per replica of this process, with
            sample weights (N,) float32 appended: with these the mean of the replicas' mean losses is the mean loss of
            the whole batch.
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
        # A replica without an image gets one with weight zero.
        part = part if len(part) else np.zeros(1, np.int64)
        arrays = make(positions, np.random.default_rng((seed, 1, step)), part)
        return [*arrays, np.full(len(part), weight, np.float32)]

    if replicas is None:
        return _batches_of_numbers(tf.data.Dataset.range(first, last), fetch, specs)
    each = len(replicas.here)
    return _batches_of_numbers(tf.data.Dataset.range(first * each, last * each), fetch_part, [*specs, SAMPLE_WEIGHTS])


def training_batches(
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
    """Return batches (N, H, W, C) of augmented, unrotated images for the steps from `first` up to `last`.

    Args:
        batch: images in a batch, N of all but the last one of an epoch.
        seed: of the order of the images, their crops and flips.
        first: the first step.
        last: the step after the last one.
        labelled: whether to add the labels (N,) int64.
        replicas: see `step_batches`; with replicas, an element without labels has None in their place.
    """
    labels = split.required_labels() if labelled else None

    def make(positions: np.ndarray, rng: np.random.Generator, part: np.ndarray | slice) -> list[np.ndarray]:
        images = load_augmented(split, positions, augment, rng, part)
        return [images] if labels is None else [images, labels[positions[part]]]

    specs = _specs(split, augment, labels)
    if replicas and not labelled:
        specs.append(None)
    steps = {"batch": batch, "seed": seed, "first": first, "last": last}
    return step_batches(len(split), make, specs, replicas=replicas, **steps)


def evaluation_batches(
    split: Split, augment: Augment, *, batch: int, view: tuple[int, int] | None = None, labelled: bool = False
) -> tf.data.Dataset:
    """Return batches (N, H, W, C) of all images of a split in order.

    Args:
        view: (seed, number) of a random crop and flip of each image; central crops by default.
        labelled: whether to add the labels (N,) int64.
    """
    labels = split.required_labels() if labelled else None

    def fetch(first: int) -> list[np.ndarray]:
        positions = np.arange(first, min(first + batch, len(split)))
        if view is None:
            images = center_crop(split.images(positions), augment, split.values)
        else:
            images = load_augmented(split, positions, augment, np.random.default_rng((*view, first)))
        return [images] if labels is None else [images, labels[positions]]

    return _batches_of_numbers(tf.data.Dataset.range(0, len(split), batch), fetch, _specs(split, augment, labels))


def pipeline(steps: tf.data.Dataset, load: Callable[[tf.Tensor], Any]) -> tf.data.Dataset:
    """Return the batches that `load` makes of step numbers, in order, two in parallel, a few of them ahead.

    tf.data's autotuning is off: abandoning an iterator would wait for its thread, for seconds.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    # Loading may call TensorFlow itself, and would wait forever in a shared pool whose threads all wait for it.
    options.threading.private_threadpool_size = PARALLEL_LOADS
    batches = steps.map(load, num_parallel_calls=PARALLEL_LOADS, deterministic=True).prefetch(4)
    return batches.with_options(options)


def _batches_of_numbers(
    numbers: tf.data.Dataset, fetch: Callable[[int], list[np.ndarray]], specs: Sequence[Spec | None]
) -> tf.data.Dataset:
    """Return batches of the arrays that `fetch` returns for numbers: one array by itself, several as a tuple.

    Args:
        specs: of the arrays; None in place of an array that is None.
    """
    known = [spec for spec in specs if spec is not None]

    def load(number: tf.Tensor) -> Any:
        types = [dtype for _, dtype in known]
        arrays = tf.numpy_function(lambda n: fetch(int(n)), [number], types, stateful=False)
        present = iter(tf.ensure_shape(array, (None, *shape)) for array, (shape, _) in zip(arrays, known, strict=True))
        element = tuple(None if spec is None else next(present) for spec in specs)
        return element if len(element) > 1 else element[0]

    return pipeline(numbers, load)


def _specs(split: Split, augment: Augment, labels: np.ndarray | None) -> list[Spec | None]:
    shape = *crop_shape(augment, split.store.shape[1:]), split.store.shape[3]
    of_labels: list[Spec] = [] if labels is None else [(labels.shape[1:], tf.int64)]
    return [(shape, tf.as_dtype(split.store.dtype)), *of_labels]
