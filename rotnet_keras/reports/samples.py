"""Pictures of what the network sees and says: tiles in one file, their stories in an event."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SAMPLES = 24
WORST = 128
SHOWN_WORST = 8


def write_samples(
    folder: Path, step: int, inputs: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, angles: Sequence[int]
) -> dict[str, Any]:
    """Write a strip of tiles and return what the `samples` event says of it.

    The first tiles are one turn each of the first images, the same ones every time; the last are the
    copies with the lowest probability of their true angle.

    Args:
        inputs: (K*N, T, T, C) uint8, all images at the first angle, then all at the second, ...
        labels: (K*N,) which angle each is turned by.
        probabilities: (K*N, K).
        angles: K degrees.

    Returns:
        `file`, `tile` (side in pixels) and `tiles`: angle, predicted, probability of the prediction,
        and `pick` ("fixed" or "worst"), from left to right.
    """
    images = len(inputs) // len(angles)
    fixed = [(i % len(angles)) * images + i for i in range(min(SAMPLES, images))]
    of_truth = probabilities[np.arange(len(labels)), labels]
    worst = [int(i) for i in np.argsort(of_truth, kind="stable")[:SHOWN_WORST]]
    chosen = fixed + worst
    name = f"step-{step:08d}.png"
    write_strip(folder, name, inputs[chosen])
    tiles = [
        {
            "pick": "fixed" if n < len(fixed) else "worst",
            "angle": angles[labels[i]],
            "predicted": angles[int(np.argmax(probabilities[i]))],
            "probability": round(float(np.max(probabilities[i])), 4),
        }
        for n, i in enumerate(chosen)
    ]
    return {"file": name, "tile": int(inputs.shape[1]), "tiles": tiles}


def write_strip(folder: Path, name: str, images: np.ndarray) -> None:
    """Write images, (N, T, T, C) uint8, side by side into one file."""
    folder.mkdir(exist_ok=True)
    strip = np.concatenate([_displayable(image) for image in images], axis=1)
    Image.fromarray(strip[..., 0] if strip.shape[2] == 1 else strip).save(folder / name)


def _displayable(image: np.ndarray) -> np.ndarray:
    """(T, T, 1) or (T, T, 3): of other numbers of channels the first one."""
    return image if image.shape[2] in (1, 3) else image[..., :1]
