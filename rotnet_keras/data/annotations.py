"""Pictures with their objects or masks: folders in the layout of PASCAL VOC's development kit, and tfds's `voc`.

Corners are pixels of the upright picture: the kit's boxes begin at 1 and include their last pixel, ours begin at 0 and
do not.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rotnet_keras.config.sections import AnnotatedData
from rotnet_keras.data import decoding
from rotnet_keras.data.boxes import Boxes
from rotnet_keras.data.folders import FolderImages
from rotnet_keras.data.lazy_images import EncodedImages
from rotnet_keras.data.sources import FileList, TfdsSource, VocSource, find_annotated
from rotnet_keras.data.stores import NAMED, Progress
from rotnet_keras.data.tfds import chosen_splits, left_in_files, open_builder
from rotnet_keras.errors import DataError
from rotnet_keras.text import first_few

VOID = 255
SIDES = ("xmin", "ymin", "xmax", "ymax")


class BrokenAnnotation(Exception):
    """A picture that cannot be used; the message says why."""


@dataclass(frozen=True)
class AnnotatedSplit:
    """Some pictures, in a fixed order.

    Attributes:
        store: where they are.
        rows: (n,) of them in the store.
        objects: of each, or None where only masks were asked for.
        masks: of each, or None where only objects were.
    """

    store: EncodedImages
    rows: np.ndarray
    objects: list[Boxes] | None
    masks: list[Path] | None

    def __len__(self) -> int:
        return len(self.rows)

    def size(self, position: int) -> tuple[int, int]:
        """Width and height of a picture."""
        width, height = self.store.shapes[self.rows[position]]
        return int(width), int(height)

    def picture(self, position: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        return self.store.whole_image(int(self.rows[position]))

    def mask(self, position: int) -> np.ndarray:
        """(H, W) uint8: 0 background, then the classes, 255 void."""
        assert self.masks is not None
        return read_mask(self.masks[position])


@dataclass(frozen=True)
class AnnotatedDataset:
    """A data set with objects or masks.

    Attributes:
        validation, test: None where there is no such split.
        class_names: without the background.
        fingerprint: changes when the pictures do.
        notes: what the user should know.
    """

    name: str
    train: AnnotatedSplit
    validation: AnnotatedSplit | None
    test: AnnotatedSplit | None
    class_names: list[str]
    fingerprint: str
    notes: list[str] = field(default_factory=list)


def load_annotated(
    data: AnnotatedData, masks: bool, progress: Progress = lambda what, done, total: None
) -> AnnotatedDataset:
    """Read the annotations of a data set; its pictures stay where they are.

    Args:
        masks: ask for masks, not for objects.

    Raises:
        DataError: a split or its pictures are missing, or an annotation is broken and is not to be skipped.
    """
    source = find_annotated(data)
    notes: list[str] = []
    broken: list[str] = []
    read = _of_kit if isinstance(source, VocSource) else _of_tfds
    splits, fingerprint = read(source, data, masks, progress, broken, notes)  # type: ignore[arg-type]
    if broken:
        reasons = first_few(broken, NAMED, "; ")
        if data.broken == "refuse":
            raise DataError(f"{len(broken)} annotations are broken: {reasons}. data.broken='skip' leaves them out")
        notes.append(f"{len(broken)} pictures with broken annotations are skipped: {reasons}")
    for name, split in splits.items():
        if not len(split):
            raise DataError(f"data.splits.{name}: no picture is left")
    return AnnotatedDataset(
        data.name,
        splits["train"],
        splits.get("validation"),
        splits.get("test"),
        list(data.classes),
        fingerprint,
        notes,
    )


def read_objects(file: Path, classes: Sequence[str], size: tuple[int, int]) -> Boxes:
    """The objects in a file of `Annotations/`.

    Args:
        size: width and height of the picture.

    Raises:
        BrokenAnnotation: it cannot be read, an object's class is none of `classes`, or its box is not in the picture.
    """
    try:
        root = ET.parse(file).getroot()
    except (OSError, ET.ParseError) as error:
        why = (
            "is missing"
            if not file.is_file()
            else "is empty"
            if not file.stat().st_size
            else f"cannot be read: {error}"
        )
        raise BrokenAnnotation(f"its annotation {why}") from None
    names, corners, difficult = [], [], []
    for item in root.iter("object"):
        names.append((item.findtext("name") or "").strip())
        try:
            left, top, right, bottom = (
                float(item.findtext(f"bndbox/{key}") or "") for key in ("xmin", "ymin", "xmax", "ymax")
            )
            difficult.append(int(item.findtext("difficult") or 0) != 0)
        except ValueError:
            raise BrokenAnnotation(f"an object {names[-1]!r} has no box") from None
        corners.append((top - 1, left - 1, bottom, right))
    return checked(names, np.array(corners).reshape(-1, 4), np.array(difficult, bool), classes, size)


def checked(
    names: Sequence[str], corners: np.ndarray, difficult: np.ndarray, classes: Sequence[str], size: tuple[int, int]
) -> Boxes:
    """Objects of known classes, within a picture of some width and height.

    Raises:
        BrokenAnnotation: they are not.
    """
    for name, box in zip(names, corners, strict=True):
        if name not in classes:
            raise BrokenAnnotation(f"an object is a {name!r}, which is none of the classes")
        top, left, bottom, right = box
        # Half a pixel over the edge is rounding.
        inside = top >= -0.5 and left >= -0.5 and bottom <= size[1] + 0.5 and right <= size[0] + 0.5
        if not (inside and top < bottom and left < right):
            box_words = ", ".join(f"{value:g}" for value in box)
            raise BrokenAnnotation(
                f"the box of a {name!r} ({box_words}) is not in the picture of {size[0]} x {size[1]}"
            )
    numbers = np.array([classes.index(name) for name in names], np.int64)
    limits = np.array([size[1], size[0], size[1], size[0]])
    return Boxes(np.clip(corners, 0, limits).astype(np.float64), numbers, difficult)


def read_mask(file: Path) -> np.ndarray:
    """(H, W) uint8 class numbers of a palette PNG.

    Raises:
        BrokenAnnotation: it is missing, or no such picture.
    """
    try:
        with Image.open(file) as image:
            if image.mode not in ("P", "L"):
                raise BrokenAnnotation(f"its mask has colours ({image.mode}) instead of class numbers")
            return np.asarray(image, np.uint8)
    except OSError as error:
        raise BrokenAnnotation(f"its mask {_why(file, error)}") from None


def _why(file: Path, error: Exception) -> str:
    if not file.is_file():
        return "is missing"
    return f"cannot be read ({error})" if file.stat().st_size else "is empty"


def check_mask(mask: np.ndarray, classes: int, size: tuple[int, int]) -> None:
    """Make sure that a mask fits its picture and has known classes.

    Raises:
        BrokenAnnotation: it does not.
    """
    if mask.shape != size[::-1]:
        raise BrokenAnnotation(
            f"its mask has {mask.shape[1]} x {mask.shape[0]} pixels, the picture {size[0]} x {size[1]}"
        )
    values = np.unique(mask)
    unknown = values[(values > classes) & (values != VOID)]
    if len(unknown):
        raise BrokenAnnotation(f"its mask has the value {unknown[0]}, and there are {classes} classes")


def _of_kit(
    source: VocSource, data: AnnotatedData, masks: bool, progress: Progress, broken: list[str], notes: list[str]
) -> tuple[dict[str, AnnotatedSplit], str]:
    splits = {}
    for split, names in source.lists(data, masks).items():
        files, objects, outlines = FileList(source.root), [], []
        shapes, plain = [], []
        for done, name in enumerate(names, 1):
            picture = source.root / "JPEGImages" / f"{name}.jpg"
            try:
                seen = _look_at(picture)
                extent = seen.width, seen.height
                if masks:
                    outline = source.root / "SegmentationClass" / f"{name}.png"
                    check_mask(read_mask(outline), len(data.classes), extent)
                    outlines.append(outline)
                else:
                    file = source.root / "Annotations" / f"{name}.xml"
                    objects.append(read_objects(file, data.classes, extent))
            except BrokenAnnotation as error:
                broken.append(f"{name}: {error}")
                continue
            files.append(f"JPEGImages/{name}.jpg")
            shapes.append(extent)
            plain.append(seen.plain)
            if done % 100 == 0 or done == len(names):
                progress(f"reading {split} annotations", done, len(names))
        store = FolderImages(
            files,
            np.arange(len(files)),
            shapes=np.array(shapes, np.int32).reshape(-1, 2),
            plain=np.array(plain, bool),
            size=data.size,
            channels=3,
            whole=True,
            report=notes.append,
        )
        splits[split] = AnnotatedSplit(
            store, np.arange(len(files)), None if masks else objects, outlines if masks else None
        )
    return splits, source.fingerprint(data, masks)


def _look_at(picture: Path) -> decoding.Header:
    try:
        return decoding.look_at(picture)
    except decoding.UnreadableImage as error:
        raise BrokenAnnotation(f"the picture {_why(picture, error)}") from None


def _of_tfds(
    source: TfdsSource, data: AnnotatedData, masks: bool, progress: Progress, broken: list[str], notes: list[str]
) -> tuple[dict[str, AnnotatedSplit], str]:
    if masks:
        raise DataError(f"data.name: {data.name!r} has no masks; name a folder in the layout of VOC's development kit")
    _, info = open_builder(source)
    try:
        names = info.features["objects"].feature["label"].names
    except (KeyError, AttributeError):
        raise DataError(f"data.name: {data.name!r} has no objects; it has {', '.join(info.features)}") from None
    splits = {}
    for split, asked in chosen_splits(info, data.splits).items():
        options = {"size": data.size, "channels": 3, "whole": True, "report": notes.append}
        store, _ = left_in_files(info, asked, ("image", None), options, progress, broken)
        rows, objects = [], []
        for row in range(store.shape[0]):
            width, height = (int(side) for side in store.shapes[row])
            try:
                objects.append(_objects_of(store.example(row), names, data.classes, (width, height)))
            except BrokenAnnotation as error:
                broken.append(f"{store.name(row)}: {error}")
                continue
            rows.append(row)
        splits[split] = AnnotatedSplit(store, np.array(rows, np.int64), objects, None)
    sizes = "+".join(str(len(split)) for split in splits.values())
    return splits, f"tfds:{info.full_name}:{sizes}"


def _objects_of(example: Any, names: Sequence[str], classes: Sequence[str], size: tuple[int, int]) -> Boxes:
    feature = example.features.feature
    # Shares of the picture's sides, of the kit's numbers.
    corners = np.array(feature["objects/bbox"].float_list.value, np.float64).reshape(-1, 4)
    corners = np.round(corners * [size[1], size[0], size[1], size[0]], 3) - [1, 1, 0, 0]
    difficult = np.array(feature["objects/is_difficult"].int64_list.value, bool)
    found = [names[number] for number in feature["objects/label"].int64_list.value]
    return checked(found, corners, difficult, classes, size)
