"""Test pictures with what is in them and what was found there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from rotnet_keras.data.boxes import Boxes
from rotnet_keras.reports.figures import STYLE, save_png_and_svg

COLUMNS = 2
# How much of a picture a mask over it hides, and what is left of the light where there is none.
OPACITY, DIMMED = 0.65, 0.4
VOID = 255


@dataclass(frozen=True)
class SegmentationExample:
    """A picture (H, W, 3), its mask and the predicted one (H, W), and its own mean IoU."""

    picture: np.ndarray
    truth: np.ndarray
    found: np.ndarray
    score: float


@dataclass(frozen=True)
class DetectionExample:
    """A picture (H, W, 3), its objects, what was found there, and its own mean average precision."""

    picture: np.ndarray
    truth: Boxes
    found: Boxes
    score: float


def palette(count: int) -> np.ndarray:
    """(count, 3) uint8: the colours of VOC's masks, from the bits of a class's number."""
    colours = np.zeros((count, 3), np.uint8)
    for number in range(count):
        for bit in range(8):
            for channel in range(3):
                colours[number, channel] |= ((number >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours


def draw_segmentations(shown: Sequence[SegmentationExample], names: Sequence[str], path: Path) -> None:
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
            axis.set_anchor("N")
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
        save_png_and_svg(figure, path)


def draw_detections(shown: Sequence[DetectionExample], names: Sequence[str], path: Path) -> None:
    """Each picture twice, with the boxes of its objects, dashed where they are difficult, and with those found.

    Args:
        names: of the classes.
    """
    colours = palette(len(names) + 1)[1:] / 255
    rows = -(-len(shown) // COLUMNS)
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = plt.subplots(rows, 2 * COLUMNS, figsize=(13, 3.0 * rows), layout="constrained", squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
            axis.set_anchor("N")
        for number, one in enumerate(shown):
            row, column = divmod(number, COLUMNS)
            for axis, boxes, title in zip(
                axes[row, 2 * column : 2 * column + 2],
                (one.truth, one.found),
                ("true", f"found; mean average precision {100 * one.score:.0f} %"),
                strict=True,
            ):
                axis.imshow(one.picture)
                axis.set_title(title)
                _draw_boxes(axis, boxes, names, colours)
        save_png_and_svg(figure, path)


def _draw_boxes(axis: Axes, boxes: Boxes, names: Sequence[str], colours: np.ndarray) -> None:
    for index, ((top, left, bottom, right), number) in enumerate(zip(boxes.corners, boxes.classes, strict=True)):
        colour = colours[number]
        dashed = boxes.difficult is not None and boxes.difficult[index]
        edge = {"edgecolor": colour, "linewidth": 2, "linestyle": "--" if dashed else "-"}
        axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, **edge))
        words = names[number] if boxes.scores is None else f"{names[number]} {100 * boxes.scores[index]:.0f}"
        dark = colour @ [0.299, 0.587, 0.114] < 0.5
        axis.text(
            left,
            top,
            words,
            fontsize=7,
            color="white" if dark else "black",
            verticalalignment="top",
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 1},
            clip_on=True,
        )


def _over(picture: np.ndarray, mask: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The picture in grey under the colours of its classes, dark where it has none; void is white."""
    grey = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)
    coloured = np.full((*mask.shape, 3), 255.0)
    coloured[mask != VOID] = colours[mask[mask != VOID]]
    background = (mask == 0)[..., None]
    return np.where(background, grey * DIMMED, grey * (1 - OPACITY) + coloured * OPACITY).astype(np.uint8)
