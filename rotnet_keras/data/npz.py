"""Reading arrays and tfds data sets into splits."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.config.sections import Data, Splits
from rotnet_keras.data import decoding
from rotnet_keras.data.sources import ARRAY_NAMES, ArraySource, TfdsSource, asked_for
from rotnet_keras.data.stores import Decoded, Split, Store, cache_for, store_images
from rotnet_keras.data.tfrecords import FILES_AT_ONCE, RECORDS_IN_TURN, RecordImages, open_records
from rotnet_keras.errors import DataError

# (what, done, total): called now and then during long work; may raise to stop it.
Progress = Callable[[str, int, int], None]
# The features that hold image and label.
Keys = tuple[str, str | None]
# More classes than images are a mistake, and tables of so many would not fit into memory.
MANY_CLASSES = 1000
# So many of the images that cannot be read are named.
NAMED = 20


def read_arrays(source: ArraySource, data: Data, notes: list[str]) -> tuple[dict[str, Split], list[str]]:
    """The splits in an `.npz` file and its class names; what was done to the values goes to `notes`."""
    if data.whole:
        raise DataError("data.whole: an array has no image beyond its own square; leave it out")
    found: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
    try:
        with np.load(source.path, allow_pickle=False) as archive:
            for split, names in ARRAY_NAMES.items():
                for x, y in names:
                    if x in archive and split not in found:
                        found[split] = archive[x], archive.get(y)
            class_names = [str(name) for name in archive["class_names"]] if "class_names" in archive else []
            present = ", ".join(archive.files)
    except Exception as error:  # A damaged archive raises zip, zlib, value and end-of-file errors.
        raise DataError(f"{source.path}: cannot be read: {error}") from None
    if "train" not in found:
        raise DataError(f"{source.path}: no array x_train, train_images, images or x; it holds: {present}")
    scale = _pixel_scale(found["train"][0], notes)
    splits = {}
    for split, (pixels, labels) in found.items():
        if pixels.ndim == 3:
            pixels = pixels[..., None]
        if pixels.ndim != 4 or not len(pixels):
            raise DataError(f"{source.path}: {split} images: expected (N, H, W, C), got {pixels.shape}")
        if labels is not None:
            labels = _integer_labels(labels, len(pixels), f"{source.path}: {split} labels")
        store = _square_store(scale(pixels), data, source.path)
        splits[split] = Split(store, np.arange(len(store)), labels)
    if len({split.store.shape[1:] for split in splits.values()}) > 1:
        shapes = ", ".join(f"{name} {split.store.shape[1:]}" for name, split in splits.items())
        raise DataError(f"{source.path}: the splits differ in shape ({shapes}): set data.size and data.channels")
    known = max((int(split.labels.max()) + 1 for split in splits.values() if split.labels is not None), default=0)
    if class_names and known > len(class_names):
        raise DataError(f"{source.path}: labels go up to {known - 1}, class_names has {len(class_names)}")
    labelled = sum(len(split) for split in splits.values() if split.labels is not None)
    if not class_names and known > max(MANY_CLASSES, labelled):
        raise DataError(
            f"{source.path}: labels go up to {known - 1}, for {labelled} images: expected the numbers of classes, from "
            "0 on without large gaps; numpy.unique(labels, return_inverse=True)[1] makes such of any labels"
        )
    return splits, (class_names or [str(i) for i in range(known)]) if known else []


def _pixel_scale(train: np.ndarray, notes: list[str]) -> Callable[[np.ndarray], np.ndarray]:
    """How this file's values become uint8; decided on the training images, the same for every split."""
    if train.dtype == np.uint8:
        return lambda pixels: pixels
    if train.dtype.kind not in "iufb" or not train.size:
        raise DataError(f"data.name: pixels of type {train.dtype} are not images")
    low, high = float(np.nanmin(train)), float(np.nanmax(train))
    if not np.isfinite([low, high]).all():
        raise DataError("data.name: the training images hold infinite values")
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    notes.append(f"pixel values are scaled from [{low:g}, {high:g}] to [0, 255]; scale yours alike for the export")

    def scale(pixels: np.ndarray) -> np.ndarray:
        share = (pixels.astype(np.float32) - low) / max(high - low, 1e-12)
        return np.round(255 * np.clip(np.nan_to_num(share), 0, 1)).astype(np.uint8)

    return scale


def _integer_labels(labels: np.ndarray, count: int, what: str) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise DataError(f"{what}: expected {count} class numbers from 0 on, got {labels.dtype} {labels.shape}")
    return labels.astype(np.int64)


def _square_store(pixels: np.ndarray, data: Data, path: Path) -> np.ndarray:
    height, width, channels = pixels.shape[1:]
    wanted = data.channels if data.channels and channels in (1, 3) else channels
    if data.channels and wanted != data.channels:
        raise DataError(f"{path}: {channels} channels cannot become {data.channels}: leave data.channels out")
    if data.size is None and height != width:
        raise DataError(
            f"{path}: images of {height} x {width} pixels are not square: set data.size to resize and cut them"
        )
    size = data.size or height
    if (height, width) == (size, size) and wanted == channels:
        return pixels
    return np.stack([decoding.match_channels(decoding.square_array(p, size), wanted) for p in pixels])


