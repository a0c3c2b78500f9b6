"""Loading images with boxes or masks: folders in the layout of PASCAL VOC, and `voc` of TensorFlow Datasets.

Corners are in pixels of the upright image. VOC's boxes begin at 1 and include their last pixel; here they
begin at 0 and exclude it.
"""

import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.config.sections import AnnotatedData
from rotnet_keras.data import decoding
from rotnet_keras.data.boxes import Boxes, check_objects
from rotnet_keras.data.boxes import BrokenAnnotation as BrokenAnnotation
from rotnet_keras.data.crops import Fit
from rotnet_keras.data.folders import FolderImages
from rotnet_keras.data.image_files import SIDEWAYS, UnreadableImage, decoded, open_image, transpose, upright_corners
from rotnet_keras.data.lazy_images import LazyImages
from rotnet_keras.data.listing.file_list import FileList
from rotnet_keras.data.sources import TfdsSource, VocSource, find_annotated
from rotnet_keras.data.stores import NAMED, Progress
from rotnet_keras.data.tfds import fingerprints, open_builder, open_split_records, tfds_splits
from rotnet_keras.data.values.samples import Found, check_depth, sampled_headers
from rotnet_keras.errors import DataError
from rotnet_keras.files import read_file
from rotnet_keras.text import first_few

# Value of a mask where a pixel has no class.
VOID = 255
# An object takes some 200 bytes of XML.
MAX_XML_BYTES = 2**24


