"""How well two small grey images agree after the best rotation, mirroring and crop: normalised cross-correlation."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image

# Side of the images that are compared, in pixels, and of the smaller ones that find the placement.
SIDE, COARSE = 32, 16
# Sides of one image inside the other that are tried: crops down to some 80 %.
SIDES = (32, 30, 29, 27, 26)
# A pair that agrees less than this at the coarse size is not looked at any closer.
HOPELESS = 0.25
# Pairs that are compared at once.
BATCH = 64


def placements(images: np.ndarray) -> list[np.ndarray]:
    """The four rotations of square images (N, S, S, ...), then those of their mirror images."""
    rotated = [np.rot90(images, quarter, (1, 2)) for quarter in range(4)]
    mirrored = images[:, :, ::-1]
    return rotated + [np.rot90(mirrored, quarter, (1, 2)) for quarter in range(4)]


def agreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How well pairs of images agree.

    The second image of each pair is rotated and mirrored in all eight ways, and the best one is compared with the
    first: whole, as a crop of it, and the other way round. Brightness and contrast make no difference.

    Args:
        first: (N, 32, 32) uint8 or float.
        second: the same.

    Returns:
        (N,) correlations, -1 to 1; those of pairs that are nothing alike are not exact.
    """
    first, second = (np.asarray(images, np.float32) for images in (first, second))
    small = [_shrunk(images) for images in (first, second)]
    coarse = np.stack([_correlation(small[0], each) for each in placements(small[1])])
    best, result = coarse.argmax(axis=0), coarse.max(axis=0)
    rows = np.flatnonzero(result >= HOPELESS)
    placed = second.copy()
    for number, each in enumerate(placements(second)):
        placed[best == number] = each[best == number]
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        found = [_inside(*pair, side) for side in SIDES for pair in _both_ways(first[part], placed[part])]
        result[part] = np.max(found, axis=0)
    return result


def _both_ways(first: np.ndarray, second: np.ndarray) -> Sequence[tuple[np.ndarray, np.ndarray]]:
    return ((first, second), (second, first))


def _shrunk(images: np.ndarray) -> np.ndarray:
    """Return images (N, 32, 32) at half their size."""
    pairs = images.reshape(len(images), COARSE, SIDE // COARSE, COARSE, SIDE // COARSE)
    result: np.ndarray = pairs.mean(axis=(2, 4))
    return result


def _correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the correlation of the pixels of each pair: (N,)."""
    result: np.ndarray = np.einsum("np,np->n", _standard(first), _standard(second))
    return result


def _standard(images: np.ndarray) -> np.ndarray:
    """Return the pixels of each image with mean 0 and length 1: (N, P); zeros of an image of one colour."""
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-3)


def _inside(whole: np.ndarray, part: np.ndarray, side: int) -> np.ndarray:
    """Return the best correlation of one image, resized to a side, with any window of that side in the other: (N,)."""
    shrink, inside = _resizing(side), _windows(side)
    template = _standard(shrink @ part @ shrink.T).reshape(-1, side, side)
    # All windows at once, by the convolution theorem. None reaches over the edge, so nothing has to be padded. The
    # template has mean 0, so the mean of a window adds nothing.
    spectrum = np.fft.rfft2(whole) * np.conj(np.fft.rfft2(template, (SIDE, SIDE)))
    products = np.fft.irfft2(spectrum, (SIDE, SIDE))[:, : SIDE - side + 1, : SIDE - side + 1]
    values = whole.astype(np.float64)
    means = inside @ values @ inside.T
    variances = inside @ values**2 @ inside.T - means**2
    result: np.ndarray = (products / np.maximum(side * np.sqrt(np.maximum(variances, 0)), 1e-3)).max(axis=(1, 2))
    return result


@cache
def _windows(side: int) -> np.ndarray:
    """Return the matrix (33 - side, 32) that averages each window of a side of the rows of an image."""
    starts, places = np.arange(SIDE - side + 1)[:, None], np.arange(SIDE)
    return ((places >= starts) & (places < starts + side)) / side


@cache
def _resizing(side: int) -> np.ndarray:
    """Return the matrix (side, 32) that resizes the rows of an image."""
    identity = Image.fromarray(np.eye(SIDE, dtype=np.float32))
    return np.asarray(identity.resize((SIDE, side), Image.Resampling.BILINEAR))
