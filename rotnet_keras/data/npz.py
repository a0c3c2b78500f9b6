"""Reading images from an .npz file of arrays."""

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rotnet_keras.config.sections import Data
from rotnet_keras.data import decoding
from rotnet_keras.data.crops import fit_of
from rotnet_keras.data.sources import ARRAY_NAMES, ArraySource
from rotnet_keras.data.stores import Split
from rotnet_keras.errors import DataError
from rotnet_keras.text import first_few, percent

# More classes than this, and more than images, are a mistake; a confusion matrix of them would not fit into memory.
MANY_CLASSES = 1000
# The label of an image whose class is unknown.
UNLABELLED = -1
# The largest share of a split's values that may lie outside the range of the training images.
MOST_CLIPPED = 0.01
# No image has a side of so few pixels, and none has so many channels, unless axes are in another order.
FEW, MANY = 4, 4096

# NumPy reads no header of more than 10,000 characters.
MAX_HEADER_BYTES = 2**16
# Values that are looked at to see whether all are bytes on another scale, and how far from these they may lie: what
# rounding to 16-bit floats leaves of a level.
LOOKED_AT, ROUNDING = 1_000_000, 0.13

# The lowest and the highest value of an array, as its pixels are scaled.
Range = tuple[float, float]


def read_arrays(source: ArraySource, data: Data, notes: list[str]) -> tuple[dict[str, Split], list[str]]:
    """Read the splits and class names of an .npz file.

    Args:
        notes: receives sentences about how pixel values were scaled or kept, and about images without labels.

    Raises:
        DataError: the file is damaged, or its arrays are not images and labels, or the values of a split do not fit
            those of the training images.
    """
    if data.whole:
        raise DataError("data.whole: only image files have parts outside the central square; leave it out for arrays")
    found: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
    try:
        with np.load(source.path, allow_pickle=False) as archive:
            names = array_names(archive.files)
            for split, (x, y) in names.items():
                found[split] = archive[x], None if y is None else archive[y]
            class_names = [str(name) for name in archive["class_names"]] if "class_names" in archive else []
            present = ", ".join(archive.files)
    except Exception as error:  # A damaged archive raises zip, zlib, value and end-of-file errors.
        raise DataError(f"{source.path}: cannot be read: {error}") from None
    if "train" not in found:
        raise DataError(f"{source.path}: no array x_train, train_images, images or x; found: {present}")
    for split, (pixels, _) in found.items():
        check_shape(pixels.shape, f"{source.path}: {names[split][0]}")
    every_label = {
        split: _integer_labels(labels, len(pixels), f"{source.path}: {names[split][1]}")
        for split, (pixels, labels) in found.items()
        if labels is not None
    }
    arrays = {split: pixels for split, (pixels, _) in found.items()}
    ranges = _ranges(arrays, source.path, notes)
    deep = _is_deep(arrays["train"], ranges["train"])
    del arrays
    known = max((int(labels.max()) + 1 for labels in every_label.values()), default=0)
    splits = {}
    for split in list(found):
        pixels, _ = found.pop(split)
        pixels = pixels if pixels.ndim == 4 else pixels[..., None]
        scaled = _on_scale(pixels, ranges[split], ranges["train"]) if deep else _scale(pixels, ranges[split])
        store = _fitted(scaled, data, source.path)
        splits[split] = Split(store, np.arange(len(store)), every_label.get(split) if known else None)
    if len({split.store.shape[1:] for split in splits.values()}) > 1:
        shapes = ", ".join(f"{name} {split.store.shape[1:]}" for name, split in splits.items())
        raise DataError(f"{source.path}: the splits differ in shape ({shapes}); set data.size and data.channels")
    if class_names and known > len(class_names):
        raise DataError(f"{source.path}: labels go up to {known - 1}, but class_names has {len(class_names)} names")
    labelled = sum(len(split) for split in splits.values() if split.labels is not None)
    if not class_names and known > max(MANY_CLASSES, labelled):
        raise DataError(
            f"{source.path}: labels go up to {known - 1} for {labelled} images: expected class numbers from 0 without "
            "large gaps. numpy.unique(labels, return_inverse=True)[1] renumbers labels."
        )
    class_names = (class_names or [str(i) for i in range(known)]) if known else []
    for split, labels in every_label.items():
        if without := int((labels == UNLABELLED).sum()):
            notes.append(f"{without:,} of {len(labels):,} {split} images have the label -1: their class is unknown")
    return splits, class_names


