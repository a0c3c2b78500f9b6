"""What the metadata of a prepared data set may say, checked before TensorFlow Datasets acts on it.

TensorFlow Datasets imports the module of every feature that `features.json` or `dataset_info.json` names, and reads the
files to which their names and templates lead. A data folder is data: it names features of TensorFlow Datasets alone,
and files that lie in it.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rotnet_keras.errors import DataError
from rotnet_keras.files import parse_json, read_json

# The name of a data set, with configuration and version. Namespaces lead to code and data on the internet.
NAME = re.compile(r"\w+(?:/[\w+.\-]+)?(?::(?:\d+|\*)(?:\.(?:\d+|\*)){2})?(?:/\d+\.\d+\.\d+)?", re.ASCII)
FEATURE = re.compile(r"tensorflow_datasets\.core\.features(?:\.\w+)+", re.ASCII)
CLASS_KEYS = {"pythonClassName", "python_class_name", "type", "proto_cls"}
PROTO = re.compile(r"tensorflow_datasets(?:\.\w+)+", re.ASCII)
# Part of a file's name: of a data set, a configuration, a split.
PART = re.compile(r"\w[\w+.\-]*", re.ASCII)
TEMPLATE = re.compile(r"(?:[\w.\-%@]|\{(?:DATASET|SPLIT|FILEFORMAT|SHARD_INDEX|NUM_SHARDS|SHARD_X_OF_Y)\})+", re.ASCII)
# ImageNet with all its classes has 21,841; no image of TensorFlow Datasets has a side of so many pixels.
MOST_CLASSES, MOST_PIXELS = 1_000_000, 65_535
# The metadata of a data set are some kilobytes; with statistics of every feature a few megabytes.
MOST_BYTES = 32 * 2**20
# Letters of a file's name that a message shows.
SHOWN = 500
# The shortest record of a TFRecord file: length, two checksums, no data.
RECORD_BYTES = 16


def check_metadata(data_dir: Path, name: str) -> None:
    """Check the metadata of a prepared data set, of every version and configuration.

    Args:
        data_dir: the folder of prepared data sets.
        name: of the data set, as in `data.name`.

    Raises:
        DataError: the name is none of a prepared data set, or a file names code or other files, or is unreadable; the
            message names the file.
    """
    if not NAME.fullmatch(name) or ".." in name:
        raise DataError(
            f"data.name: expected the name of a data set, as in cifar10, voc/2007 or cifar10:3.0.2, got {name!r}"
        )
    for folder in _folders(data_dir, re.split("[/:]", name)[0]):
        for file in sorted([*folder.glob("*/*"), *folder.glob("*/*/*")]):
            if not (file.is_file() or file.is_dir()):
                raise DataError(f"{file}: expected a file, got a pipe, a device or a link to nothing")
            if file.name in {"features.json", "dataset_info.json", "metadata.json"}:
                _check_json(file)
            elif file.name.endswith(".labels.txt") and file.stat().st_size > MOST_BYTES:
                raise DataError(f"{file}: larger than the {MOST_BYTES:,} bytes that such a file may have")


def check_shards(info: Any, name: str) -> None:
    """Check that the files of a split lie in their data set's folder and are as long as its number of records demands.

    Args:
        info: the `DatasetInfo`.
        name: of the split, or of a slice of it.

    Raises:
        DataError: there are no records, or a file is missing, lies elsewhere, or is too short.
    """
    try:
        parts = info.splits[name].file_instructions
    except ValueError as error:
        raise DataError(f"data.name: the files of {name} in {info.data_dir} have no names: {error}") from None
    if not sum(part.examples_in_shard for part in parts):
        raise DataError(f"data.splits: {name} of {info.full_name} has no records")
    for part in parts:
        file = Path(part.filename)
        try:
            there, size = file.parent == Path(info.data_dir) and file.is_file(), file.stat().st_size
        except (OSError, ValueError):  # A name can be too long for any file.
            there, size = False, 0
        if not there:
            raise DataError(f"data.name: {info.full_name} has no file {str(file)[:SHOWN]}; prepare the data set again")
        records, most = part.examples_in_shard, size // RECORD_BYTES
        if info.file_format.value == "tfrecord" and records > most:
            raise DataError(
                f"{file}: cannot hold the {records:,} records that dataset_info.json states; prepare the data set again"
            )


def _folders(data_dir: Path, name: str) -> list[Path]:
    """Return every folder that may be taken for the data set: its names are compared in snake case."""
    if not data_dir.is_dir():
        return []
    asked = name.replace("_", "").lower()
    return sorted(folder for folder in data_dir.iterdir() if folder.name.replace("_", "").lower() == asked)


def _check_json(file: Path) -> None:
    """Check all keys of a file of metadata, however deep they lie.

    Raises:
        DataError: a value is not allowed, or the file is not JSON.
    """
    try:
        content = read_json(file, MOST_BYTES)
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, got {type(content).__name__}")
        if file.name != "features.json":
            _check_names(content)
        for key, value in _entries(content):
            _check_entry(key, value)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: {error}") from None


def _check_names(content: Mapping[str, Any]) -> None:
    """Check the names that become names of folders and files."""
    splits = content.get("splits", [])
    if not isinstance(splits, list) or not all(isinstance(split, dict) for split in splits):
        raise ValueError("splits: expected a list of objects")
    for key in ("name", "configName", "config_name", "version", "default_config_name"):
        if content.get(key):
            _require(isinstance(content[key], str) and PART.fullmatch(content[key]), key, "a name", content[key])
    for split in splits:
        _require(PART.fullmatch(str(split.get("name"))), "splits.name", "a name", split.get("name"))
        lengths = split.get("shardLengths", split.get("shard_lengths", []))
        _require(
            isinstance(lengths, list) and all(re.fullmatch("[0-9]{1,15}", str(length)) for length in lengths),
            *("splits.shardLengths", "counts", lengths),
        )


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key and value, also of JSON in a text, which is how some features keep their arguments."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield key, value
            yield from _entries(parse_json(value.encode()) if key == "json" and isinstance(value, str) else value)
    elif isinstance(content, list):
        for value in content:
            yield from _entries(value)


def _check_entry(key: str, value: Any) -> None:
    if key.startswith("/") or ".." in key.split("/"):
        raise ValueError(f"the feature {key!r} would be read from another folder")
    if key in CLASS_KEYS and "." in str(value):
        allowed = PROTO if key == "proto_cls" else FEATURE
        _require(isinstance(value, str) and allowed.fullmatch(value), key, "a class of tensorflow_datasets", value)
    if key in {"filepathTemplate", "filepath_template"} and value:
        allowed_template = isinstance(value, str) and TEMPLATE.fullmatch(value) and ".." not in value
        _require(allowed_template, key, "a name of files in this folder", value)
    if key in {"numClasses", "num_classes"} and value is not None:
        _require(_at_most(value, MOST_CLASSES), key, f"at most {MOST_CLASSES:,}", value)
    if key == "dimensions":
        sides = value if isinstance(value, list) else [value]
        _require(all(_at_most(side, MOST_PIXELS) for side in sides), key, f"at most {MOST_PIXELS:,}", value)


def _at_most(value: Any, most: int) -> bool:
    return re.fullmatch("-?[0-9]{1,15}", str(value)) is not None and int(value) <= most


def _require(holds: object, key: str, expected: str, value: Any) -> None:
    if not holds:
        raise ValueError(f"{key}: expected {expected}, got {str(value)[:100]!r}")
