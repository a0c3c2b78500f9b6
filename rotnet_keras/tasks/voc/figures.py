"""Figures of test images with their true and predicted masks or boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from rotnet_keras.data.boxes import Boxes
from rotnet_keras.reports.figures import STYLE, save_png_and_svg
from rotnet_keras.text import percent

# Images side by side in a row of a figure.
COLUMNS = 2
# The opacity of a mask over its image.
OPACITY = 0.65
# Background pixels keep this share of their brightness.
BACKGROUND_BRIGHTNESS = 0.4
# The value of unlabelled pixels in VOC's masks.
VOID = 255


@dataclass(frozen=True)
class SegmentationExample:
    """A test image with its true and predicted mask.

    Attributes:
        image: (H, W, 3) uint8.
        truth: (H, W) uint8 class numbers.
        predicted: (H, W) uint8 class numbers.
        score: the mean IoU of this image, from 0 to 1.
    """

    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    score: float


@dataclass(frozen=True)
class DetectionExample:
    """A test image with its true and predicted boxes.

    Attributes:
        image: (H, W, 3) uint8.
        truth: the boxes of its objects.
        predicted: the predicted boxes, with their confidences.
        score: the mean average precision on this image, from 0 to 1.
    """

    image: np.ndarray
    truth: Boxes
    predicted: Boxes
    score: float


def palette(count: int) -> np.ndarray:
    """Return the colours of VOC's masks, (count, 3) uint8, made from the bits of the class numbers as VOC does."""
    colours = np.zeros((count, 3), np.uint8)
    for number in range(count):
        for bit in range(8):
            for channel in range(3):
                colours[number, channel] |= ((number >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours


def draw_segmentations(shown: Sequence[SegmentationExample], names: Sequence[str], path: Path, inside: Path) -> None:
    """Draw each image beside its true and its predicted mask.

    Args:
        shown: the images.
        names: names of the classes, background first.
        path: the PNG file to write; an SVG file is written beside it.
        inside: as of `save_png_and_svg`.
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
        for number, example in enumerate(shown):
            row, column = divmod(number, COLUMNS)
            axes_of_image = axes[row, 3 * column : 3 * column + 3]
            axes_of_image[0].imshow(example.image)
            axes_of_image[0].set_title(f"mean IoU {percent(example.score, 0)}")
            for axis, mask, title in (
                (axes_of_image[1], example.truth, "true"),
                (axes_of_image[2], example.predicted, "predicted"),
            ):
                axis.imshow(_overlay(example.image, mask, colours))
                axis.set_title(title)
        there = sorted(
            {int(k) for example in shown for mask in (example.truth, example.predicted) for k in np.unique(mask)}
            - {0, VOID}
        )
        patches = [Patch(color=colours[k] / 255, label=names[k]) for k in there]
        if patches:
            figure.legend(handles=patches, loc="outside lower center", ncols=min(10, len(patches)))
        save_png_and_svg(figure, path, inside)


def draw_detections(shown: Sequence[DetectionExample], names: Sequence[str], path: Path, inside: Path) -> None:
    """Draw each image twice: with its true boxes, difficult ones dashed, and with the predicted boxes.

    Args:
        shown: the images.
        names: names of the classes.
        path: the PNG file to write; an SVG file is written beside it.
        inside: as of `save_png_and_svg`.
    """
    colours = palette(len(names) + 1)[1:] / 255
    rows = -(-len(shown) // COLUMNS)
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = plt.subplots(rows, 2 * COLUMNS, figsize=(13, 3.0 * rows), layout="constrained", squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
            axis.set_anchor("N")
        for number, example in enumerate(shown):
            row, column = divmod(number, COLUMNS)
            for axis, boxes, title in zip(
                axes[row, 2 * column : 2 * column + 2],
                (example.truth, example.predicted),
                ("true", f"predicted, mAP {percent(example.score, 0)}"),
                strict=True,
            ):
                axis.imshow(example.image)
                axis.set_title(title)
                _draw_boxes(axis, boxes, names, colours)
        save_png_and_svg(figure, path, inside)


def _draw_boxes(axis: Axes, boxes: Boxes, names: Sequence[str], colours: np.ndarray) -> None:
    for index, ((top, left, bottom, right), number) in enumerate(zip(boxes.corners, boxes.classes, strict=True)):
        colour = colours[number]
        dashed = boxes.difficult is not None and boxes.difficult[index]
        edge = {"edgecolor": colour, "linewidth": 2, "linestyle": "--" if dashed else "-"}
        axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, **edge))
        words = names[number] if boxes.scores is None else f"{names[number]} {100 * boxes.scores[index]:.0f}"
        dark_colour = colour @ [0.299, 0.587, 0.114] < 0.5
        axis.text(
            left,
            top,
            words,
            fontsize=7,
            color="white" if dark_colour else "black",
            verticalalignment="top",
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 1},
            clip_on=True,
        )


def _overlay(image: np.ndarray, mask: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Return the image in grey under the colours of its classes: background is dark, void is white."""
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    coloured = np.full((*mask.shape, 3), 255.0)
    coloured[mask != VOID] = colours[mask[mask != VOID]]
    background = (mask == 0)[..., None]
    return np.where(background, grey * BACKGROUND_BRIGHTNESS, grey * (1 - OPACITY) + coloured * OPACITY).astype(
        np.uint8
    )
