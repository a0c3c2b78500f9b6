"""Finding a recipe's data set, or saying what is missing, without decoding an image or importing TensorFlow."""

import hashlib
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rotnet_keras.config.finder import PACKAGE, did_you_mean
from rotnet_keras.config.sections import AnnotatedData, Data, Splits
from rotnet_keras.data.layout import IMAGE_SUFFIXES, read_layout
from rotnet_keras.data.listing.sources import FolderSource, ListedSource, file_size, quiet
from rotnet_keras.data.listing.text_lists import list_lines, spellings
from rotnet_keras.data.shards.names import names_shards
from rotnet_keras.data.tfds_metadata import check_metadata
from rotnet_keras.errors import DataError
from rotnet_keras.host import check_unpacked

if TYPE_CHECKING:
    from rotnet_keras.data.stores import Progress

EMBEDDED = {"fashion_mini": PACKAGE / "data" / "fashion_mini.npz"}
# Names of the (images, labels) arrays in an .npz file, by split; the first pair that is there is used.
ARRAY_NAMES = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels"), ("images", "labels"), ("x", "y")),
    "validation": (("x_val", "y_val"), ("val_images", "val_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
}
# A list of image names in a VOC folder, or a slice of one: "train", "train[:20]".
VOC_LIST = re.compile(r"(\w+)(?:\[(\d*):(\d*)\])?")
# In characters.
LONGEST_NAME = 200


@dataclass(frozen=True)
class ArraySource:
    """A data set in an .npz file of arrays."""

    path: Path

    def fingerprint(self, progress: "Progress" = quiet) -> str:
        """Return a fingerprint that changes when the file's content does."""
        from rotnet_keras.data.fingerprints import file_digests

        return "npz:" + file_digests(self.path.parent, [self.path.name], progress).tobytes().hex()[:16]


@dataclass(frozen=True)
class TfdsSource:
    """A data set of TensorFlow Datasets.

    Attributes:
        name: its name with configuration and version, if given.
        data_dir: the folder of prepared data sets.
        download: whether it may be downloaded and prepared.
    """

    name: str
    data_dir: Path
    download: bool


@dataclass(frozen=True)
class VocSource:
    """A folder in the layout of PASCAL VOC's development kit."""

    root: Path

    def image_names(self, data: AnnotatedData, masks: bool) -> dict[str, list[str]]:
        """Return the names of the images of each split.

        Args:
            masks: whether to read the lists of images with masks, not those of images with boxes.

        Raises:
            DataError: there is no such list.
        """
        folder = self.root / "ImageSets" / ("Segmentation" if masks else "Main")
        there = {file.stem for file in folder.glob("*.txt") if "_" not in file.stem}
        chosen = {"train": "train", "validation": "val", "test": "test"}
        if "test" not in there:
            chosen = {"train": "train", "test": "val"}
        chosen = {split: name for split, name in chosen.items() if name in there}
        found = {}
        for split, asked in resolve_splits(chosen, data.splits).items():
            names: list[str] = []
            for part in asked.split("+"):
                match = VOC_LIST.fullmatch(part.strip())
                # TensorFlow Datasets calls VOC's list `val` so.
                if match and match[1] == "validation" and "validation" not in there and "val" in there:
                    match = VOC_LIST.fullmatch(part.strip().replace("validation", "val", 1))
                if not match or match[1] not in there:
                    known = ", ".join(sorted(there)) or "nothing"
                    raise DataError(f"data.splits.{split}: no list {part!r} in {folder} (there are: {known})")
                of_list = _listed_names(folder / f"{match[1]}.txt")
                part_of_list = of_list[slice(*(int(bound) if bound else None for bound in match.groups()[1:]))]
                names += map(self._spelled, part_of_list)
            found[split] = names
        if "train" not in found:
            raise DataError(f"data.name: no list train.txt in {folder}; name another one with data.splits.train")
        return found

    def _spelled(self, name: str) -> str:
        """Return a listed name as the image has it."""
        if name.isascii() and "\\" not in name:
            return name
        forms = (form for form in spellings(name) if os.path.exists(self.root / self.image_file(form)))  # noqa: PTH110
        return next(forms, name)

    def image_file(self, name: str) -> str:
        """Return the path of an image below the folder: VOC's `.jpg`, or one of another format if that is missing."""
        plain = f"JPEGImages/{name}.jpg"
        suffixes = (form for suffix in IMAGE_SUFFIXES for form in (suffix, suffix.upper()))
        others = (f"JPEGImages/{name}{suffix}" for suffix in suffixes)
        # Names in lists may be too long for any file, of which os.path alone does not complain.
        there = (file for file in (plain, *others) if os.path.exists(self.root / file))  # noqa: PTH110
        return next(there, plain)

    def fingerprint(self, data: AnnotatedData, masks: bool, progress: "Progress" = quiet) -> str:
        """Return a fingerprint that changes when a list, an image or an annotation changes."""
        from rotnet_keras.data.fingerprints import combined

        return combined("voc-2", self._entries(data, masks, progress))

    def _entries(self, data: AnnotatedData, masks: bool, progress: "Progress") -> Iterator[tuple[str, bytes]]:
        from rotnet_keras.data.fingerprints import file_digests

        annotation = "SegmentationClass/{}.png" if masks else "Annotations/{}.xml"
        for split, names in self.image_names(data, masks).items():
            files = [file for name in names for file in (self.image_file(name), annotation.format(name))]
            for name, digest in zip(files, file_digests(self.root, files, progress), strict=True):
                yield f"{split}\0{name}", digest.tobytes()

    def old_fingerprint(self, data: AnnotatedData, masks: bool) -> str:
        """Return the fingerprint of earlier versions, which goes by the names and sizes of the images."""
        digest = hashlib.blake2b()
        for split, names in self.image_names(data, masks).items():
            for name in names:
                image = self.root / "JPEGImages" / f"{name}.jpg"
                digest.update(os.fsencode(f"{split}\0{name}\0{file_size(image)}\n"))
        return "voc:" + digest.hexdigest()[:16]


def _listed_names(file: Path) -> list[str]:
    """Return the names in a list of a VOC folder.

    Raises:
        DataError: the list is no text in UTF-8 or UTF-16, or a name leads to another folder.
    """
    names = list_lines(file, "expected a list of image names without a suffix")
    for name in names:
        plain = name.replace("\\", "/")
        if plain.startswith("/") or ".." in plain.split("/") or "\0" in name or len(name) > LONGEST_NAME:
            raise DataError(f"{file}: expected the name of an image in JPEGImages, got {name[:LONGEST_NAME]!r}")
    return names


Source = ArraySource | ListedSource | TfdsSource


def resolve_splits(usual: Mapping[str, str], wanted: Splits) -> dict[str, str]:
    """Return the splits that a recipe names, with the usual ones in place of those that it does not name.

    A usual split that the recipe trains on is left out, so that validation and test images are never trained on.
    """
    trained_on = set(re.findall(r"\w+", wanted.train or ""))
    if "trainval" in trained_on:
        trained_on |= {"train", "val"}
    apart = {split: name for split, name in usual.items() if split == "train" or name not in trained_on}
    return apart | wanted.model_dump(exclude_none=True)


def find_source(data: Data) -> Source:
    """Find the images of a recipe's `[data]`.

    Raises:
        DataError: there are none; the message says what was looked for.
    """
    if data.name in EMBEDDED:
        return ArraySource(EMBEDDED[data.name])
    path = Path(data.name).expanduser()
    if data.name.endswith(".npz"):
        return _array_source(path)
    if _is_folder(data, path):
        return _folder_source(path)
    if names_shards(data.name):
        from rotnet_keras.data.shards.source import find_images

        return find_images(data)
    return _tfds_source(data)


def _is_folder(data: Data | AnnotatedData, path: Path) -> bool:
    """Return whether a recipe's `data.name` is a folder, and not a data set of TensorFlow Datasets.

    Raises:
        DataError: it may be either; the message says how to name each.
    """
    if names_shards(data.name) and not path.is_dir():
        return False
    if data.name.startswith((".", "/", "~")):
        return True
    if not path.is_dir():
        return False
    data_dir, prepared = _prepared(data)
    if path.resolve() == (data_dir / data.name).resolve():
        # The command was started where TensorFlow Datasets keeps its data.
        return not prepared
    if prepared and data.data_dir:
        return False
    if prepared or data.data_dir or data.download:
        what = "has been prepared" if prepared else "is asked for by data.data_dir or data.download"
        raise DataError(
            f"data.name: {data.name!r} is a folder here, and a data set of TensorFlow Datasets of this name {what}. "
            f"Set data.name=./{data.name} for the folder, or data.data_dir={data_dir.absolute()} for the data set"
            f"{'' if prepared else ', and start from another folder'}."
        )
    return True


def find_annotated(data: AnnotatedData) -> VocSource | TfdsSource:
    """Find the annotated images of a recipe's `[data]`.

    Raises:
        DataError: there are none; the message says what was looked for.
    """
    path = Path(data.name).expanduser()
    if not _is_folder(data, path):
        return _tfds_source(data)
    missing = [name for name in ("JPEGImages", "ImageSets") if not (path / name).is_dir()]
    if missing:
        raise DataError(
            f"data.name: {path.absolute()} has no folder {missing[0]}: expected VOC's layout, as in VOC2007"
        )
    return VocSource(path)


def pin_paths(data: Data) -> Data:
    """Return the section with absolute paths, so that it does not depend on the current folder or the environment."""
    if data.name in EMBEDDED:
        return data
    path = Path(data.name).expanduser()
    # Whether it is a path is known without a list of a million files.
    if data.name.endswith(".npz") or _is_folder(data, path) or names_shards(data.name):
        return data.model_copy(update={"name": str(path.absolute())})
    return data.model_copy(update={"data_dir": str(_tfds_source(data).data_dir.absolute())})


def pin_annotated_paths(data: AnnotatedData) -> AnnotatedData:
    """Return the section with absolute paths, so that it does not depend on the current folder or the environment."""
    source = find_annotated(data)
    if isinstance(source, TfdsSource):
        return data.model_copy(update={"data_dir": str(source.data_dir.absolute())})
    return data.model_copy(update={"name": str(Path(data.name).expanduser().absolute())})


def _array_source(path: Path) -> ArraySource:
    if not path.is_file():
        raise DataError(f"data.name: there is no file {path.absolute()}")
    if not zipfile.is_zipfile(path):
        raise DataError(f"data.name: {path} is not an .npz file, or is damaged")
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(each.file_size for each in archive.infolist())
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"data.name: {path} is damaged: {error}") from None
    check_unpacked(f"data.name: {path}", path.stat().st_size, unpacked)
    return ArraySource(path)


