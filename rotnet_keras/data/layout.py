"""Understanding how a folder of images is laid out: splits, classes, and what of it is not used."""

import os
import re
import unicodedata
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rotnet_keras.data.listing.file_list import FileList
from rotnet_keras.errors import DataError
from rotnet_keras.text import first_few

# The image formats that Pillow reads, by its names for them, and the suffixes of their files.
PILLOW_FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jfif", ".jpe"),
    "PNG": (".png",),
    "WebP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
}
# The suffixes of the formats that `values/files.py` reads itself.
VALUE_SUFFIXES = (".npy", ".dcm")
IMAGE_SUFFIXES = (*(suffix for suffixes in PILLOW_FORMATS.values() for suffix in suffixes), *VALUE_SUFFIXES)
# Suffixes of images in formats that are not read; files with others are taken for text, lists and the like.
UNREAD_SUFFIXES = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx", ".jif", ".apng", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".tga", ".dds", ".ico", ".svg", ".psd", ".exr", ".hdr", ".dicom", ".nii", ".npz", ".mat", ".pdf"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".zip", ".tar", ".gz"),
)
# The usual names of the folders of a split; `SPELLING` matches others, in lower case with _ between the words.
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
SPELLING = re.compile(
    r"(?:seg|imgs?|images?|data|dataset)?_?(?:(train|training)|(val|valid|validation|dev)|(test|testing))"
    r"_?(?:set|data|imgs?|images?|split)?_?\d{0,4}"
)
# Folders around the splits that are stepped into, as archives often have one.
MOST_WRAPPERS = 3
# What macOS puts beside the folders of an archive.
NO_DATA = "__MACOSX"


@dataclass
class LeftOut:
    """What lies below a folder and is not used.

    Attributes:
        suffixes: number of files by suffix, of those that are not read.
        hidden: number of hidden files and folders.
        links: links to folders that are in use already.
        unfollowed: links to folders where none is followed.
        closed: folders that may not be read.
        merged: folders of classes whose name is that of another in a different Unicode form; their images are used.
        images: a sentence for each group of images that are left out, with their number.
    """

    suffixes: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    links: list[str] = field(default_factory=list)
    unfollowed: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    merged: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)

    def warnings(self) -> list[str]:
        """Return sentences about what a user would miss or not expect."""
        unread = Counter({suffix: n for suffix, n in self.suffixes.items() if suffix in UNREAD_SUFFIXES})
        found = list(self.images)
        if unread:
            found.append(f"{unread.total():,} files have formats that are not read: {_counted(unread)}")
        if self.links:
            found.append(f"links to folders whose images are used already are not followed: {first_few(self.links)}")
        if self.unfollowed:
            found.append(f"links to folders are not followed: {first_few(self.unfollowed)}")
        if self.closed:
            found.append(f"folders that may not be read: {first_few(self.closed)}")
        if self.merged:
            found.append(f"two folders are one class, its name spelled in two Unicode forms: {first_few(self.merged)}")
        return found

    def lines(self) -> list[str]:
        """Return a sentence for each kind of thing that is left out."""
        others = Counter({suffix: n for suffix, n in self.suffixes.items() if suffix not in UNREAD_SUFFIXES})
        found = self.warnings()
        if others:
            found.append(f"{others.total():,} files are no images: {_counted(others)}")
        if self.hidden:
            found.append(f"hidden files and folders: {self.hidden:,}")
        return found


@dataclass(frozen=True)
class Layout:
    """How a folder of images was understood.

    Attributes:
        files: the files of each split that has any.
        labels: the class index of each file, by split; empty without classes.
        class_names: the names of the classes; empty without classes.
        understood: (what, sentence) of the layout, the splits and the classes.
        left_out: what is not used.
    """

    files: dict[str, FileList]
    labels: "dict[str, array[int]]"
    class_names: list[str]
    understood: list[tuple[str, str]]
    left_out: LeftOut