def check_arrays(source: ArraySource) -> list[tuple[str, str]]:
    """Check every split of an .npz file; pixels are read only where they are no bytes.

    Returns:
        (what, sentence) of the layout, the splits, the classes and the values.

    Raises:
        DataError: as of `read_arrays`, for what can be seen without resizing images.
    """
    path = source.path
    notes: list[str] = []
    try:
        with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as arrays:
            names = array_names(arrays.files)
            headers = {split: read_array_header(archive, f"{x}.npy") for split, (x, _) in names.items()}
            if "train" not in names:
                raise DataError(
                    f"{path}: no array x_train, train_images, images or x; found: {', '.join(arrays.files)}"
                )
            for split, (shape, _) in headers.items():
                check_shape(shape, f"{path}: {names[split][0]}")
            labels = {
                split: _integer_labels(arrays[y], headers[split][0][0], f"{path}: {y}")
                for split, (_, y) in names.items()
                if y is not None
            }
            if any(dtype != np.uint8 for _, dtype in headers.values()):
                _ranges({split: arrays[x] for split, (x, _) in names.items()}, path, notes)
            unused = sorted(set(arrays.files) - {name for pair in names.values() for name in pair} - {"class_names"})
    except DataError:
        raise
    except Exception as error:  # A damaged archive raises nearly anything.
        raise DataError(f"{path}: cannot be read: {error}") from None
    shape = headers["train"][0]
    found = [
        ("layout", f"arrays {', '.join(x for x, _ in names.values())}, axes (N, H, W{', C' * (len(shape) == 4)})"),
        ("splits", ", ".join(f"{shape[0]:,} {split}" for split, (shape, _) in headers.items())),
    ]
    known = max((int(each.max()) + 1 for each in labels.values()), default=0)
    unknown = sum(int((each == UNLABELLED).sum()) for each in labels.values())
    without = f"; {unknown:,} images have the label -1 for an unknown one" if unknown else ""
    found.append(("classes", (f"{known:,}" if known else "none: no labels") + without))
    found.append(("channels", str(shape[3] if len(shape) == 4 else 1)))
    found.append(("values", "; ".join(notes) or "bytes, 0 to 255"))
    found.append(("left out", f"arrays of other names: {first_few(unused)}" if unused else "nothing"))
    return found


def array_names(present: list[str]) -> dict[str, tuple[str, str | None]]:
    """Return the names of the arrays of images and of labels of each split that an .npz file has."""
    found: dict[str, tuple[str, str | None]] = {}
    for split, pairs in ARRAY_NAMES.items():
        for x, y in pairs:
            if x in present and split not in found:
                found[split] = x, y if y in present else None
    return found


def read_array_header(archive: zipfile.ZipFile, member: str) -> tuple[tuple[int, ...], np.dtype]:
    """Read the shape and dtype of an array in an .npz file without the array itself.

    Raises:
        ValueError: the array is damaged.
    """
    with archive.open(member) as opened:
        file = io.BytesIO(opened.read(MAX_HEADER_BYTES))
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except Exception as error:  # NumPy parses it as Python: errors of the tokenizer, of types, of memory.
        raise ValueError(f"{member} has a header that cannot be read: {type(error).__name__}") from None
    if math.prod(shape) * dtype.itemsize != archive.getinfo(member).file_size - file.tell():
        raise ValueError(f"{member} is not as long as its header says")
    return shape, dtype


def check_shape(shape: tuple[int, ...], what: str) -> None:
    """Check that an array holds images (N, H, W) or (N, H, W, C).

    Args:
        what: the file and the array, for the error.

    Raises:
        DataError: it does not, or its axes seem to be in another order.
    """
    axes = None
    if len(shape) == 4:
        _, height, width, channels = shape
        if (height <= FEW < min(width, channels)) or (height != width == channels and height < width):
            axes = "(N, C, H, W)", "transpose(0, 2, 3, 1)"
        elif width <= FEW < height and channels > FEW:
            axes = "(H, W, C, N)", "transpose(3, 0, 1, 2)"
        elif channels > MANY:
            axes = "(C, H, W, N)", "transpose(3, 1, 2, 0)"
    elif len(shape) == 3 and shape[0] == shape[1] and shape[2] > max(MANY, shape[0]):
        axes = "(H, W, N)", "transpose(2, 0, 1)"
    if axes:
        raise DataError(
            f"{what}: shape {shape} looks like {axes[0]}, and (N, H, W, C) is expected: save the array as x.{axes[1]}"
        )
    if len(shape) not in (3, 4) or not math.prod(shape):
        raise DataError(f"{what}: expected images (N, H, W) or (N, H, W, C), got {shape}")