def _folder_source(root: Path) -> FolderSource:
    if not root.is_dir():
        raise DataError(f"data.name: there is no folder {root.absolute()}")
    found = read_layout(root)
    return FolderSource(root, found.files, found.labels, found.class_names, found.understood, found.left_out)


def class_numbers(names: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """Return the numbers of some classes, in the order of their names.

    Raises:
        DataError: no class has one of the names.
    """
    unknown = [name for name in names if name not in class_names]
    if unknown:
        hint = did_you_mean(unknown[0], class_names)
        raise DataError(
            f"data.only: no class is called {unknown[0]!r}{hint}; there are "
            + (", ".join(class_names) or "none: the images have no labels")
        )
    return [class_names.index(name) for name in names]


def _tfds_source(data: Data | AnnotatedData) -> TfdsSource:
    data_dir, is_prepared = _prepared(data)
    if not is_prepared and not data.download:
        name, prepared = data.name.split(":")[0], _prepared_names(data_dir)
        there = ", ".join(sorted(prepared)) or "nothing"
        raise DataError(
            f"data.name: {data.name!r} is not a folder, an .npz file or fashion_mini, and TensorFlow Datasets has not "
            f"prepared it in {data_dir.absolute()} (prepared there: {there}{did_you_mean(name, prepared)}). "
            "Set data.data_dir to the folder that holds it, or download it with data.download=true."
        )
    check_metadata(data_dir, data.name)
    return TfdsSource(data.name, data_dir, data.download)


def _prepared(data: Data | AnnotatedData) -> tuple[Path, bool]:
    """Return the folder of prepared data sets, and whether the one that a recipe names is there."""
    where = data.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    data_dir = Path(where).expanduser()
    name, names = data.name.split(":")[0], _prepared_names(data_dir)
    return data_dir, name in names or name.split("/")[0] in names


def _prepared_names(data_dir: Path) -> set[str]:
    """Return the names of the data sets that are prepared in a folder, with their configurations."""
    infos = [*data_dir.glob("*/*/dataset_info.json"), *data_dir.glob("*/*/*/dataset_info.json")]
    return {info.parent.parent.relative_to(data_dir).as_posix() for info in infos}
