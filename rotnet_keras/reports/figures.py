"""Figures of a run, drawn with matplotlib from its events and sample images."""

import itertools
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from rotnet_keras.files import write_atomically
from rotnet_keras.reports.samples import read_strip, write_png
from rotnet_keras.reports.study_results import ResultGrid
from rotnet_keras.runs.feature_quality import TapCurve
from rotnet_keras.text import percent, printable

matplotlib.use("Agg")
from matplotlib import pyplot as plt

Event = dict[str, Any]

BLUE, ORANGE, GREY = "#2563a8", "#d97706", "#8a8f98"
CYCLE = (BLUE, ORANGE, "#15803d", "#7c3aed", "#b91c1c")
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "font.size": 10,
    "axes.titlesize": 11,
    "legend.frameon": False,
    # Names of classes and rows come from data: a "$" in them begins no formula.
    "text.parse_math": False,
    "savefig.dpi": 120,
    "savefig.bbox": "tight",
}
# First-layer filters: tiles in a row, and the width of the figure in pixels.
FILTER_COLUMNS = 16
FILTERS_WIDTH = 640
# More characters of a name would make a figure as wide as they are. Below a figure there is room for two longer ones.
MAX_NAME, MAX_ROW = 24, 48


def draw_curves(events: Sequence[Event], classes: int | None, accuracy_name: str, path: Path, inside: Path) -> bool:
    """Draw loss, accuracy and learning rate over epochs; return False if there is no step event yet.

    Args:
        events: all events of the run.
        classes: the number of classes, to draw the level of chance; None to leave it out.
        accuracy_name: the title of the accuracy plot.
        path: the PNG file to write.
        inside: as of `save_figure`.
    """
    steps = [e for e in events if e["kind"] == "step" and e.get("loss") is not None]
    epochs = [e for e in events if e["kind"] == "epoch" and "validation" in e]
    if not steps:
        return False
    x = [e["epoch"] for e in steps]
    with plt.rc_context(STYLE):
        figure, (loss, accuracy, rate) = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
        for axis, key, factor, chance in (
            (loss, "loss", 1, float(np.log(classes or 1))),
            (accuracy, "accuracy", 100, 100 / (classes or 1)),
        ):
            axis.plot(x, [factor * e[key] for e in steps], color=BLUE, linewidth=0.8, alpha=0.35)
            axis.plot(x, _smooth([factor * e[key] for e in steps]), color=BLUE, label="train")
            if epochs:
                values = [factor * e["validation"][key] for e in epochs]
                axis.plot([e["epoch"] for e in epochs], values, "o-", color=ORANGE, ms=3, label="validation")
            if classes:
                axis.axhline(chance, color=GREY, linestyle=":", label="chance")
            axis.set(title="loss" if key == "loss" else f"{accuracy_name}, %", xlabel="epoch")
        loss.legend(loc="upper right")
        accuracy.set_ylim(0, 100)
        rate.plot(x, [e["learning_rate"] for e in steps], color=BLUE)
        rate.set(title="learning rate", xlabel="epoch", ylim=(0, None))
        save_figure(figure, path, inside)
    return True


def draw_feature_curves(curves: Sequence[TapCurve], steps_per_epoch: int, path: Path, inside: Path) -> None:
    """Draw the effective rank, the share of dead channels and any k-NN accuracy of each tap over epochs."""
    plots = [("effective rank", 1, "ranks"), ("dead channels, %", 100, "dead")]
    if any(curve.knn for curve in curves):
        plots.append(("k-NN accuracy on validation, %", 100, "knn"))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(plots), figsize=(4 * len(plots), 3.4), layout="constrained")
        for axis, (title, factor, key) in zip(axes, plots, strict=True):
            for curve, color in zip(curves, itertools.cycle(CYCLE)):
                values = [factor * value for value in getattr(curve, key)]
                epochs = [step / steps_per_epoch for step in curve.steps[-len(values) :]] if values else []
                axis.plot(epochs, values, "o-", color=color, ms=3, label=_short(curve.tap))
            axis.set(title=title, xlabel="epoch", ylim=(0, None))
        axes[0].legend(loc="best", fontsize=8)
        save_figure(figure, path, inside)


