"""Auditing a folder of images or a file of arrays before training: counts, sizes, damage and duplicates."""

import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.config.sections import Data
from rotnet_keras.data.crops import fit_of
from rotnet_keras.data.listing.sources import ListedSource
from rotnet_keras.data.listing.survey import find_duplicates, read_headers
from rotnet_keras.data.npz import UNLABELLED, array_names, check_arrays, read_array_header
from rotnet_keras.data.sources import ARRAY_NAMES, ArraySource, Source, TfdsSource, class_numbers, find_source
from rotnet_keras.data.stores import Progress
from rotnet_keras.data.tfds_metadata import MOST_BYTES
from rotnet_keras.data.values.samples import (
    channels_and_depth,
    check_depth,
    compare_splits,
    sampled_headers,
    sampled_values,
    values_sentence,
)
from rotnet_keras.errors import DataError
from rotnet_keras.files import parse_json, read_file
from rotnet_keras.text import first_few

# Side of the images of a folder in pixels where the recipe sets none.
DEFAULT_SIZE = 64
# The keys of `rotnet-keras init --json` where they differ from the attributes.
JSON_KEYS = {"short_sides": "sides", "types": "kinds", "in_several_splits": "shared", "exif_rotated": "turned"}


@dataclass(frozen=True)
class ImageAudit:
    """What was found out about the images of a data set.

    Attributes:
        path: the folder or the file.
        images: number of readable images in each split.
        classes: number of training images of each class; empty without labels.
        short_sides: the shortest, the median and the longest short side of the images, in pixels.
        square: whether all images are squares.
        channels: of the images.
        types: number of files by suffix, or of an array's images by dtype.
        unreadable: files that cannot be read, each with the reason.
        decoded: number of files that were decoded; of the others only the header was read.
        duplicates: groups of files with equal contents.
        in_several_splits: number of these groups whose files are in several splits.
        exif_rotated: number of files whose EXIF tag says that they must be rotated or mirrored.
        deep: whether the images have more than 8 bits, whose numbers are kept.
        aspect: the median ratio of width to height.
        understood: how the layout, the splits and the values were understood, and what is left out.
    """

    path: Path
    images: dict[str, int]
    classes: dict[str, int]
    short_sides: tuple[int, int, int]
    square: bool
    channels: int
    types: dict[str, int]
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    decoded: int = 0
    duplicates: list[list[str]] = field(default_factory=list)
    in_several_splits: int = 0
    exif_rotated: int = 0
    deep: bool = False
    aspect: float = 1.0
    understood: dict[str, str] = field(default_factory=dict)

    @property
    def side_range(self) -> str:
        """The lengths of the short sides in pixels: "128" or "96 to 512"."""
        shortest, _, longest = self.short_sides
        return str(shortest) if shortest == longest else f"{shortest} to {longest}"

    def json_values(self) -> dict[str, Any]:
        """Return the attributes under the keys that `rotnet-keras init --json` prints."""
        return {JSON_KEYS.get(key, key): value for key, value in asdict(self).items()}


def audit_images(name: str, progress: Progress = lambda what, done, total: None) -> ImageAudit:
    """Audit the images of a folder or of an .npz file, as a recipe's `data.name` would name them.

    Raises:
        DataError: there are no images, or the name is not that of a folder or an .npz file.
    """
    path = Path(name).expanduser()
    source = find_source(Data(name=str(path.absolute())))
    if isinstance(source, ListedSource):
        return _audit_files(source, progress)
    assert isinstance(source, ArraySource)
    return _audit_arrays(source)


def understand(data: Data, source: Source | None = None) -> list[tuple[str, str]]:
    """Check the images of a recipe's `[data]` before anything is started, and say how they are understood.

    Args:
        data: the section.
        source: what `find_source` has found for it.

    Returns:
        (what, sentence): the layout, the splits, the classes, the values, and what is left out.

    Raises:
        DataError: there are no training images, the values of the splits do not fit together, or a class of `data.only`
            is not there.
    """
    source = source or find_source(data)
    if data.only and isinstance(source, ListedSource):
        class_numbers(data.only, source.class_names)
    if isinstance(source, ArraySource):
        said = check_arrays(source)
    else:
        said = _check_files(source) if isinstance(source, ListedSource) else _describe_prepared(source, data)
    fit = fit_of(data)
    return said if fit is None or fit.usual else [*said, ("size", fit.sentence())]


