"""Reading images from an .npz file of arrays."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from rotnet_keras.config.sections import Data
from rotnet_keras.data import decoding
from rotnet_keras.data.sources import ARRAY_NAMES, ArraySource
from rotnet_keras.data.stores import Split
from rotnet_keras.errors import DataError

# More classes than this, and more than images, are a mistake; a confusion matrix of them would not fit into memory.
MANY_CLASSES = 1000


def read_arrays(source: ArraySource, data: Data, notes: list[str]) -> tuple[dict[str, Split], list[str]]:
    """Read the splits and class names of an .npz file.

    Args:
        notes: receives a sentence about how pixel values were scaled.

    Raises:
        DataError: the file is damaged, or its arrays are not images and labels.
    """
    if data.whole:
        raise DataError("data.whole: only image files have parts outside the central square; leave it out for arrays")
    found: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
    try:
        with np.load(source.path, allow_pickle=False) as archive:
            for split, names in ARRAY_NAMES.items():
                for x, y in names:
                    if x in archive and split not in found:
                        found[split] = archive[x], archive.get(y)
            class_names = [str(name) for name in archive["class_names"]] if "class_names" in archive else []
            present = ", ".join(archive.files)
    except Exception as error:  # A damaged archive raises zip, zlib, value and end-of-file errors.
        raise DataError(f"{source.path}: cannot be read: {error}") from None
    if "train" not in found:
        raise DataError(f"{source.path}: no array x_train, train_images, images or x; found: {present}")
    scale = _pixel_scale(found["train"][0], notes)
    splits = {}
    for split, (pixels, labels) in found.items():
        if pixels.ndim == 3:
            pixels = pixels[..., None]
        if pixels.ndim != 4 or not len(pixels):
            raise DataError(f"{source.path}: {split} images: expected (N, H, W, C), got {pixels.shape}")
        if labels is not None:
            labels = _integer_labels(labels, len(pixels), f"{source.path}: {split} labels")
        store = _square_store(scale(pixels), data, source.path)
        splits[split] = Split(store, np.arange(len(store)), labels)
    if len({split.store.shape[1:] for split in splits.values()}) > 1:
        shapes = ", ".join(f"{name} {split.store.shape[1:]}" for name, split in splits.items())
        raise DataError(f"{source.path}: the splits differ in shape ({shapes}); set data.size and data.channels")
    known = max((int(split.labels.max()) + 1 for split in splits.values() if split.labels is not None), default=0)
    if class_names and known > len(class_names):
        raise DataError(f"{source.path}: labels go up to {known - 1}, but class_names has {len(class_names)} names")
    labelled = sum(len(split) for split in splits.values() if split.labels is not None)
    if not class_names and known > max(MANY_CLASSES, labelled):
        raise DataError(
            f"{source.path}: labels go up to {known - 1} for {labelled} images: expected class numbers from 0 without "
            "large gaps. numpy.unique(labels, return_inverse=True)[1] renumbers labels."
        )
    return splits, (class_names or [str(i) for i in range(known)]) if known else []


def _pixel_scale(train: np.ndarray, notes: list[str]) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that scales pixel values to uint8, chosen by the training images for all splits."""
    if train.dtype == np.uint8:
        return lambda pixels: pixels
    if train.dtype.kind not in "iufb" or not train.size:
        raise DataError(f"data.name: expected images of numbers, got an array of type {train.dtype}")
    low, high = float(np.nanmin(train)), float(np.nanmax(train))
    if not np.isfinite([low, high]).all():
        raise DataError("data.name: the training images have infinite values")
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    notes.append(
        f"pixel values are scaled from [{low:g}, {high:g}] to [0, 255]; scale images for the exported model alike"
    )

    def scale(pixels: np.ndarray) -> np.ndarray:
        share = (pixels.astype(np.float32) - low) / max(high - low, 1e-12)
        return np.round(255 * np.clip(np.nan_to_num(share), 0, 1)).astype(np.uint8)

    return scale


def _integer_labels(labels: np.ndarray, count: int, what: str) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise DataError(f"{what}: expected {count} class numbers from 0, got {labels.dtype} {labels.shape}")
    return labels.astype(np.int64)


def _square_store(pixels: np.ndarray, data: Data, path: Path) -> np.ndarray:
    height, width, channels = pixels.shape[1:]
    wanted = data.channels if data.channels and channels in (1, 3) else channels
    if data.channels and wanted != data.channels:
        raise DataError(f"{path}: {channels} channels cannot be converted to {data.channels}; leave data.channels out")
    if data.size is None and height != width:
        raise DataError(
            f"{path}: images of {height} x {width} pixels are not square; set data.size to crop and resize them"
        )
    size = data.size or height
    if (height, width) == (size, size) and wanted == channels:
        return pixels
    return np.stack([decoding.convert_channels(decoding.resize_array(p, size), wanted) for p in pixels])
