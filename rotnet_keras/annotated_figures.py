"""Test pictures with what is in them and what was found there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Patch

from rotnet_keras.figures import STYLE, save

COLUMNS = 2
# How much of a picture a mask over it hides, and what is left of the light where there is none.
OPACITY, DIMMED = 0.65, 0.4
VOID = 255


@dataclass(frozen=True)
class Segmented:
    """A picture (H, W, 3), its mask and the predicted one (H, W), and its own mean IoU."""

    picture: np.ndarray
    truth: np.ndarray
    found: np.ndarray
    score: float


def palette(count: int) -> np.ndarray:
    """(count, 3) uint8: the colours of VOC's masks, from the bits of a class's number."""
    colours = np.zeros((count, 3), np.uint8)
    for number in range(count):
        for bit in range(8):
            for channel in range(3):
                colours[number, channel] |= ((number >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours


def draw_segmented(shown: Sequence[Segmented], names: Sequence[str], path: Path) -> None:
    """Picture, truth and prediction side by side, several in a row.

    Args:
        names: of the classes, background first.
    """
    colours = palette(len(names))
    rows = -(-len(shown) // COLUMNS)
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = plt.subplots(
            rows, 3 * COLUMNS, figsize=(13, 2.1 * rows + 0.6), layout="constrained", squeeze=False
        )
        for axis in axes.flat:
            axis.axis("off")
        for number, one in enumerate(shown):
            row, column = divmod(number, COLUMNS)
            three = axes[row, 3 * column : 3 * column + 3]
            three[0].imshow(one.picture)
            three[0].set_title(f"mean IoU {100 * one.score:.0f} %")
            for axis, mask, title in ((three[1], one.truth, "true"), (three[2], one.found, "predicted")):
                axis.imshow(_over(one.picture, mask, colours))
                axis.set_title(title)
        there = sorted(
            {int(k) for one in shown for mask in (one.truth, one.found) for k in np.unique(mask)} - {0, VOID}
        )
        patches = [Patch(color=colours[k] / 255, label=names[k]) for k in there]
        if patches:
            figure.legend(handles=patches, loc="outside lower center", ncols=min(10, len(patches)))
        save(figure, path)


def _over(picture: np.ndarray, mask: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The picture in grey under the colours of its classes, dark where it has none; void is white."""
    grey = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)
    coloured = np.full((*mask.shape, 3), 255.0)
    coloured[mask != VOID] = colours[mask[mask != VOID]]
    background = (mask == 0)[..., None]
    return np.where(background, grey * DIMMED, grey * (1 - OPACITY) + coloured * OPACITY).astype(np.uint8)