def labelled_splits(data: Data) -> set[str]:
    """Return the splits that will have labelled images, as far as is known before images are read.

    Args:
        data: the section `[data]` of a recipe.

    Returns:
        Of "train", "validation" and "test". All three for a data set of TensorFlow Datasets with classes, and for one
        that is still to be downloaded.

    Raises:
        DataError: the data are missing, or damaged.
    """
    source = find_source(data)
    if isinstance(source, TfdsSource):
        features = _prepared_features(source)
        return (
            set()
            if features and not any("classLabel" in each for each in features)
            else {"train", "validation", "test"}
        )
    labels: dict[str, Any] = {}
    if isinstance(source, ListedSource):
        labels = {split: source.labels.get(split, ()) if source.class_names else () for split in source.splits}
    else:
        with _open_arrays(source.path) as (_, arrays):
            labels = {split: () if y is None else arrays[y] for split, (_, y) in array_names(list(arrays)).items()}
    labelled = {split for split, numbers in labels.items() if len(numbers) and np.max(numbers) > UNLABELLED}
    held_out = round(data.validation * len(labels["train"])) if "train" in labelled else 0
    return labelled | ({"validation", "test"} - set(labels) if held_out else set())


def default_shape(data: Data) -> tuple[tuple[int, int] | None, int | None]:
    """Return height and width, and the channels, that images have where a recipe sets none; None for any.

    Raises:
        DataError: the data are missing, or damaged.
    """
    source = find_source(data)
    if isinstance(source, ListedSource):
        return None, sampled_values(source)[0]
    if isinstance(source, ArraySource):
        with _open_arrays(source.path) as (archive, arrays):
            pixels, _ = array_names(list(arrays))["train"]
            _, height, width, *channels = read_array_header(archive, f"{pixels}.npy")[0]
        return (height, width), (channels or [1])[0]
    tall, wide, known = _prepared_shape(source)
    return (None if tall is None or wide is None else (tall, wide)), known


def _describe_prepared(source: TfdsSource, data: Data) -> list[tuple[str, str]]:
    """Return what the metadata of a data set of TensorFlow Datasets say, as `understand` does."""
    folder = _prepared_folder(source)
    if folder is None:
        return [("data set", f"{source.name} of TensorFlow Datasets, to be downloaded to {source.data_dir}")]
    rows = [("data set", f"{folder.relative_to(source.data_dir)} of TensorFlow Datasets, in {source.data_dir}")]
    with suppress(OSError, ValueError, KeyError, TypeError):  # By another version; it is read at the start.
        splits = parse_json(read_file(folder / "dataset_info.json", MOST_BYTES))["splits"]
        counts = [f"{split['name']} {sum(map(int, split['shardLengths'])):,} images" for split in splits]
        rows.append(("splits", ", ".join(counts)))
    taken = [f"{use} = {name}" for use, name in data.splits.model_dump(exclude_none=True).items()]
    rows += [("used", ", ".join(taken))] if taken else []
    height, width, channels = _prepared_shape(source)
    if channels:
        size = f"{height} x {width} pixels" if height and width else "any size"
        rows.append(("images", f"{size}, {channels} channel{'s' if channels > 1 else ''}"))
    with suppress(OSError, UnicodeDecodeError):
        names = read_file(folder / "label.labels.txt", MOST_BYTES).decode().split("\n")
        classes = [name for name in names if name]
        rows.append(("classes", f"{len(classes):,}: {first_few(classes)}"))
        class_numbers(data.only or [], classes)
    return rows


def _prepared_folder(source: TfdsSource) -> Path | None:
    """Return the folder of the newest version of a prepared data set, or of the one that is asked for."""
    name, _, version = source.name.partition(":")
    infos = [info for depth in ("*", "*/*") for info in source.data_dir.glob(f"{name}/{depth}/dataset_info.json")]
    folders = [info.parent for info in infos if fnmatchcase(info.parent.name, version or "*")]

    def order(folder: Path) -> tuple[list[int], str]:
        return [int(part) for part in folder.name.split(".") if part.isdigit()], folder.name

    return max(folders, key=order, default=None)


def _prepared_shape(source: TfdsSource) -> tuple[int | None, int | None, int | None]:
    """Return height, width and channels of the images of a prepared data set; None for what it does not say."""
    try:
        shapes = [each["image"]["shape"]["dimensions"] for each in _prepared_features(source) if "image" in each]
        height, width, channels = (int(length) if int(length) > 0 else None for length in shapes[0])
    except (ValueError, KeyError, TypeError, IndexError):  # Not prepared, or by another version.
        return None, None, None
    return height, width, channels


def _prepared_features(source: TfdsSource) -> list[dict[str, Any]]:
    """Return the features of a prepared data set as its metadata have them; none where they cannot be read."""
    folder = _prepared_folder(source)
    try:
        content = read_file(folder / "features.json", MOST_BYTES) if folder else b""
        features = parse_json(content)["featuresDict"]["features"].values()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # Not prepared, or by another version.
        return []
    return [each for each in features if isinstance(each, dict)]


