"""Files of a projection: where the images of a sample lie by their features after an epoch, and what is made of each.

They are small, and are read without Keras: a strip of the images, once for each run; for each epoch a JSON file and a
strip of attention maps.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rotnet_keras.files import make_folder, read_json, write_atomically
from rotnet_keras.reports.samples import read_strip, write_png
from rotnet_keras.runs.folder import RunFolder

# The side of the images in the strip, in pixels, at most, and that of attention maps.
IMAGE_SIDE, ATTENTION_SIDE = 64, 8
# Coordinates are whole numbers from -1000 to 1000, probabilities and similarities are percent.
COORDINATE, PERCENT = 1000, 100
IMAGES_FILE = "images.png"
# A larger file is none of ours.
MAX_BYTES = 1 << 22
# The share of an image's brightness that remains where its attention map is 0.
DARKEST = 0.15


@dataclass(frozen=True)
class Projection:
    """What a model makes of N images after an epoch.

    Attributes:
        points: (N, 2), the images in the plane, -1 to 1.
        labels: the class of each image; None where there are none.
        angles: K angles in degrees.
        probabilities: (N, K, K), 0 to 1: of image i rotated by the k-th angle, the probability of each angle.
        neighbours: (N, M), the images that are most similar by their features, the most similar first.
        similarities: (N, M), their cosine similarities, -1 to 1.
    """

    points: np.ndarray
    labels: list[str] | None
    angles: list[int]
    probabilities: np.ndarray
    neighbours: np.ndarray
    similarities: np.ndarray


def write_projection(run: RunFolder, step: int, projection: Projection, attention: np.ndarray | None) -> dict[str, Any]:
    """Write the files of an epoch and return what the `projection` event says of them.

    Args:
        run: whose folder of samples is written into.
        step: the training step, for the files' names.
        projection: of N images with K angles.
        attention: (N, K, h, w) from 0 to 1, a small map of each rotated copy; None where there are no maps.

    Returns:
        `file`, and `attention` if there are maps.
    """
    values = {
        "points": np.rint(COORDINATE * projection.points).astype(int).tolist(),
        "labels": projection.labels,
        "angles": list(projection.angles),
        "probabilities": np.rint(PERCENT * projection.probabilities).astype(int).tolist(),
        "neighbours": projection.neighbours.tolist(),
        "similarities": np.rint(PERCENT * projection.similarities).astype(int).tolist(),
    }
    make_folder(run.samples, run.path)
    found = {"file": f"projection-{step:08d}.json"}
    write_atomically(run.samples / found["file"], json.dumps(values, separators=(",", ":")).encode(), run.path)
    if attention is not None:
        found["attention"] = f"attention-{step:08d}.png"
        maps = np.concatenate(np.concatenate(attention, axis=2), axis=0)
        write_png(run.samples / found["attention"], maps, run.path)
    return found


def read_projection(path: Path) -> Projection:
    """Read a file of `write_projection`.

    Raises:
        OSError: it is missing, too large, or reached by a link.
        ValueError: it is damaged.
    """
    values = read_json(path, MAX_BYTES, path.parent.parent)
    try:
        arrays = {
            name: np.array(values[name], np.int64)
            for name in ("points", "angles", "probabilities", "neighbours", "similarities")
        }
        labels = values["labels"]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    count, angles = len(arrays["points"]), arrays["angles"].size
    shapes = {"points": (count, 2), "angles": (angles,), "probabilities": (count, angles, angles)}
    shapes["neighbours"] = shapes["similarities"] = (count, *arrays["neighbours"].shape[1:2])
    whole = all(arrays[name].shape == shape for name, shape in shapes.items())
    named = labels is None or (isinstance(labels, list) and len(labels) == count and all(map(_is_text, labels)))
    near = arrays["neighbours"]
    if not (whole and named and count and angles and ((near >= 0) & (near < count)).all()):
        raise ValueError(f"{path} is damaged")
    return Projection(
        points=(arrays["points"] / COORDINATE).clip(-1, 1),
        labels=labels,
        angles=arrays["angles"].tolist(),
        probabilities=(arrays["probabilities"] / PERCENT).clip(0, 1),
        neighbours=near,
        similarities=(arrays["similarities"] / PERCENT).clip(-1, 1),
    )


def read_attention(path: Path, images: int, angles: int) -> np.ndarray:
    """Read the attention maps of so many images and angles: (images, angles, h, w) uint8.

    Raises:
        OSError, ValueError, SyntaxError: as of `read_strip`.
    """
    pixels = np.asarray(read_strip(path).convert("L"))
    height, width = pixels.shape
    if height % angles or width % images:
        raise ValueError(f"{path} has maps of other images")
    return pixels.reshape(angles, height // angles, images, width // images).transpose(2, 0, 1, 3)


def small_maps(maps: np.ndarray) -> np.ndarray:
    """Reduce maps (..., h, w) float32 to a size that is written, by averaging."""
    flat = np.stack([_reduced(each, ATTENTION_SIDE) for each in maps.reshape(-1, *maps.shape[-2:])])
    return flat.reshape(*maps.shape[:-2], *flat.shape[1:])


def write_sample_images(run: RunFolder, images: np.ndarray) -> None:
    """Write the images of the sample side by side: (N, H, W, 1 or 3) uint8, as people see them."""
    make_folder(run.samples, run.path)
    strip = np.concatenate([_reduced(image, IMAGE_SIDE) for image in images], axis=1)
    write_png(run.samples / IMAGES_FILE, strip, run.path)


def lit(image: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """Darken an image (H, W, C) uint8 where its attention map (h, w), from 0 to 1, is low."""
    size = image.shape[1], image.shape[0]
    light = np.asarray(Image.fromarray(attention.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
    light = DARKEST + (1 - DARKEST) * np.clip(light, 0, 1)
    return np.round(image * light[..., None]).astype(np.uint8)


def _reduced(pixels: np.ndarray, side: int) -> np.ndarray:
    """Reduce an image or a map (H, W) or (H, W, C), uint8 or float32, whose longer side is longer than `side`."""
    height, width = pixels.shape[:2]
    if max(height, width) <= side:
        return pixels
    size = max(1, round(side * width / max(height, width))), max(1, round(side * height / max(height, width)))
    grey = pixels.ndim == 3 and pixels.shape[2] == 1
    reduced = np.asarray(Image.fromarray(pixels[..., 0] if grey else pixels).resize(size, Image.Resampling.BOX))
    return reduced[..., None] if grey else reduced


def labels_of(labels: np.ndarray | None, names: Sequence[str]) -> list[str] | None:
    """Return the class names of images, "" for those without a label; None if none has one, or may have several.

    Args:
        labels: (N,) of images, -1 for those without a label; (N, K) where an image may have several.
        names: of the classes.
    """
    if labels is None or labels.ndim > 1 or not (labels >= 0).any():
        return None
    return [names[label] if 0 <= label < len(names) else "" for label in labels.tolist()]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