def _ranges(found: Mapping[str, np.ndarray], path: Path, notes: list[str]) -> dict[str, Range]:
    """Return the range of values that each split is scaled from: its own from 0 to 1 or 0 to 255, else that of train.

    Raises:
        DataError: the values of a split are on another scale than those of the training images.
    """
    extent = {split: _extent(pixels, f"{path}: the {split} images") for split, pixels in found.items()}
    own = {split: _own_range(found[split].dtype, extent[split]) for split in found}
    common = own["train"] or extent["train"]
    whole = found["train"].dtype.kind in "iu"
    ranges = {}
    for split, pixels in found.items():
        low, high = extent[split]
        if low == high == 0:
            ranges[split] = common
        elif own["train"] and own[split] and not (own[split] != common and whole and pixels.dtype.kind in "iu"):
            # Fractions from 0 to 1 and numbers from 0 to 255 are the same pixels.
            ranges[split] = own[split] or common
        else:
            outside = float(((pixels < common[0]) | (pixels > common[1])).mean())
            narrow = high - low < MOST_CLIPPED * (common[1] - common[0])
            scaled = common[0] < 0 and (low, high) in ((0.0, 1.0), (0.0, 255.0))
            if outside > MOST_CLIPPED or (split != "train" and (narrow or scaled)):
                raise DataError(
                    f"{path}: the training images have values from {extent['train'][0]:g} to {extent['train'][1]:g}, "
                    f"the {split} images from {low:g} to {high:g}: save all of them on one scale"
                )
            if outside:
                notes.append(
                    f"{percent(outside, 2)} of the values of the {split} images lie outside the range and are clipped"
                )
            ranges[split] = common
    if any(pixels.dtype != np.uint8 for pixels in found.values()):
        others = [
            f"those of the {split} images from [{r[0]:g}, {r[1]:g}]" for split, r in ranges.items() if r != common
        ]
        scales = ", ".join([f"from [{common[0]:g}, {common[1]:g}]", *others])
        low, high = extent["train"]
        notes.insert(
            0,
            f"pixel values from {low:g} to {high:g} are kept as they are; the model scales them from percentiles of "
            "the training images, and its exports take such values"
            if _is_deep(found["train"], common)
            else f"pixel values are scaled {scales} to [0, 255]; scale images for the exported model alike",
        )
    return ranges


def _extent(pixels: np.ndarray, what: str) -> Range:
    """Return the lowest and the highest value."""
    if pixels.dtype == np.uint8:
        return 0.0, 255.0
    if pixels.dtype.kind not in "iufb" or not pixels.size:
        raise DataError(f"{what}: expected an array of numbers, got one of type {pixels.dtype}")
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():
        count = int((~np.isfinite(pixels)).sum())
        raise DataError(
            f"{what}: {count:,} of {pixels.size:,} values are no finite numbers (NaN or infinite); replace them by a "
            "number, or leave out the images that have some"
        )
    return low, high


def _is_deep(pixels: np.ndarray, wanted: Range) -> bool:
    """Return whether bytes would lose something of the training images: their values are kept as they are, then."""
    if pixels.dtype.kind == "b" or pixels.dtype == np.uint8:
        return False
    if wanted not in ((0.0, 1.0), (0.0, 255.0)):
        return True
    if pixels.dtype.kind in "iu":
        return False
    sample = pixels.reshape(-1)[:: max(1, pixels.size // LOOKED_AT)].astype(np.float64) * (255 / wanted[1])
    return bool(np.abs(sample - np.rint(sample)).max() > ROUNDING)


def _on_scale(pixels: np.ndarray, own: Range, common: Range) -> np.ndarray:
    """Return the values of a split as they are, on the scale of the training images: float32."""
    values = pixels.astype(np.float32)
    return values if own == common or own[1] == common[1] else values * np.float32(common[1] / own[1])


def _own_range(dtype: np.dtype, extent: Range) -> Range | None:
    """Return the range that values have by themselves: bytes, or 0 to 1; None for any other."""
    low, high = extent
    if dtype == np.uint8:
        return 0.0, 255.0
    if low < 0 or high > 255:
        return None
    return (0.0, 1.0) if high <= 1 else (0.0, 255.0)


def _scale(pixels: np.ndarray, wanted: Range) -> np.ndarray:
    """Scale pixel values to uint8."""
    low, high = wanted
    if pixels.dtype == np.uint8 and wanted == (0, 255):
        return pixels
    share = (pixels.astype(np.float32) - low) / max(high - low, 1e-12)
    return np.round(255 * np.clip(share, 0, 1)).astype(np.uint8)


def _integer_labels(labels: np.ndarray, count: int, what: str) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or labels.min() < UNLABELLED:
        raise DataError(
            f"{what}: expected {count} class numbers from 0, or -1 where the class is unknown, got {labels.dtype} "
            f"{labels.shape}"
        )
    return labels.astype(np.int64)


def _fitted(pixels: np.ndarray, data: Data, path: Path) -> np.ndarray:
    """Return images (N, H, W, C) in the shape and the channels of a recipe."""
    height, width, channels = pixels.shape[1:]
    wanted = data.channels if data.channels and channels in (1, 3) else channels
    if data.channels and wanted != data.channels:
        raise DataError(f"{path}: {channels} channels cannot be converted to {data.channels}; leave data.channels out")
    fit = fit_of(data, (height, width))
    assert fit is not None
    if (height, width) == fit.shape and wanted == channels:
        return pixels
    return np.stack([decoding.convert_channels(decoding.resize_array(p, fit), wanted) for p in pixels])
