"""Sample images with predictions: small tiles side by side in one image file, their labels in an event."""

import errno
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rotnet_keras.files import make_folder, open_file, write_atomically
from rotnet_keras.runs.folder import RunFolder

# How many images are shown every time, in how many the worst predictions are searched, and how many of those are shown.
FIXED_SAMPLES = 24
SEARCHED_SAMPLES = 128
WORST_SAMPLES = 8
# A strip of more pixels is not one of ours.
MAX_PIXELS = 1 << 25


def write_samples(
    run: RunFolder, step: int, inputs: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, angles: Sequence[int]
) -> dict[str, Any]:
    """Write a strip of sample images and return the fields of the `samples` event.

    The first tiles show one rotation each of the first images, the same ones every time. The last tiles show the copies
    with the lowest probability of their true angle.

    Args:
        run: whose folder of samples is written into.
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
    write_image_strip(run, name, inputs[chosen])
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


def write_image_strip(run: RunFolder, name: str, images: np.ndarray) -> None:
    """Write images, (N, H, W, 1 or 3) uint8, side by side into one PNG file of a run's samples."""
    make_folder(run.samples, run.path)
    write_png(run.samples / name, np.concatenate(list(images), axis=1), run.path)


def write_png(path: Path, pixels: np.ndarray, inside: Path) -> None:
    """Write pixels as a PNG file, whole or not at all.

    Args:
        path: the file; its folder must exist.
        pixels: (H, W) or (H, W, 1 or 3), uint8 or from 0 to 1.
        inside: a folder that holds it, at any depth; below this folder no link is followed.
    """
    levels = pixels if pixels.dtype == np.uint8 else np.rint(255 * pixels).astype(np.uint8)
    content = BytesIO()
    Image.fromarray(levels[..., 0] if levels.ndim == 3 and levels.shape[2] == 1 else levels).save(content, "PNG")
    write_atomically(path, content.getvalue(), inside)