def draw_result_grid(grid: ResultGrid, path: Path, inside: Path) -> None:
    """Draw the rows of a table as curves over its columns, which are numbers; the paper's values are dashed."""
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(6.8, 4.8), layout="constrained")
        for row, color in zip(grid.rows, itertools.cycle(CYCLE)):
            cells = {float(column): grid.cells[row, column] for column in grid.columns if (row, column) in grid.cells}
            ours = {x: cell for x, cell in cells.items() if cell.values}
            if ours:
                spread = [cell.std or 0.0 for cell in ours.values()] if grid.spread else None
                means = [cell.mean for cell in ours.values()]
                axis.errorbar(
                    list(ours), means, spread, fmt="o-", ms=4, capsize=3, color=color, label=_short(row, MAX_ROW)
                )
            theirs = {x: cell.paper for x, cell in cells.items() if cell.paper is not None}
            if theirs:
                axis.plot(
                    list(theirs),
                    list(theirs.values()),
                    "--",
                    color=color,
                    alpha=0.6,
                    label=f"{_short(row, MAX_ROW)}, paper",
                )
        axis.set(xlabel=grid.x, ylabel="accuracy, %", xscale="log" if grid.log else "linear")
        if grid.log:
            ticks = [float(column) for column in grid.columns]
            axis.set_xticks(ticks, grid.columns)
            axis.minorticks_off()
        # Below the plot, where no curve is in the way.
        if axis.get_legend_handles_labels()[0]:
            figure.legend(loc="outside lower center", ncols=2, fontsize=8)
        save_png_and_svg(figure, path, inside)


def save_figure(figure: Any, path: Path, inside: Path) -> None:
    """Write a figure as PNG, whole or not at all, and close it.

    Args:
        figure: of matplotlib.
        path: the file; its folder must exist.
        inside: a folder that holds it, at any depth; below this folder no link is followed.
    """
    write_atomically(path, _drawn(figure, "png"), inside)
    plt.close(figure)


def save_png_and_svg(figure: Any, path: Path, inside: Path | None) -> None:
    """Write a figure as PNG and, beside it, as SVG, and close it.

    Args:
        figure: of matplotlib.
        path: the PNG file; its folder must exist.
        inside: as of `save_figure`; None follows links.
    """
    for file in (path, path.with_suffix(".svg")):
        write_atomically(file, _drawn(figure, file.suffix[1:]), inside)
    plt.close(figure)


def _drawn(figure: Any, format: str) -> bytes:
    content = BytesIO()
    figure.savefig(content, format=format)
    return content.getvalue()


def draw_confusion(counts: Sequence[Sequence[int]], names: Sequence[str], title: str, path: Path, inside: Path) -> None:
    """Draw a confusion matrix, in percent of each true class; rows of the counts are true classes."""
    matrix = np.asarray(counts, float)
    share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    size, names = len(names), [_short(name) for name in names]
    with plt.rc_context({**STYLE, "axes.grid": False}):
        side = 2.2 + 0.45 * size
        figure, axis = plt.subplots(figsize=(side, side), layout="constrained")
        axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
        axis.set_xticks(range(size), names, rotation=0 if max(map(len, names)) <= 4 else 45, ha="center")
        axis.set_yticks(range(size), names)
        axis.set(xlabel="predicted", ylabel="true", title=title)
        for i, j in np.ndindex(size, size):
            axis.text(
                j, i, f"{share[i, j]:.0f}", ha="center", va="center", color="white" if share[i, j] > 55 else "black"
            )
        save_figure(figure, path, inside)


def draw_samples(event: Event, strip: Path, path: Path, inside: Path) -> None:
    """Draw the sample tiles with true and predicted angle: the fixed ones, then the worst."""
    titles = []
    for tile in event["tiles"]:
        correct = tile["angle"] == tile["predicted"]
        text = f"{'✓' if correct else '✗'} {tile['angle']}° → {tile['predicted']}°\n{percent(tile['probability'], 0)}"
        titles.append((text, "#15803d" if correct else "#b91c1c"))
    _draw_tiles(strip, event["tile"], titles, path, inside)


