"""Counting the training images of a data set without decoding any."""

import ast
import json
import struct
import zipfile

from rotnet_keras.config.sections import AnnotatedData, Data
from rotnet_keras.data.listing.sources import ListedSource
from rotnet_keras.data.sources import (
    ARRAY_NAMES,
    ArraySource,
    TfdsSource,
    VocSource,
    find_annotated,
    find_source,
)

# The first bytes of an .npy file: magic string, major and minor version.
PREFIX = struct.Struct("<6sBB")


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
    except (OSError, ValueError, KeyError, SyntaxError, struct.error, zipfile.BadZipFile):
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
        train = _first_dimension(archive, f"{images}.npy")
    return _without_held_out(train, set(present), labels in names, data.validation)


def _first_dimension(archive: zipfile.ZipFile, member: str) -> int:
    """Return the length of an array that the header of an .npy file states."""
    with archive.open(member) as file:
        _, major, _ = PREFIX.unpack(file.read(PREFIX.size))
        (length,) = struct.unpack("<H", file.read(2)) if major == 1 else struct.unpack("<I", file.read(4))
        return int(ast.literal_eval(file.read(length).decode("latin-1"))["shape"][0])


def _count_in_tfds(source: TfdsSource, data: Data) -> int | None:
    infos = sorted(source.data_dir.glob(f"{source.name.split(':')[0]}/**/dataset_info.json"))
    if len(infos) != 1 or data.splits.model_dump(exclude_none=True):
        return None
    splits = json.loads(infos[0].read_text(encoding="utf-8"))["splits"]
    counts = {split["name"]: sum(map(int, split["shardLengths"])) for split in splits}
    present = {"train", "test"} if "test" not in counts and "validation" in counts else set(counts)
    return _without_held_out(counts["train"], present, True, data.validation)