def read_layout(root: Path) -> Layout:
    """Find the splits and the classes of a folder of images.

    A folder is flat, has a folder for each class, or has a folder for each split above either. Labels are optional:
    where images lie beside the folders of classes, or where there is one class, there are none.

    Raises:
        DataError: there are no training images, or several folders may be the same split.
    """
    try:
        roots, others = _split_folders(root)
    except OSError as error:
        raise DataError(f"data.name: {root.absolute()} may not be read: {error.strerror}") from None
    left_out = LeftOut()
    entered = [os.path.realpath(folder) for folder in roots.values()] or [os.path.realpath(root)]
    files = {split: find_image_files(folder, left_out, entered) for split, folder in (roots or {"train": root}).items()}
    if not len(files["train"]):
        raise DataError(
            f"data.name: there are no images in {files['train'].root.absolute()} (looked for "
            f"{', '.join(s[1:] for s in IMAGE_SUFFIXES)}, also in subfolders{_describe_others(left_out.suffixes)})"
            f"{'. For images in tar files, set data.name=FOLDER/*.tar' if left_out.suffixes['.tar'] else ''}"
        )
    if roots:
        _count_beside(root, roots, others, left_out)
    files, labels, class_names, why_none = _labels(files, left_out)
    understood = [("layout", _layout(roots, class_names, files["train"]))]
    folders = {split: f" ({os.path.relpath(roots[split], root)})" if roots else "" for split in files}
    understood.append(("splits", ", ".join(f"{len(f):,} {split}{folders[split]}" for split, f in files.items())))
    understood.append(("classes", f"{len(class_names):,}: {first_few(class_names)}" if class_names else why_none))
    return Layout(files, labels, class_names, understood, left_out)


def find_image_files(root: Path, left_out: LeftOut | None = None, entered: list[str] | None = None) -> FileList:
    """Return the image files below a folder in sorted order. Hidden files and folders are passed over.

    Args:
        left_out: counts what is no image.
        entered: real paths of the folders in use. A link is followed unless it leads into one of them or above one:
            that would be a loop, or use images twice. Followed ones are added. None follows no link.
    """
    left_out = LeftOut() if left_out is None else left_out
    found = FileList(root)

    def closed(error: OSError) -> None:
        left_out.closed.append(os.path.relpath(error.filename, root))

    for folder, folders, files in os.walk(root, onerror=closed, followlinks=entered is not None):
        below = os.path.relpath(folder, root)
        kept, images = [], []
        for name in sorted(folders):
            path = Path(folder, name)
            if name.startswith("."):
                left_out.hidden += 1
            elif path.is_symlink() and (entered is None or not _enter(path, entered)):
                (left_out.unfollowed if entered is None else left_out.links).append(str(Path(below, name)))
            else:
                kept.append(name)
        folders[:] = kept
        for name in sorted(files):
            if name.startswith("."):
                left_out.hidden += 1
            elif name.lower().endswith(IMAGE_SUFFIXES):
                images.append(name)
            else:
                left_out.suffixes[Path(name).suffix.lower() or "no suffix"] += 1
        found.extend("" if below == os.curdir else below, images)
    return found


def _enter(link: Path, entered: list[str]) -> bool:
    target = os.path.realpath(link)
    if any(os.path.commonpath([target, folder]) in (target, folder) for folder in entered):
        return False
    entered.append(target)
    return True


def _split_folders(root: Path, wrappers: int = 0) -> tuple[dict[str, Path], list[str]]:
    """Return the folder of each split, and the names of the folders beside them; nothing if there are no splits."""
    names = sorted(p.name for p in root.iterdir() if not p.name.startswith((".", NO_DATA)) and p.is_dir())
    candidates: dict[str, list[str]] = {split: [] for split in SPLIT_FOLDERS}
    for name in names:
        if split := split_of(name):
            candidates[split].append(name)
    if not candidates["train"]:
        if len(names) == 1 and wrappers < MOST_WRAPPERS:
            roots, others = _split_folders(root / names[0], wrappers + 1)
            return (roots, others) if len(roots) > 1 else ({}, [])
        return {}, []
    chosen = {}
    for split, spelled in candidates.items():
        usual = [name for name in spelled if name in SPLIT_FOLDERS[split]]
        if len(usual or spelled) > 1:
            raise DataError(
                f"data.name: several folders of {root.absolute()} may be the {split} split: "
                f"{first_few(usual or spelled)}. Rename or move all but one"
            )
        if spelled:
            chosen[split] = (usual or spelled)[0]
    others = [name for name in names if name not in chosen.values()]
    inner = [path for path in (root / chosen["train"]).iterdir() if path.is_dir()]
    alone = len(chosen) == 1 and not any(_any_images(folder) for folder in inner)
    # A class may be called like a split, as in VOC's bus, car and train.
    if alone and any(_any_images(root / name) for name in others):
        return {}, []
    return {split: root / name for split, name in chosen.items()}, others


def split_of(name: str) -> str | None:
    """Return the split that a folder of this name usually holds: "Train", "seg_train" and "training set" are train."""
    match = SPELLING.fullmatch(re.sub(r"[-. ]+", "_", unicodedata.normalize("NFC", name).casefold()))
    return None if match is None else list(SPLIT_FOLDERS)[next(n for n in range(3) if match[n + 1])]


