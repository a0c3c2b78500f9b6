"""Regions that selective search proposes for the images of a data set, for Fast R-CNN."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from os import cpu_count

import numpy as np

from rotnet_keras.data.annotations import AnnotatedDataset, AnnotatedSplit
from rotnet_keras.data.stores import SPLITS, Progress, read_index, write_index
from rotnet_keras.files import cache_folder

# Images are resized until their long side has so many pixels, as most of VOC have.
LONG_SIDE = 500
# Regions with a side of fewer pixels than this, in the resized image, are left out.
SMALLEST_SIDE = 10


def with_proposals(
    dataset: AnnotatedDataset, most: int, progress: Progress = lambda what, done, total: None
) -> AnnotatedDataset:
    """Return a data set whose splits have proposals. They are computed once and kept in the cache folder.

    Args:
        dataset: images with objects.
        most: regions for an image. Where there are more, some are drawn at random; the same ones each time.
        progress: called after each image.
    """
    splits = {name: split for name in SPLITS if (split := getattr(dataset, name)) is not None}
    proposed = {
        name: replace(split, proposals=_proposals(split, f"{dataset.fingerprint} {name}", most, progress))
        for name, split in splits.items()
    }
    return replace(dataset, **proposed)


def _proposals(split: AnnotatedSplit, name: str, most: int, progress: Progress) -> list[np.ndarray]:
    import cv2

    known = f"{name} {len(split)} {most} {LONG_SIDE} {SMALLEST_SIDE} {cv2.__version__}"
    file = cache_folder() / f"proposals-{hashlib.blake2b(known.encode(), digest_size=16).hexdigest()}.npz"
    if file.is_file():
        kept = read_index(file)
        return np.split(kept["boxes"], np.cumsum(kept["counts"])[:-1])
    # Each image keeps one processor busy.
    cv2.setNumThreads(1)
    found: list[np.ndarray] = []

    def proposed(position: int) -> np.ndarray:
        return _drawn(selective_search(split.image(position)), most, position)

    with ThreadPoolExecutor(cpu_count()) as pool:
        for boxes in pool.map(proposed, range(len(split))):
            found.append(boxes)
            progress("proposing regions", len(found), len(split))
    write_index(file, {"boxes": np.concatenate(found), "counts": np.array([len(boxes) for boxes in found])})
    return found


def _drawn(boxes: np.ndarray, most: int, position: int) -> np.ndarray:
    if len(boxes) <= most:
        return boxes
    return boxes[np.sort(np.random.default_rng(position).choice(len(boxes), most, replace=False))]


def selective_search(pixels: np.ndarray) -> np.ndarray:
    """Propose regions of an image by selective search (Uijlings et al., IJCV 2013), in its fast mode.

    Args:
        pixels: (H, W, 3) uint8, RGB.

    Returns:
        (n, 4) float32: top, left, bottom and right in pixels of the image, sorted; each region once.
    """
    import cv2

    scale = min(1.0, LONG_SIDE / max(pixels.shape[:2]))
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(small[..., ::-1]))
    search.switchToSelectiveSearchFast()
    left, top, width, height = np.asarray(search.process(), np.int64).reshape(-1, 4).T
    large = (width >= SMALLEST_SIDE) & (height >= SMALLEST_SIDE)
    # The program gives them in a random order.
    corners = np.unique(np.stack([top, left, top + height, left + width], axis=1)[large], axis=0).astype(np.float32)
    scales = np.array(pixels.shape[:2] * 2, np.float32) / np.array(small.shape[:2] * 2, np.float32)
    return corners * scales