def read_tfds(
    source: TfdsSource, data: Data, progress: Progress, notes: list[str]
) -> tuple[dict[str, Split], list[str], str]:
    """The splits of a tfds data set, its class names, and its fingerprint; what cannot be read goes to `notes`."""
    import tensorflow_datasets as tfds

    builder, info = open_builder(source)
    image_key = next((k for k, f in info.features.items() if isinstance(f, tfds.features.Image)), None)
    if image_key is None:
        raise DataError(f"data.name: {source.name!r} has no image feature; it has {', '.join(info.features)}")
    label_key = next((k for k, f in info.features.items() if isinstance(f, tfds.features.ClassLabel)), None)
    height, width, channels = info.features[image_key].shape
    size = data.size or (height if height == width else None)
    if size is None:
        raise DataError(f"data.name: the images of {source.name!r} are not all one square: set data.size")
    shape = (size, size, data.channels or channels or 3)
    splits = {}
    for split, name in chosen_splits(info, data.splits).items():
        count = info.splits[name].num_examples
        key = _key(info, name)
        cache = "none" if data.whole else cache_for(count, shape, data.cache)
        store: Store
        if cache == "none":
            bad: list[str] = []
            options = {"size": size, "channels": shape[2], "whole": data.whole, "report": notes.append}
            store, labels = left_in_files(info, name, (image_key, label_key), options, progress, bad)
            if bad:
                more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
                notes.append(
                    f"{len(bad)} {name} records cannot be read and are skipped: {'; '.join(bad[:NAMED])}{more}"
                )
        else:
            decoded = partial(_decoded, builder, name, (image_key, label_key), shape, count, progress)
            store, labels, _ = store_images(count, shape, decoded, cache, f"{key}-{size}-{shape[2]}")
        splits[split] = Split(store, np.arange(store.shape[0]), labels if label_key else None)
    class_names = list(info.features[label_key].names) if label_key else []
    sizes = "+".join(str(len(split)) for split in splits.values())
    return splits, class_names, f"tfds:{info.full_name}:{sizes}"


def some(reasons: Sequence[str]) -> str:
    """The first reasons of many."""
    return "; ".join(reasons[:NAMED]) + (f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else "")


def open_builder(source: TfdsSource) -> tuple[Any, Any]:
    """tfds's builder of a data set, and what it knows of it.

    Raises:
        DataError: it is not there.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(source.name, data_dir=str(source.data_dir))
        if source.download:
            builder.download_and_prepare()
        return builder, builder.info
    except Exception as error:  # tfds raises many types; each message says what is missing.
        raise DataError(f"data.name: tfds cannot open {source.name!r}: {str(error).splitlines()[0]}") from None


def chosen_splits(info: Any, wanted: Splits) -> dict[str, str]:
    """Which tfds split serves as which; where there is no test split, validation is the test.

    Raises:
        DataError: there is none of that name.
    """
    chosen = {"train": "train", "validation": "validation", "test": "test"}
    if "test" not in info.splits:
        chosen = {"train": "train", "test": "validation"}
    chosen = asked_for({split: name for split, name in chosen.items() if name in info.splits}, wanted)
    for split, name in chosen.items():
        try:
            info.splits[name]
        except (KeyError, ValueError):
            raise DataError(f"data.splits.{split}: {name!r} is none of {', '.join(info.splits)}") from None
    return chosen


def _key(info: Any, name: str) -> str:
    """Tells the files of a split from those of another copy of the data set, and from what stood there before."""
    files = [Path(part.filename) for part in info.splits[name].file_instructions]
    facts = [(str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return f"{info.full_name}-{name}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:12]}"


def _decoded(
    builder: Any, name: str, keys: Keys, shape: tuple[int, int, int], count: int, progress: Progress
) -> Iterator[Decoded]:
    """All examples of a split in order, their central squares."""
    import tensorflow_datasets as tfds

    image_key, label_key = keys
    in_turn = tfds.ReadConfig(
        interleave_cycle_length=_files_at_once(builder.info), interleave_block_length=RECORDS_IN_TURN
    )
    stream = iter(tfds.as_numpy(builder.as_dataset(split=name, read_config=in_turn)))
    done = 0
    while chunk := list(islice(stream, 256)):
        for example in chunk:
            image = decoding.square_array(example[image_key], shape[0])
            yield decoding.match_channels(image, shape[2]), int(example[label_key]) if label_key else -1
        done += len(chunk)
        progress("reading images", done, count)


def left_in_files(
    info: Any, name: str, keys: Keys, options: dict[str, Any], progress: Progress, bad: list[str]
) -> tuple[RecordImages, np.ndarray]:
    """A split whose examples are left in their files, and its labels.

    Args:
        options: those of `EncodedImages`, but for the shapes.
        bad: what is wrong with records that cannot be used is added here.

    Raises:
        DataError: they are in no TFRecord files.
    """
    if info.file_format.value != "tfrecord":
        kind = info.file_format.value
        raise DataError(f"data.cache: {info.full_name} is in {kind} files, of which only a copy can be used: 'disk'")
    parts = [(Path(part.filename), part.skip, part.examples_in_shard - part.skip if part.take < 0 else part.take)
             for part in info.splits[name].file_instructions]  # fmt: skip
    looked = partial(progress, f"looking at {name} images")
    store, labels, unread = open_records(parts, *keys, _key(info, name), looked, _files_at_once(info), **options)
    bad += unread
    return store, labels


def _files_at_once(info: Any) -> int:
    """How many files of a data set are read in turn: one, in order, where tfds was asked not to shuffle it."""
    return 1 if info.disable_shuffling else FILES_AT_ONCE
