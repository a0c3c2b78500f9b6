"""How many images a run would train on, found without decoding one."""

import ast
import json
import struct
import zipfile

from rotnet_keras.config.sections import Data
from rotnet_keras.data.sources import ARRAY_NAMES, ArraySource, FolderSource, TfdsSource, find_source

PREFIX = struct.Struct("<6sBB")


def training_images(data: Data) -> int | None:
    """Images left for training beside validation and test; None where only the run itself can tell.

    Unreadable files of a folder are counted: decoding finds them.

    Raises:
        DataError: the data are not there.
    """
    source = find_source(data)
    try:
        if isinstance(source, FolderSource):
            train = len(source.splits["train"])
            return _left(train, set(source.splits), bool(source.class_names), data.validation)
        if isinstance(source, ArraySource):
            return _in_arrays(source, data)
        return _in_tfds(source, data)
    except (OSError, ValueError, KeyError, SyntaxError, struct.error, zipfile.BadZipFile):
        return None


def _left(train: int, present: set[str], labelled: bool, share: float) -> int:
    held_out = round(share * train)
    missing = ("validation" not in present) + ("test" not in present and labelled)
    return max(0, train - held_out * missing)


def _in_arrays(source: ArraySource, data: Data) -> int | None:
    with zipfile.ZipFile(source.path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
        present = {split: pair for split, pairs in ARRAY_NAMES.items() for pair in reversed(pairs) if pair[0] in names}
        images, labels = present["train"]
        train = _first_dimension(archive, f"{images}.npy")
    return _left(train, set(present), labels in names, data.validation)


def _first_dimension(archive: zipfile.ZipFile, member: str) -> int:
    """The number of rows that an .npy file's header states."""
    with archive.open(member) as file:
        _, major, _ = PREFIX.unpack(file.read(PREFIX.size))
        (length,) = struct.unpack("<H", file.read(2)) if major == 1 else struct.unpack("<I", file.read(4))
        return int(ast.literal_eval(file.read(length).decode("latin-1"))["shape"][0])


def _in_tfds(source: TfdsSource, data: Data) -> int | None:
    infos = sorted(source.data_dir.glob(f"{source.name.split(':')[0]}/**/dataset_info.json"))
    if len(infos) != 1 or data.splits.model_dump(exclude_none=True):
        return None
    splits = json.loads(infos[0].read_text(encoding="utf-8"))["splits"]
    counts = {split["name"]: sum(map(int, split["shardLengths"])) for split in splits}
    present = {"train", "test"} if "test" not in counts and "validation" in counts else set(counts)
    return _left(counts["train"], present, True, data.validation)