@dataclass(frozen=True)
class AnnotatedSplit:
    """Annotated images in a fixed order.

    Attributes:
        store: the encoded images.
        rows: (n,) int, the rows of the store that belong to the split.
        objects: of each image; None if masks were loaded.
        masks: the file of each image's mask, and the EXIF orientation to give it; None if objects were loaded.
        proposals: of each image, boxes (n, 4) float32 that may hold objects; None by default.
    """

    store: LazyImages
    rows: np.ndarray
    objects: list[Boxes] | None
    masks: list[tuple[Path, int]] | None
    proposals: list[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def size(self, position: int) -> tuple[int, int]:
        """Return the width and height of an image in pixels."""
        width, height = self.store.shapes[self.rows[position]]
        return int(width), int(height)

    def image(self, position: int) -> np.ndarray:
        """Return an image in its own size: (H, W, 3) uint8."""
        return self.store.whole_image(int(self.rows[position]))

    def mask(self, position: int) -> np.ndarray:
        """Return the mask of an image: (H, W) uint8 with 0 for background, then the classes, and 255 for void."""
        assert self.masks is not None
        return read_mask(*self.masks[position])


@dataclass(frozen=True)
class AnnotatedDataset:
    """A data set of images that are annotated with objects or masks.

    Attributes:
        name: the recipe's `data.name`.
        train: the training images.
        validation, test: None if there is no such split.
        class_names: without the background.
        fingerprint: changes when the images or annotations do.
        old_fingerprint: computes it as earlier versions did.
        notes: sentences for the user, for example about skipped images.
    """

    name: str
    train: AnnotatedSplit
    validation: AnnotatedSplit | None
    test: AnnotatedSplit | None
    class_names: list[str]
    fingerprint: str
    notes: list[str] = field(default_factory=list)
    old_fingerprint: Callable[[], str] | None = None


def load_annotated(
    data: AnnotatedData, masks: bool, progress: Progress = lambda what, done, total: None
) -> AnnotatedDataset:
    """Load the annotations of a data set; its images stay in their files.

    Args:
        data: the recipe's section `[data]`.
        masks: whether to load masks instead of objects.
        progress: called now and then while annotations are read.

    Raises:
        DataError: a split or its images are missing, an annotation is broken and `data.broken` is "refuse", or as of
            `check_depth`.
    """
    source = find_annotated(data)
    notes: list[str] = []
    broken: list[str] = []
    read = _read_voc_folder if isinstance(source, VocSource) else _read_tfds
    splits, fingerprint, old_fingerprint = read(source, data, masks, progress, broken, notes)  # type: ignore[arg-type]
    if broken:
        reasons = first_few(broken, NAMED, "; ")
        if data.broken == "refuse":
            raise DataError(f"{len(broken):,} annotations are broken: {reasons}. Skip them with data.broken=skip")
        notes.append(f"{len(broken):,} images with broken annotations are skipped: {reasons}")
    for name, split in splits.items():
        if not len(split):
            raise DataError(f"data.splits.{name}: the split has no images")
    return AnnotatedDataset(
        data.name,
        splits["train"],
        splits.get("validation"),
        splits.get("test"),
        list(data.classes),
        fingerprint,
        notes,
        old_fingerprint,
    )


@dataclass
class DrawnOn:
    """How boxes and masks were understood: how many images of each kind there were.

    Attributes:
        first: what the kit calls its first pixel: 1 as VOC does, or 0 as some programs do.
        zeros: images with a box that begins at 0.
        whole: images with a box that ends at the width or the height, as it can only where pixels count from 1.
        unspecified: objects of which the kit does not say whether they are difficult.
        stored: the annotation's `<size>` is that of the unrotated pixels, so that its boxes are rotated.
        unclear: `<size>` fits both, or is missing; the boxes count on the upright image.
        stored_masks: the mask has the size of the unrotated pixels, so that it is rotated.
        unclear_masks: the size of the mask fits both; it counts on the upright image.
    """

    first: int = 1
    zeros: int = 0
    whole: int = 0
    unspecified: int = 0
    stored: int = 0
    unclear: int = 0
    stored_masks: int = 0
    unclear_masks: int = 0

    def notes(self) -> list[str]:
        """Return sentences for the user."""
        sentences = (
            (self.stored, "the boxes of {} images with an EXIF orientation are rotated with the pixels: <size> says "
             "that they were drawn on unrotated ones"),
            (self.unclear, "the boxes of {} images with an EXIF orientation are taken as drawn on the upright image: "
             "<size> does not tell"),
            (self.stored_masks, "the masks of {} images with an EXIF orientation are rotated with the pixels: their "
             "size says that they were drawn on unrotated ones"),
            (self.unclear_masks, "the masks of {} images with an EXIF orientation are taken as drawn on the upright "
             "image: their size does not tell"),
            (self.unspecified, "{} objects are Unspecified as difficult or not, and count as not difficult"),
            (0 if self.first else self.zeros, "the boxes of {} images begin at 0, and none reaches an edge at the "
             "right or the bottom: pixels are counted from 0"),
        )  # fmt: skip
        return [text.format(f"{count:,}") for count, text in sentences if count]


def read_objects(
    file: Path, classes: Sequence[str], size: tuple[int, int], orientation: int = 1, drawn: DrawnOn | None = None
) -> Boxes:
    """Read the objects of an image from its XML file in `Annotations/`.

    Args:
        file: the XML file.
        classes: the known classes, in the order of their numbers.
        size: width and height of the upright image in pixels.
        orientation: EXIF's of the image, 1 to 8. If it exchanges width and height, `<size>` tells whether boxes were
            drawn on the upright image or on the unrotated pixels.
        drawn: says from which number pixels are counted, and receives how the boxes were understood.

    Raises:
        BrokenAnnotation: the file cannot be read, a class is unknown, or a box is not inside the image.
    """
    try:
        content = read_file(file, MAX_XML_BYTES)
    except OSError as error:
        raise BrokenAnnotation(f"its annotation {_why(file, error)}") from None
    try:
        root = ET.fromstring(content)
    except (ET.ParseError, ValueError, LookupError) as error:  # The last two are of encodings that the parser lacks.
        raise BrokenAnnotation(f"its annotation {_why(file, error)}") from None
    names, corners, difficult = [], [], []
    for item in root.iter("object"):
        names.append((item.findtext("name") or "").strip())
        try:
            left, top, right, bottom = (
                float(item.findtext(f"bndbox/{key}") or "") for key in ("xmin", "ymin", "xmax", "ymax")
            )
        except ValueError:
            raise BrokenAnnotation(f"an object {names[-1]!r} has no valid box") from None
        difficult.append(_is_difficult((item.findtext("difficult") or "0").strip(), names[-1], drawn))
        corners.append((top, left, bottom, right))
    array = np.array(corners).reshape(-1, 4)
    drawn = drawn or DrawnOn()
    drawn.zeros += bool((array[:, :2] == 0).any())
    drawn.whole += bool((array[:, 2] >= size[1]).any() or (array[:, 3] >= size[0]).any())
    array += np.array([-1, -1, 0, 0]) + (1 - drawn.first)
    if orientation != 1 and names:
        stored = size[::-1] if orientation in SIDEWAYS else size
        said = tuple((root.findtext(f"size/{key}") or "").strip() for key in ("width", "height"))
        on_stored = stored != size and said == tuple(map(str, stored))
        if on_stored:
            array = upright_corners(array, stored, orientation)
        drawn.stored += on_stored
        drawn.unclear += not on_stored and (stored == size or said != tuple(map(str, size)))
    return check_objects(names, array, np.array(difficult, bool), classes, size)


def _is_difficult(text: str, name: str, drawn: DrawnOn | None) -> bool:
    if text.casefold() == "unspecified":
        if drawn:
            drawn.unspecified += 1
        return False
    if text not in ("0", "1"):
        raise BrokenAnnotation(f"an object {name!r} has <difficult> {text!r:.40}: expected 0 or 1")
    return text == "1"


def read_mask(file: Path, orientation: int = 1) -> np.ndarray:
    """Read the class numbers of a mask from a palette PNG: (H, W) uint8.

    Args:
        file: the mask.
        orientation: EXIF's of the image if the mask was drawn on its unrotated pixels: it is transposed as they are.

    Raises:
        BrokenAnnotation: the file is missing, or has colours instead of class numbers.
    """
    try:
        with open_image(file) as image, decoded(image):
            if image.mode not in ("P", "L"):
                raise BrokenAnnotation(f"its mask has colours ({image.mode}) instead of class numbers")
            return np.asarray(transpose(image, orientation), np.uint8)
    except UnreadableImage as error:
        raise BrokenAnnotation(f"its mask {_why(file, error)}") from None


def _why(file: Path, error: Exception) -> str:
    if not file.exists():
        return "is missing"
    return "is empty" if file.is_file() and not file.stat().st_size else f"cannot be read ({error})"


def check_mask(mask: np.ndarray, classes: int, size: tuple[int, int]) -> None:
    """Check that a mask has the size of its image and known classes only.

    Args:
        classes: number of classes without the background.
        size: width and height of the image in pixels.

    Raises:
        BrokenAnnotation: the size differs, or a class is unknown.
    """
    if mask.shape != size[::-1]:
        raise BrokenAnnotation(
            f"its mask has {mask.shape[1]} x {mask.shape[0]} pixels, but the image has {size[0]} x {size[1]}"
        )
    values = np.unique(mask)
    unknown = values[(values > classes) & (values != VOID)]
    if len(unknown):
        raise BrokenAnnotation(f"its mask has the value {unknown[0]}, but there are only {classes} classes")


def _mask_orientation(file: Path, data: AnnotatedData, header: decoding.Header, drawn: DrawnOn) -> int:
    """Return the EXIF orientation to give a mask: its image's if it has the size of the unrotated pixels, else 1.

    Raises:
        BrokenAnnotation: as of `read_mask` and `check_mask`.
    """
    mask, size, orientation = read_mask(file), (header.width, header.height), header.orientation
    # Of pixels that are exchanged the rows are the columns; a square tells nothing.
    on_stored = orientation in SIDEWAYS and size[0] != size[1] and mask.shape == size
    check_mask(mask, len(data.classes), size[::-1] if on_stored else size)
    drawn.stored_masks += on_stored
    drawn.unclear_masks += orientation != 1 and (orientation not in SIDEWAYS or size[0] == size[1])
    return orientation if on_stored else 1


def _read_voc_folder(
    source: VocSource,
    data: AnnotatedData,
    masks: bool,
    progress: Progress,
    broken: list[str],
    notes: list[str],
    first: int = 1,
) -> tuple[dict[str, AnnotatedSplit], str, Callable[[], str]]:
    splits, sampled = {}, dict[str, list[Found]]()
    drawn = DrawnOn(first)
    for split, names in source.image_names(data, masks).items():
        files, objects, mask_files = FileList(source.root), [], []
        shapes = []
        for done, name in enumerate(names, 1):
            image = source.root / source.image_file(name)
            try:
                header = _read_header(image)
                size = header.width, header.height
                if masks:
                    mask = source.root / "SegmentationClass" / f"{name}.png"
                    mask_files.append((mask, _mask_orientation(mask, data, header, drawn)))
                else:
                    file = source.root / "Annotations" / f"{name}.xml"
                    objects.append(read_objects(file, data.classes, size, header.orientation, drawn))
            except BrokenAnnotation as error:
                broken.append(f"{name}: {error}")
                continue
            files.append(source.image_file(name))
            shapes.append(size)
            if done % 100 == 0 or done == len(names):
                progress(f"reading {split} annotations", done, len(names))
        sampled[split] = sampled_headers([files])
        store = FolderImages(
            files,
            np.arange(len(files)),
            shapes=np.array(shapes, np.int32).reshape(-1, 2),
            fit=Fit.of(data.size),
            channels=3,
            whole=True,
            report=notes.append,
        )
        splits[split] = AnnotatedSplit(
            store, np.arange(len(files)), None if masks else objects, mask_files if masks else None
        )
    if first and drawn.zeros and not drawn.whole:
        broken.clear()
        return _read_voc_folder(source, data, masks, progress, broken, notes, 0)
    what = f"data.name: the values of the 16-bit files in {source.root}"
    check_depth(sampled, what, "or save the images with 8 bits")
    notes += drawn.notes()
    return splits, source.fingerprint(data, masks, progress), partial(source.old_fingerprint, data, masks)


def _read_header(image: Path) -> decoding.Header:
    try:
        return decoding.read_header(image)
    except decoding.UnreadableImage as error:
        raise BrokenAnnotation(f"the image {_why(image, error)}") from None


def _read_tfds(
    source: TfdsSource, data: AnnotatedData, masks: bool, progress: Progress, broken: list[str], notes: list[str]
) -> tuple[dict[str, AnnotatedSplit], str, Callable[[], str]]:
    if masks:
        raise DataError(f"data.name: {data.name!r} has no masks; name a folder in VOC's layout, .../VOC2012")
    _, info = open_builder(source)
    try:
        names = info.features["objects"].feature["label"].names
    except (KeyError, AttributeError):
        raise DataError(
            f"data.name: {data.name!r} has no objects; its features are {', '.join(info.features)}"
        ) from None
    splits = {}
    for split, asked in tfds_splits(info, data.splits).items():
        options = {"fit": Fit.of(data.size), "channels": 3, "whole": True, "report": notes.append}
        store, _ = open_split_records(info, asked, ("image", None), options, progress, broken)
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
    return splits, *fingerprints(info, tfds_splits(info, data.splits).values(), map(len, splits.values()), progress)


def _objects_of(example: Any, names: Sequence[str], classes: Sequence[str], size: tuple[int, int]) -> Boxes:
    feature = example.features.feature
    # Corners as VOC counts them, divided by the sides of the image.
    corners = np.array(feature["objects/bbox"].float_list.value, np.float64).reshape(-1, 4)
    corners = np.round(corners * [size[1], size[0], size[1], size[0]], 3) - [1, 1, 0, 0]
    difficult = np.array(feature["objects/is_difficult"].int64_list.value, bool)
    numbers = feature["objects/label"].int64_list.value
    if not all(0 <= number < len(names) for number in numbers):
        raise BrokenAnnotation(f"expected labels below {len(names)}, got {list(numbers)}")
    return check_objects([names[number] for number in numbers], corners, difficult, classes, size)
