"""Sample images with predictions: small tiles side by side in one image file, their labels in an event."""

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rotnet_keras.files import open_file

# How many images are shown every time, in how many the worst predictions are searched, and how many of those are shown.
FIXED_SAMPLES = 24
SEARCHED_SAMPLES = 128
WORST_SAMPLES = 8
# A strip of more pixels is not one of ours.
MAX_PIXELS = 1 << 25


def write_samples(
    folder: Path, step: int, inputs: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, angles: Sequence[int]
) -> dict[str, Any]:
    """Write a strip of sample images and return the fields of the `samples` event.

    The first tiles show one rotation each of the first images, the same ones every time. The last tiles show the copies
    with the lowest probability of their true angle.

    Args:
        folder: the folder to write into.
        step: the training step, for the file's name.
        inputs: (K*N, H, W, 1 or 3) uint8, all images at the first angle, then all at the second, ...
        labels: (K*N,) the index of the angle that each is rotated by.
        probabilities: (K*N, K) predicted.
        angles: K angles in degrees.

    Returns:
        `file`, `tile` (width of a tile in pixels) and `tiles`, from left to right: `image` (0 to N - 1), `angle`,
        `predicted`, `probability` of the prediction, and `pick` ("fixed" or "worst").
    """
    images = len(inputs) // len(angles)
    fixed = [(i % len(angles)) * images + i for i in range(min(FIXED_SAMPLES, images))]
    of_truth = probabilities[np.arange(len(labels)), labels]
    worst = [int(i) for i in np.argsort(of_truth, kind="stable")[:WORST_SAMPLES]]
    chosen = fixed + worst
    name = f"step-{step:08d}.png"
    write_image_strip(folder, name, inputs[chosen])
    tiles = [
        {
            "pick": "fixed" if n < len(fixed) else "worst",
            "image": i % images,
            "angle": angles[labels[i]],
            "predicted": angles[int(np.argmax(probabilities[i]))],
            "probability": round(float(np.max(probabilities[i])), 4),
        }
        for n, i in enumerate(chosen)
    ]
    return {"file": name, "tile": int(inputs.shape[2]), "tiles": tiles}


def read_strip(path: Path) -> Image.Image:
    """Return the image of a strip, or another image that a run has drawn: a PNG file in a folder of the run's folder.

    Raises:
        OSError: it is missing, no PNG file, larger than any strip, or reached by a link.
        ValueError: it is damaged.
        SyntaxError: it is damaged, too.
    """
    with open_file(path, path.parent.parent) as file, Image.open(file, formats=("PNG",)) as image:
        if image.width * image.height > MAX_PIXELS:
            raise OSError(errno.EFBIG, f"larger than the {MAX_PIXELS:,} pixels that such an image may have", str(path))
        image.load()
        return image.copy()


def write_image_strip(folder: Path, name: str, images: np.ndarray) -> None:
    """Write images, (N, H, W, 1 or 3) uint8, side by side into one PNG file."""
    folder.mkdir(exist_ok=True)
    strip = np.concatenate(list(images), axis=1)
    Image.fromarray(strip[..., 0] if strip.shape[2] == 1 else strip).save(folder / name)