def _any_images(folder: Path) -> bool:
    """Whether a folder holds images, below it too."""
    walk = os.walk(folder)
    return any(not n.startswith(".") and n.lower().endswith(IMAGE_SUFFIXES) for _, _, names in walk for n in names)


def _count_beside(root: Path, roots: dict[str, Path], others: list[str], left_out: LeftOut) -> None:
    """Count what lies beside the folders of the splits."""
    inside = next(iter(roots.values())).parent
    for name in others:
        if count := len(find_image_files(inside / name, left_out)):
            left_out.images.append(f"{count:,} images in {name} are left out: it is beside the folders of the splits")
    loose, between = 0, [inside]
    while between[-1] != root:
        between.append(between[-1].parent)
    for folder in between:
        for path in folder.iterdir():
            if path.name.startswith("."):
                left_out.hidden += 1
            elif path.name.lower().endswith(IMAGE_SUFFIXES):
                loose += path.is_file()
            elif not path.is_dir():
                left_out.suffixes[path.suffix.lower() or "no suffix"] += 1
    if loose:
        left_out.images.append(f"{loose:,} images beside the folders of the splits are left out")


def _labels(
    files: dict[str, FileList], left_out: LeftOut
) -> "tuple[dict[str, FileList], dict[str, array[int]], list[str], str]":
    """Return the files that are used, their labels and the class names; and why there are no classes, if so."""
    files = {split: found for split, found in files.items() if len(found)}
    of_folder = _classes(files["train"])
    folders: Counter[str] = Counter()
    for folder, count in files["train"].counts().items():
        folders[of_folder[folder]] += count
    loose = folders.pop("", 0)
    # The first spelling of a class names it, and its place among the others is that of this name.
    names: dict[str, str] = {}
    for name in sorted(folders):
        first = names.setdefault(_key(name), name)
        if first != name:
            left_out.merged.append(name)
    if loose and folders:
        beside = next(name for name in files["train"].names() if not of_folder[os.path.dirname(name)])  # noqa: PTH120
        why = (
            f"none: {loose:,} images lie beside the {len(names):,} folders, for example {beside}; move them for labels"
        )
        return files, {}, [], why
    if len(names) < 2:
        return files, {}, [], "none: no folder for each class"
    index = {key: number for number, key in enumerate(names)}
    used, labels = {}, {}
    for split, found in files.items():
        unknown: Counter[str] = Counter()
        of_folder = _classes(found)
        for folder, count in found.counts().items():
            if _key(of_folder[folder]) not in index:
                unknown[of_folder[folder]] += count
        if unaware := unknown.pop("", 0):
            left_out.images.append(f"{unaware:,} {split} images are left out: they lie in no folder of a class")
        if unknown:
            left_out.images.append(
                f"{unknown.total():,} {split} images are left out: no training images of their classes "
                f"({first_few(sorted(unknown))})"
            )
        kept = found.in_folders({folder for folder, name in of_folder.items() if _key(name) in index})
        if len(kept):
            numbers = [index.get(_key(of_folder[folder]), -1) for folder in kept.folders]
            used[split], labels[split] = kept, array("i", (numbers[number] for number in kept.folder_numbers))
    return used, labels, list(names.values()), ""


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _classes(files: FileList) -> dict[str, str]:
    """Return the first folder on the path of each folder of files; an empty string for the root itself.

    A folder that holds all files and is called as the split, as in seg_train/seg_train, is stepped over.
    """
    again = files.root.name + os.sep
    whole = {folder: f"{folder}{os.sep}" if folder else "" for folder in files.folders}
    nested = split_of(files.root.name) is not None and all(path.startswith(again) for path in whole.values())
    skip = len(again) if nested else 0
    return {folder: path[skip:].partition(os.sep)[0] for folder, path in whole.items()}


def _layout(roots: dict[str, Path], class_names: list[str], train: FileList) -> str:
    flat = not class_names and not any(train.folders)
    inner = "a folder for each class" if class_names else "images in no folder" if flat else "folders without classes"
    if roots:
        return f"a folder for each split, in it {inner}"
    named = [name for name in class_names if split_of(name)]
    return inner + (f"; {first_few(named)}: taken for a class, not for a split" if named else "")


def _counted(suffixes: Counter[str]) -> str:
    return first_few([f"{count:,} {suffix}" for suffix, count in suffixes.most_common()])


def _describe_others(other: Counter[str]) -> str:
    """Return a clause about the files that are not images."""
    if not other:
        return "; the folder has no other files either"
    kinds = ", ".join(suffix for suffix, _ in other.most_common(3))
    return f"; found {other.total():,} other files: {kinds}"
