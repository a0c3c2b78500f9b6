"""A chart of curves in braille dots, with a line at chance level, vertical marks and a logarithmic axis."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from textual.app import ComposeResult
from textual.binding import Binding
from textual.color import Color
from textual.containers import Grid
from textual.content import Content
from textual.strip import Strip
from textual_hires_canvas import Canvas
from textual_plot import HiResMode, NumericAxisFormatter, PlotWidget
from textual_plot.plot_widget import Legend

# Weights of the past in the exponential moving average of a curve; the first means no smoothing.
SMOOTHING = (0.0, 0.8, 0.95)


@dataclass(frozen=True)
class Curve:
    """One curve of a chart.

    Attributes:
        color: a colour of Textual's themes, such as "$text-primary".
        smooth: whether the curve may be smoothed.
    """

    name: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    color: str
    smooth: bool = False


class ShortFormatter(NumericAxisFormatter):
    """Short tick labels: 20k instead of 20000, 1e-3 instead of 0.001."""

    def get_ticks(self, min_: float, max_: float, max_ticks: int = 8) -> list[float]:
        """Round positions; a single one in the middle if the curve is constant."""
        if max_ - min_ <= 1e-4 * max(abs(min_), abs(max_)):
            return [(min_ + max_) / 2]
        # Rounding noise around zero would be labelled "-0.00".
        return [0.0 if abs(t) < 1e-9 * (max_ - min_) else t for t in super().get_ticks(min_, max_, max_ticks)]

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        """One short label per tick."""
        if len(ticks) == 1:
            return [f"{ticks[0]:.3g}"]
        if ticks and max(map(abs, ticks)) >= 10_000 and all(t == int(t) for t in ticks):
            return [f"{t / 1000:g}k" for t in ticks]
        if ticks and 0 < max(map(abs, ticks)) < 0.01:
            return [f"{t:.2g}" for t in ticks]
        return super().get_labels_for_ticks(ticks)


class LogFormatter(ShortFormatter):
    """Labels for an axis of decimal logarithms."""

    def get_ticks(self, min_: float, max_: float, max_ticks: int = 8) -> list[float]:
        """Logarithms of 1, 2 and 5 times powers of ten; of the powers alone if these are too many."""
        powers = range(math.floor(min_), math.ceil(max_) + 1)
        fine = [p + math.log10(m) for p in powers for m in (1, 2, 5)]
        inside = [t for t in fine if min_ <= t <= max_]
        if len(inside) > max_ticks:
            return [float(p) for p in powers if min_ <= p <= max_]
        return inside if len(inside) > 1 else super().get_ticks(min_, max_, max_ticks)

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        """The values themselves."""
        return [f"{10**t:.3g}" for t in ticks]


class StyledCanvas(Canvas):
    """A canvas whose empty lines have no cells: Textual's filter for NO_COLOR fails on cells without a style."""

    def render_line(self, y: int) -> Strip:
        """One line; without cells if nothing has been drawn yet."""
        line = super().render_line(y)
        return line if line.cell_length else Strip([])


