"""Reading data sets of TensorFlow Datasets: decoded into a store, or read from their own files image by image."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.config.sections import Data, Splits
from rotnet_keras.data import decoding
from rotnet_keras.data.crops import Fit, fit_of
from rotnet_keras.data.fingerprints import combined, file_digests
from rotnet_keras.data.sources import TfdsSource, resolve_splits
from rotnet_keras.data.stores import NAMED, Decoded, Progress, Split, Store, decode_and_store, place_of
from rotnet_keras.data.tfds_metadata import check_metadata, check_shards
from rotnet_keras.data.tfrecords import FILES_AT_ONCE, RECORDS_IN_TURN, RecordImages, open_records
from rotnet_keras.engine import tf
from rotnet_keras.errors import DataError
from rotnet_keras.text import first_few

# The names of the features that hold image and label; None without labels.
Keys = tuple[str, str | None]


def read_tfds(
    source: TfdsSource, data: Data, kept: dict[str, str], progress: Progress, notes: list[str]
) -> tuple[dict[str, Split], list[str], bool, str, Callable[[], str]]:
    """Read the splits and class names of a data set, its fingerprint, and a function for that of earlier versions.

    The third value is whether images are resampled, or are not stored exactly.

    Args:
        kept: where each split's decoded images are kept, as an earlier start chose; receives the other choices.
        notes: receives a sentence about records that cannot be read and are skipped.

    Raises:
        DataError: the data set is missing, or has no images.
    """
    import tensorflow_datasets as tfds

    builder, info = open_builder(source)
    image_key = next((k for k, f in info.features.items() if isinstance(f, tfds.features.Image)), None)
    if image_key is None:
        raise DataError(f"data.name: {source.name!r} has no images; its features are {', '.join(info.features)}")
    label_key = next((k for k, f in info.features.items() if isinstance(f, tfds.features.ClassLabel)), None)
    if len(info.features[image_key].shape) != 3:
        raise DataError(
            f"data.name: the images of {source.name!r} have the shape {info.features[image_key].shape}: expected "
            "height, width and channels"
        )
    height, width, channels = info.features[image_key].shape
    fit = fit_of(data, None if height is None or width is None else (height, width))
    if fit is None:
        raise DataError(f"data.name: the images of {source.name!r} have no common size; set data.size")
    if not info.features[image_key].dtype == np.uint8:
        raise DataError(
            f"data.name: the images of {source.name!r} have values of the type {info.features[image_key].dtype}, and "
            "of TensorFlow Datasets only bytes are read: save them as files or as an .npz file, whose values are kept"
        )
    shape = (*fit.shape, data.channels or channels or 3)
    splits = {}
    for split, name in tfds_splits(info, data.splits).items():
        count = info.splits[name].num_examples
        key = _cache_key(info, name, progress)
        cache = place_of(split, count, shape, data, kept)
        store: Store
        bad: list[str] = []
        if cache == "none":
            options = {"fit": fit, "channels": shape[2], "whole": data.whole, "report": notes.append}
            store, labels = open_split_records(info, name, (image_key, label_key), options, progress, bad)
        else:
            decoded = partial(_decode_split, builder, name, (image_key, label_key), fit, shape[2], count, progress)
            cache_key = f"{key}-{fit.key()}-{shape[2]}-{decoding.DECODER}"
            store, labels, unread = decode_and_store(count, shape, decoded, cache, cache_key)
            bad = [f"number {number:,} ({why})" for number, why in unread]
        if bad:
            reasons = first_few(bad, NAMED, "; ")
            notes.append(f"{len(bad):,} {name} records cannot be read and are skipped: {reasons}")
        splits[split] = Split(store, np.arange(store.shape[0]), labels if label_key else None)
    class_names = list(info.features[label_key].names) if label_key else []
    sizes = [len(split) for split in splits.values()]
    resampled = (height, width, channels) != shape or builder.info.features[image_key]._encoding_format == "jpeg"
    return splits, class_names, resampled, *fingerprints(info, tfds_splits(info, data.splits).values(), sizes, progress)


def open_builder(source: TfdsSource) -> tuple[Any, Any]:
    """Return the builder of a data set and its `DatasetInfo`; download the data set if it may be.

    Raises:
        DataError: the data set is not there, or its metadata name code or files that are none of its own.
    """
    check_metadata(source.data_dir, source.name)
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(source.name, data_dir=str(source.data_dir))
        if source.download:
            builder.download_and_prepare()
        return builder, builder.info
    except Exception as error:  # It raises many types; each message says what is missing.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"data.name: TensorFlow Datasets cannot open {source.name!r}: {reason}") from None


def tfds_splits(info: Any, wanted: Splits) -> dict[str, str]:
    """Return the data set's split to use for each of train, validation and test; without test, validation is the test.

    Raises:
        DataError: there is no split of a name that the recipe gives.
    """
    chosen = {"train": "train", "validation": "validation", "test": "test"}
    if "test" not in info.splits:
        chosen = {"train": "train", "test": "validation"}
    chosen = resolve_splits({split: name for split, name in chosen.items() if name in info.splits}, wanted)
    for split, name in chosen.items():
        try:
            info.splits[name]
        except (KeyError, ValueError):
            raise DataError(
                f"data.splits.{split}: expected one of {', '.join(info.splits)}, or a slice, got {name!r}"
            ) from None
        check_shards(info, name)
    if "train" not in chosen:
        there = ", ".join(info.splits) or "nothing"
        raise DataError(f"data.splits.train: {info.full_name} has no split train; set one of those there: {there}")
    return chosen


def fingerprints(
    info: Any, names: Iterable[str], sizes: Iterable[int], progress: Progress
) -> tuple[str, Callable[[], str]]:
    """Return a fingerprint that changes when a file of the splits does, and a function for that of earlier versions.

    Args:
        names: the splits of the data set, or slices of them.
        sizes: the number of images that are used of each.
        progress: called now and then while files are read.
    """
    old = f"tfds:{info.full_name}:{'+'.join(map(str, sizes))}"
    contents = combined("", ((_cache_key(info, name, progress), b"") for name in names))
    return f"tfds-2{old.removeprefix('tfds')}{contents}", lambda: old


def _cache_key(info: Any, name: str, progress: Progress) -> str:
    """Return a key that differs after the files of a split, or of a slice of it, have changed."""
    files = [Path(part.filename) for part in info.splits[name].file_instructions]
    digests = file_digests(files[0].parent, [file.name for file in files], progress) if files else ()
    entries = ((f"{name}\0{file.name}", digest.tobytes()) for file, digest in zip(files, digests, strict=True))
    return combined(f"{info.full_name}-{name}", entries)


def _decode_split(
    builder: Any, name: str, keys: Keys, fit: Fit, channels: int, count: int, progress: Progress
) -> Iterator[Decoded]:
    """Yield the central part and the label of every example of a split, in order.

    Images of 8 bits are decoded as files are. Those with other values or channels, only TensorFlow Datasets knows how.
    """
    import tensorflow_datasets as tfds

    image_key, label_key = keys
    feature = builder.info.features[image_key]
    usual = feature.dtype == np.uint8 and channels in (1, 3) and feature.shape[2] in (1, 3, None)
    decoders = {image_key: tfds.decode.SkipDecoding()} if usual else None

    def read(image: np.ndarray | bytes) -> np.ndarray | str:
        if isinstance(image, np.ndarray):
            return decoding.convert_channels(decoding.resize_array(image, fit), channels)
        try:
            return decoding.read_image(BytesIO(image), fit, channels)
        except decoding.UnreadableImage as error:
            return str(error)

    in_turn = tfds.ReadConfig(
        interleave_cycle_length=_files_at_once(builder.info), interleave_block_length=RECORDS_IN_TURN
    )
    stream = iter(tfds.as_numpy(builder.as_dataset(split=name, read_config=in_turn, decoders=decoders)))
    done = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := _next_examples(stream, f"{builder.info.full_name}, {name}"):
            for example, pixels in zip(chunk, pool.map(read, (example[image_key] for example in chunk)), strict=True):
                yield pixels, int(example[label_key]) if label_key else -1
            done += len(chunk)
            progress("reading images", done, count)


def _next_examples(stream: Iterator[dict[str, Any]], what: str) -> list[dict[str, Any]]:
    """Return the next examples; none at the end.

    Raises:
        DataError: a record is damaged.
    """
    try:
        return list(islice(stream, 256))
    except tf.errors.OpError as error:
        reason = (str(error.message).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{what}: a record cannot be read: {reason}. Prepare the data set again, or set data.cache=none, which "
            "skips such records"
        ) from None


def open_split_records(
    info: Any, name: str, keys: Keys, options: dict[str, Any], progress: Progress, bad: list[str]
) -> tuple[RecordImages, np.ndarray]:
    """Open a split whose examples stay in their files, and read its labels.

    Args:
        name: of the split, or a slice of it.
        options: the arguments of `LazyImages` other than the shapes.
        bad: receives the reason for each record that cannot be used.

    Raises:
        DataError: the files are not TFRecord files.
    """
    if info.file_format.value != "tfrecord":
        kind = info.file_format.value
        raise DataError(
            f"data.cache: {info.full_name} has {kind} files, which need a decoded copy: set data.cache=disk"
        )
    parts = [(Path(part.filename), part.skip, part.examples_in_shard - part.skip if part.take < 0 else part.take)
             for part in info.splits[name].file_instructions]  # fmt: skip
    report = partial(progress, f"reading the headers of {name} images")
    store, labels, unread = open_records(
        parts, *keys, _cache_key(info, name, progress), report, _files_at_once(info), **options
    )
    bad += unread
    return store, labels


def _files_at_once(info: Any) -> int:
    """Return how many files are read in turn: one after another if the data set was prepared without shuffling."""
    return 1 if info.disable_shuffling else FILES_AT_ONCE
