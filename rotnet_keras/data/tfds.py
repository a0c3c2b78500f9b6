"""Data sets that TensorFlow Datasets has prepared: copied into a store, or read where they lie."""

import hashlib
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.config.sections import Data, Splits
from rotnet_keras.data import decoding
from rotnet_keras.data.sources import TfdsSource, asked_for
from rotnet_keras.data.stores import NAMED, Decoded, Progress, Split, Store, cache_for, store_images
from rotnet_keras.data.tfrecords import FILES_AT_ONCE, RECORDS_IN_TURN, RecordImages, open_records
from rotnet_keras.errors import DataError
from rotnet_keras.text import first_few

# The features that hold image and label.
Keys = tuple[str, str | None]


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
                reasons = first_few(bad, NAMED, "; ")
                notes.append(f"{len(bad):,} {name} records cannot be read and are skipped: {reasons}")
        else:
            decoded = partial(_decoded, builder, name, (image_key, label_key), shape, count, progress)
            store, labels, _ = store_images(count, shape, decoded, cache, f"{key}-{size}-{shape[2]}")
        splits[split] = Split(store, np.arange(store.shape[0]), labels if label_key else None)
    class_names = list(info.features[label_key].names) if label_key else []
    sizes = "+".join(str(len(split)) for split in splits.values())
    return splits, class_names, f"tfds:{info.full_name}:{sizes}"


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