class Chart(PlotWidget, inherit_bindings=False):
    """A chart whose border holds the legend and the last values."""

    BINDINGS = [
        Binding("+", "zoom_in", "Zoom in", show=False),
        Binding("-", "zoom_out", "Zoom out", show=False),
        Binding("left", "pan_left", "Pan left", show=False),
        Binding("right", "pan_right", "Pan right", show=False),
        Binding("up", "pan_up", "Pan up", show=False),
        Binding("down", "pan_down", "Pan down", show=False),
        Binding("0", "reset_scales", "Whole curve", show=False),
    ]
    HELP = "`+` `-` or the mouse wheel zoom, arrows or dragging move, `0` shows the whole curve, `z` maximises."

    def __init__(self, title: str, *, id: str) -> None:
        super().__init__(id=id)
        self.border_title = title

    def compose(self) -> ComposeResult:
        """The canvas between its margins, and the legend of the base class, which stays hidden."""
        with Grid():
            for name in ("margin-top", "margin-left", "plot", "margin-bottom"):
                yield StyledCanvas(1, 1, id=name)
        yield Legend(id="legend")

    def on_mount(self) -> None:
        """Make the margins small."""
        super().on_mount()
        self.margin_top, self.margin_bottom, self.margin_left = 0, 1, 8

    def show(
        self,
        curves: Sequence[Curve],
        *,
        chance: float | None = None,
        log: bool = False,
        smoothing: int = 0,
        marks: Sequence[float] = (),
        format: str = ".3f",
    ) -> None:
        """Draw curves.

        Args:
            chance: the value at chance level, drawn as a dotted line.
            log: whether the y axis is logarithmic.
            smoothing: index into `SMOOTHING`, for the curves that may be smoothed.
            marks: x positions of vertical lines.
            format: format of the last values in the border.
        """
        self.clear()
        formatter = LogFormatter() if log else ShortFormatter()
        self.set_y_formatter(formatter)
        self.set_x_formatter(ShortFormatter())
        legend, ends = [], []
        for curve in curves:
            x, y = _finite(curve.x, curve.y, positive=log)
            if not len(x):
                continue
            smooth = _smoothed(y, SMOOTHING[smoothing]) if curve.smooth else y
            ends += [x[0], x[-1]]
            legend.append(Content.styled(f"{curve.name} {smooth[-1]:{format}}", curve.color))
            x, y = _decimated(x, smooth, max(10, self.size.width))
            if len(x) == 1:
                # A line needs two points; a single one would be invisible.
                x, y = np.repeat(x, 2), np.repeat(y, 2)
            self.plot(x, np.log10(y) if log else y, line_style=self._hex(curve.color), hires_mode=HiResMode.BRAILLE)
        if chance is not None and ends:
            edge = np.linspace(min(ends), max(ends), 40)
            level = math.log10(chance) if log else chance
            for start in range(0, 40, 4):
                part = edge[start : start + 2]
                grey = self._hex("$text-muted")
                self.plot(part, np.full(len(part), level), line_style=grey, hires_mode=HiResMode.BRAILLE)
        for mark in marks:
            self.add_v_line(mark, line_style=self._hex("$text-muted"))
        self.border_subtitle = Content("  ").join(legend)

    def _hex(self, color: str) -> str:
        """A colour of the theme in hexadecimal form, which the canvas needs; a grey for Textual's automatic colours."""
        value = self.app.theme_variables[color.removeprefix("$")]
        if value.startswith("#"):
            return value[:7]
        variables = self.app.theme_variables
        return Color.parse(variables["background"]).blend(Color.parse(variables["foreground"]), 0.5).hex6


def _finite(
    x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, positive: bool
) -> tuple[np.ndarray, np.ndarray]:
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    good = np.isfinite(xs) & np.isfinite(ys)
    if positive:
        good[good] = ys[good] > 0
    return xs[good], ys[good]


def _smoothed(values: np.ndarray, weight: float) -> np.ndarray:
    """Exponential moving average, corrected for the bias at its start."""
    if not weight:
        return values
    smooth = np.empty_like(values)
    average = total = 0.0
    for i, value in enumerate(values):
        average = weight * average + (1 - weight) * value
        total = weight * total + (1 - weight)
        smooth[i] = average / total
    return smooth


def _decimated(x: np.ndarray, y: np.ndarray, buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """At most two points per bucket, the lowest and the highest, so that spikes stay visible."""
    if len(x) <= 2 * buckets:
        return x, y
    cuts = np.linspace(0, len(x), buckets + 1).astype(int)
    keep = {start + int(pick(y[start:end])) for start, end in pairwise(cuts) for pick in (np.argmin, np.argmax)}
    chosen = sorted(keep | {0, len(x) - 1})
    return x[chosen], y[chosen]
