"""Counting the training images of a data set without decoding any."""

import zipfile
import zlib

from rotnet_keras.config.sections import AnnotatedData, Data
from rotnet_keras.data.listing.sources import ListedSource
from rotnet_keras.data.npz import read_array_header
from rotnet_keras.data.sources import (
    ARRAY_NAMES,
    ArraySource,
    TfdsSource,
    VocSource,
    find_annotated,
    find_source,
)
from rotnet_keras.data.tfds_metadata import MOST_BYTES
from rotnet_keras.files import read_json

# What reading a damaged archive, or metadata of another form, raises; a DataError is none of them.
DAMAGED = (OSError, ValueError, LookupError, TypeError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)


def count_training_images(data: Data) -> int | None:
    """Return the number of images left for training beside validation and test; None if only loading can tell.

    Unreadable image files are counted as well: only decoding finds them.

    Raises:
        DataError: the data are missing.
    """
    source = find_source(data)
    try:
        if isinstance(source, ListedSource):
            train = len(source.splits["train"])
            return _without_held_out(train, set(source.splits), bool(source.class_names), data.validation)
        if isinstance(source, ArraySource):
            return _count_in_arrays(source, data)
        return _count_in_tfds(source, data)
    except DAMAGED:
        return None


def count_annotated_images(data: AnnotatedData, masks: bool) -> int | None:
    """Return the number of training images of annotated data; None if only loading can tell.

    Args:
        data: the recipe's section `[data]`.
        masks: whether images with masks are counted, not those with boxes.

    Raises:
        DataError: the data are missing.
    """
    source = find_annotated(data)
    return len(source.image_names(data, masks)["train"]) if isinstance(source, VocSource) else None


def _without_held_out(train: int, present: set[str], labelled: bool, share: float) -> int:
    held_out = round(share * train)
    missing = ("validation" not in present) + ("test" not in present and labelled)
    return max(0, train - held_out * missing)


def _count_in_arrays(source: ArraySource, data: Data) -> int | None:
    with zipfile.ZipFile(source.path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
        present = {split: pair for split, pairs in ARRAY_NAMES.items() for pair in reversed(pairs) if pair[0] in names}
        images, labels = present["train"]
        shape, _ = read_array_header(archive, f"{images}.npy")
        train = shape[0]
    return _without_held_out(train, set(present), labels in names, data.validation)


def _count_in_tfds(source: TfdsSource, data: Data) -> int | None:
    infos = sorted(source.data_dir.glob(f"{source.name.split(':')[0]}/**/dataset_info.json"))
    if len(infos) != 1 or data.splits.model_dump(exclude_none=True):
        return None
    splits = read_json(infos[0], MOST_BYTES)["splits"]
    counts = {split["name"]: sum(map(int, split["shardLengths"])) for split in splits}
    present = {"train", "test"} if "test" not in counts and "validation" in counts else set(counts)
    return _without_held_out(counts["train"], present, True, data.validation)
