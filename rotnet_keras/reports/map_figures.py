"""Figures of attention maps over the images that they belong to."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from rotnet_keras.reports.figures import STYLE
from rotnet_keras.reports.projections import lit

# The side, in pixels, at which images are drawn.
SHOWN_SIDE = 96


def attention_figure(images: np.ndarray, maps: Mapping[str, np.ndarray]) -> Any:
    """Draw a row for each image: the image, then the same image lit by each map.

    Args:
        images: (N, S, S, C) uint8.
        maps: by name, (N, H, W) from 0 to 1.
    """
    with plt.rc_context({**STYLE, "axes.grid": False}):
        columns = 1 + len(maps)
        figure, axes = plt.subplots(
            len(images), columns, figsize=(1.05 * columns, 1.05 * len(images) + 0.4), squeeze=False
        )
        for i, image in enumerate(images):
            _show(axes[i][0], _enlarged(image))
            for axis, by_image in zip(axes[i][1:], maps.values(), strict=True):
                _show(axis, lit(_enlarged(image), by_image[i]))
        for axis, name in zip(axes[0], ["image", *maps], strict=True):
            axis.set_title(name, fontsize=8)
        figure.tight_layout(pad=0.3)
    return figure


def equivariance_figure(images: np.ndarray, maps: Mapping[str, np.ndarray]) -> Any:
    """Draw the four rotated copies of each image in a row, and below them the same copies lit by each map.

    Args:
        images: (N, S, S, C) uint8.
        maps: by name, (N, 4, H, W) from 0 to 1.
    """
    with plt.rc_context({**STYLE, "axes.grid": False}):
        rows, columns = 1 + len(maps), 4 * len(images)
        figure, axes = plt.subplots(rows, columns, figsize=(0.95 * columns, 1.0 * rows + 0.3), squeeze=False)
        for i, image in enumerate(images):
            for k in range(4):
                rotated = np.rot90(image, k)
                _show(axes[0][4 * i + k], _enlarged(rotated))
                axes[0][4 * i + k].set_title(f"{90 * k}°", fontsize=8)
                for row, by_image in enumerate(maps.values(), 1):
                    _show(axes[row][4 * i + k], lit(_enlarged(rotated), by_image[i, k]))
        for row, name in enumerate(maps, 1):
            axes[row][0].set_ylabel(name, fontsize=8)
        figure.tight_layout(pad=0.3)
    return figure


def _enlarged(image: np.ndarray) -> np.ndarray:
    """Enlarge (S, S, C) uint8 pixels to RGB; unless there are three channels, only the first one is shown."""
    pixels = image if image.shape[2] == 3 else np.repeat(image[..., :1], 3, axis=2)
    size = (SHOWN_SIDE, SHOWN_SIDE)
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BICUBIC))


def _show(axis: Any, pixels: np.ndarray) -> None:
    axis.imshow(pixels)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