def _check_files(source: ListedSource) -> list[tuple[str, str]]:
    """Check a sample of the files of each split, before anything is decoded.

    Returns:
        (what, sentence) of the layout, the splits, the classes, the channels, the values, and what is left out.

    Raises:
        DataError: 16-bit files use so few of their values that they would become nearly black, or a split has values on
            another scale than the training images.
    """
    found = {split: sampled_headers([files]) for split, files in source.splits.items()}
    headers = [header for files in found.values() for header, _ in files]
    channels, deep = channels_and_depth([header for header, _ in found["train"]], source.root)
    compared = compare_splits(found, channels, source.root) if deep else []
    if not deep:
        check_depth(
            found,
            f"data.name: the values of the 16-bit files in {source.root}",
            "or put them into a folder of their own, where their values are kept as they are",
        )
    kinds = Counter({1: "grey", 3: "colour"}.get(header.channels, f"{header.channels} channels") for header in headers)
    return [
        *source.understood,
        ("channels", " and ".join(kinds) or "no file of a sample can be read"),
        ("values", "; ".join([values_sentence(headers, deep), *compared])),
        ("left out", "; ".join(source.left_out.lines()) or "nothing"),
    ]


def _audit_files(source: ListedSource, progress: Progress) -> ImageAudit:
    unreadable: list[tuple[str, str]] = []
    images: dict[str, int] = {}
    classes: dict[str, int] = {}
    sizes: list[np.ndarray] = []
    decoded = rotated = 0
    for split, files in source.splits.items():
        found = read_headers(files, split, progress)
        unreadable += [(files.shown(position, source.root), why) for position, why in found.unreadable]
        rotated, decoded = rotated + found.rotated, decoded + found.decoded
        readable = found.sizes[:, 0] > 0
        sizes.append(found.sizes[readable])
        if count := int(readable.sum()):
            images[split] = count
        if split == "train" and source.class_names:
            labels = np.asarray(source.labels[split])[readable]
            numbers, counts = np.unique(labels[labels != UNLABELLED], return_counts=True)
            classes = {source.class_names[n]: int(count) for n, count in zip(numbers, counts, strict=True)}
    duplicates = find_duplicates(source, progress)
    if "train" not in images:
        raise DataError(f"{source.root}: none of the training images can be read. {': '.join(unreadable[0])}")
    shapes = np.concatenate(sizes)
    channels, deep = sampled_values(source)
    return ImageAudit(
        path=source.path,
        images=images,
        classes=dict(sorted(classes.items())),
        short_sides=_sides(shapes.min(axis=1)),
        square=bool((shapes[:, 0] == shapes[:, 1]).all()),
        channels=channels,
        deep=deep,
        aspect=round(float(np.median(shapes[:, 0] / shapes[:, 1])), 2),
        types={suffix[1:]: count for suffix, count in _suffixes(source).items()},
        unreadable=unreadable,
        decoded=decoded,
        duplicates=[[name for _, name in group] for group in duplicates],
        in_several_splits=sum(len({split for split, _ in group}) > 1 for group in duplicates),
        exif_rotated=rotated,
        understood=dict(_check_files(source)),
    )


def _suffixes(source: ListedSource) -> Counter[str]:
    return sum((files.suffixes() for files in source.splits.values()), Counter())


def _audit_arrays(source: ArraySource) -> ImageAudit:
    images: dict[str, int] = {}
    classes: dict[str, int] = {}
    types: dict[str, int] = {}
    sides: list[int] = []
    square, channels = True, 0
    with _open_arrays(source.path) as (archive, arrays):
        for split, names in ARRAY_NAMES.items():
            for pixels, labels in names:
                if pixels not in arrays:
                    continue
                shape, dtype = read_array_header(archive, f"{pixels}.npy")
                images[split], channels = shape[0], shape[3] if len(shape) == 4 else 1
                sides.append(min(shape[1:3]))
                square = square and shape[1] == shape[2]
                types[str(dtype)] = types.get(str(dtype), 0) + shape[0]
                if split == "train" and labels in arrays:
                    numbers, counts = np.unique(arrays[labels], return_counts=True)
                    pairs = zip(numbers, counts, strict=True)
                    classes = {str(number): int(count) for number, count in pairs if number != UNLABELLED}
                break
    if not images.get("train"):
        known = ", ".join(pixels for names in ARRAY_NAMES.values() for pixels, _ in names)
        raise DataError(f"{source.path}: no training images (looked for arrays named {known})")
    understood = dict(check_arrays(source))
    return ImageAudit(source.path, images, classes, _sides(sides), square, channels, types, understood=understood)


@contextmanager
def _open_arrays(path: Path) -> Iterator[tuple[zipfile.ZipFile, Mapping[str, np.ndarray]]]:
    """Open an .npz file as an archive, to read headers, and as arrays.

    Raises:
        DataError: the file turns out to be damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as arrays:
            yield archive, arrays
    except DataError:
        raise
    except Exception as error:  # A damaged archive raises nearly anything.
        raise DataError(f"{path}: cannot be read: {error}") from None


def _sides(sides: Sequence[int] | np.ndarray) -> tuple[int, int, int]:
    return int(np.min(sides)), round(float(np.median(sides))), int(np.max(sides))