def draw_ambiguous(event: Event, strip: Path, path: Path, inside: Path) -> None:
    """Draw the most ambiguous images with the two most probable rotations of each."""
    titles = []
    for tile in event["tiles"]:
        text = "\n".join(f"{angle}°: {percent(probability, 0)}" for angle, probability in tile["turns"])
        titles.append((text, "black"))
    _draw_tiles(strip, event["tile"], titles, path, inside)


def _draw_tiles(strip: Path, side: int, titles: Sequence[tuple[str, str]], path: Path, inside: Path) -> None:
    """Draw the tiles of a strip, each under its title, which is (text, colour)."""
    pixels = np.asarray(read_strip(strip))
    columns = 8
    rows = -(-len(titles) // columns)
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = plt.subplots(rows, columns, figsize=(1.35 * columns, 1.75 * rows), squeeze=False)
        for n, axis in enumerate(axes.flat):
            axis.axis("off")
            if n < len(titles):
                axis.imshow(pixels[:, n * side : (n + 1) * side], cmap="gray", vmin=0, vmax=255)
                axis.set_title(titles[n][0], fontsize=8, color=titles[n][1])
        figure.tight_layout(h_pad=1.2)
        save_figure(figure, path, inside)


def draw_filters(kernels: np.ndarray, path: Path, inside: Path) -> None:
    """Write first-layer kernels (k, k, C, filters) as tiles on one common scale, in the order of decreasing energy.

    Three channels are drawn as colours; for other numbers of channels, their mean is drawn in grey.
    """
    canvas = _filter_tiles(kernels)
    scale = max(1, FILTERS_WIDTH // canvas.shape[1])
    pixels = np.kron(canvas, np.ones((scale, scale, 1), np.uint8))
    write_png(path, pixels, inside)


def filters_figure(kernels: np.ndarray) -> Any:
    """Return what `draw_filters` draws as a figure, for `save_png_and_svg`."""
    canvas = _filter_tiles(kernels)
    height, width = np.array(canvas.shape[:2]) * max(1, FILTERS_WIDTH // canvas.shape[1])
    figure = plt.figure(figsize=(width / 100, height / 100), dpi=100)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    axis.imshow(canvas.repeat(3, axis=2) if canvas.shape[2] == 1 else canvas, interpolation="nearest", aspect="auto")
    return figure


def _filter_tiles(kernels: np.ndarray) -> np.ndarray:
    if kernels.shape[2] != 3:
        kernels = kernels.mean(axis=2, keepdims=True)
    energy = (kernels**2).sum(axis=(0, 1, 2))
    tiles = np.moveaxis(kernels[..., np.argsort(-energy)], -1, 0)
    tiles = np.clip(0.5 + tiles / (2 * np.abs(tiles).max() + 1e-12), 0, 1)
    side, gap = tiles.shape[1], 1
    rows = -(-len(tiles) // FILTER_COLUMNS)
    columns = min(FILTER_COLUMNS, len(tiles))
    canvas = np.zeros((rows * (side + gap) - gap, columns * (side + gap) - gap, tiles.shape[3]))
    for n, tile in enumerate(tiles):
        top, left = (side + gap) * (n // columns), (side + gap) * (n % columns)
        canvas[top : top + side, left : left + side] = tile
    return np.round(255 * canvas).astype(np.uint8)


def _short(name: str, most: int = MAX_NAME) -> str:
    """Return a name as a figure has room for it: with at most so many characters."""
    name = " ".join(printable(name).split())
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _smooth(values: Sequence[float]) -> list[float]:
    """Return the exponential moving average over about a fortieth of the values, without bias at its start."""
    weight = 1 - 1 / max(1.0, len(values) / 40)
    average, total, smooth = 0.0, 0.0, []
    for value in values:
        average = weight * average + (1 - weight) * value
        total = weight * total + (1 - weight)
        smooth.append(average / total)
    return smooth
