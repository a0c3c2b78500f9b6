"""A chart of curves in braille dots, with a line at chance level, vertical marks, a cursor and a logarithmic axis."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding
from textual.color import Color
from textual.content import Content
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from rotnet_tui.widgets.axes import labels, ticks
from rotnet_tui.widgets.braille import DotCanvas
from rotnet_tui.widgets.curves import DASHES, SMOOTHING, Curve, decimated, finite, shortened, smoothed, value_at

GREY = "$text-muted"
# The part of the axis that a key moves, and that zooming in leaves.
PAN, ZOOM = 0.1, 0.8


class Chart(Widget, can_focus=True):
    """A chart whose border holds the legend and the last values, or those at the cursor."""

    BINDINGS = [
        Binding("+", "zoom(1)", "Zoom in", show=False),
        Binding("-", "zoom(-1)", "Zoom out", show=False),
        Binding("shift+left", "pan(-1, 0)", "Pan left", show=False),
        Binding("shift+right", "pan(1, 0)", "Pan right", show=False),
        Binding("shift+up", "pan(0, 1)", "Pan up", show=False),
        Binding("shift+down", "pan(0, -1)", "Pan down", show=False),
        Binding("0", "whole", "Whole curve", show=False),
    ]
    HELP = (
        "`←` `→` or a click move the cursor, `+` `-` or the mouse wheel zoom, `shift` with an arrow or dragging moves, "
        "`0` shows the whole curve, `z` maximises."
    )

    class CursorMoved(Message):
        """The cursor was set with the mouse.

        Attributes:
            x: where, on the x axis.
        """

        def __init__(self, x: float) -> None:
            super().__init__()
            self.x = x

    def __init__(self, title: str, *, id: str) -> None:
        super().__init__(id=id)
        self.border_title = title
        self._curves: list[Curve] = []
        self._chance: float | None = None
        self._log = False
        self._marks: Sequence[float] = ()
        self._format = ".3f"
        self._relative = False
        self._cursor: float | None = None
        # What the keys and the mouse have chosen: left, right, lower and upper end; None for all there is.
        self._view: tuple[float, float, float, float] | None = None
        self._strips: list[Strip] = []
        self._painted: tuple | None = None
        self._plot_left, self._plot_width = 0, 1
        self._pressed: tuple[int, int] | None = None
        self._dragged = False

    def show(
        self,
        curves: Sequence[Curve],
        *,
        chance: float | None = None,
        log: bool = False,
        smoothing: int = 0,
        marks: Sequence[float] = (),
        format: str = ".3f",
        cursor: float | None = None,
        relative: bool = False,
    ) -> None:
        """Draw curves.

        Args:
            chance: the value at chance level, drawn as a dotted line.
            log: whether the y axis is logarithmic.
            smoothing: index into `SMOOTHING`, for the curves that may be smoothed.
            marks: x positions of vertical lines.
            format: format of the last values in the border.
            cursor: x position of the cursor; None for no cursor.
            relative: whether the legend says, at the cursor, how the other curves differ from the first.
        """
        if log != self._log:
            self._view = None
        self._curves = []
        for curve in curves:
            x, y = finite(curve.x, curve.y, positive=log)
            if len(x):
                self._curves.append(replace(curve, x=x, y=smoothed(y, SMOOTHING[smoothing]) if curve.smooth else y))
        self._chance, self._log, self._marks, self._format = chance, log, marks, format
        self._relative = relative
        self.move_cursor(cursor)

    def move_cursor(self, x: float | None) -> None:
        """Put the cursor elsewhere, or take it away."""
        self._cursor = x
        self._repaint()
        self.on_resize()

    def on_resize(self) -> None:
        """The legend depends on the width."""
        self.border_subtitle = Content("  ").join(self._legend())

    # What the keys and the mouse do

    def action_zoom(self, direction: int) -> None:
        """Zoom in (1) or out (-1) around the middle."""
        self._zoom(ZOOM**direction, 0.5, 0.5)

    def action_pan(self, right: int, up: int) -> None:
        """Move the visible part."""
        x0, x1, y0, y1 = self._limits()
        x, y = PAN * right * (x1 - x0), PAN * up * (y1 - y0)
        self._see((x0 + x, x1 + x, y0 + y, y1 + y))

    def action_whole(self) -> None:
        """Show the whole curves."""
        self._see(None)

    def _zoom(self, factor: float, across: float, up: float) -> None:
        """Change the visible part by a factor around a point, given as shares of width and height."""
        x0, x1, y0, y1 = self._limits()
        x, y = x0 + across * (x1 - x0), y0 + up * (y1 - y0)
        self._see((*(x + factor * (end - x) for end in (x0, x1)), *(y + factor * (end - y) for end in (y0, y1))))  # type: ignore[arg-type]

    def _see(self, view: tuple[float, float, float, float] | None) -> None:
        self._view = view
        self._repaint()

    def _repaint(self) -> None:
        self._painted = None
        self.refresh()

    def _on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._zoom_at(event, ZOOM)

    def _on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._zoom_at(event, 1 / ZOOM)

    def _zoom_at(self, event: events.MouseEvent, factor: float) -> None:
        event.stop()
        height = max(1, self.size.height - 1)
        across = (event.x - 1 - self._plot_left) / self._plot_width
        self._zoom(factor, min(1.0, max(0.0, across)), min(1.0, max(0.0, 1 - (event.y - 1) / height)))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Begin to drag."""
        self._pressed, self._dragged = (event.x, event.y), False
        self.capture_mouse()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Move what is shown with the mouse."""
        if self._pressed is None or (event.x, event.y) == self._pressed:
            return
        x0, x1, y0, y1 = self._limits()
        right = (self._pressed[0] - event.x) / self._plot_width * (x1 - x0)
        up = (event.y - self._pressed[1]) / max(1, self.size.height - 1) * (y1 - y0)
        self._pressed, self._dragged = (event.x, event.y), True
        self._see((x0 + right, x1 + right, y0 + up, y1 + up))

    def on_mouse_up(self, event: events.MouseUp) -> None:
        """End a drag; without one, put the cursor here."""
        self.release_mouse()
        if self._pressed is not None and not self._dragged and self._curves:
            x0, x1, _, _ = self._limits()
            across = (event.x - 1 - self._plot_left + 0.5) / self._plot_width
            self.post_message(self.CursorMoved(x0 + min(1.0, max(0.0, across)) * (x1 - x0)))
        self._pressed = None

    # How it is drawn

    def render_line(self, y: int) -> Strip:
        """One line of the chart."""
        key = (self.size, self.app.theme, self.rich_style)
        if key != self._painted:
            self._strips = self._paint()
            self._painted = key
        return self._strips[y] if y < len(self._strips) else Strip.blank(self.size.width, self.rich_style)

    def _limits(self) -> tuple[float, float, float, float]:
        """The ends of both axes; of a logarithmic one, their decimal logarithms."""
        if self._view:
            return self._view
        if not self._curves:
            return 0.0, 1.0, 0.0, 1.0
        ys = [self._on_axis(curve.y) for curve in self._curves]
        x0, x1 = min(c.x[0] for c in self._curves), max(c.x[-1] for c in self._curves)
        low, high = min(float(y.min()) for y in ys), max(float(y.max()) for y in ys)
        if self._chance:
            chance = math.log10(self._chance) if self._log else self._chance
            low, high = min(low, chance), max(high, chance)
        return float(x0), float(x1), low, high

    def _on_axis(self, y: Sequence[float] | np.ndarray) -> np.ndarray:
        return np.log10(y) if self._log else np.asarray(y)

    def _paint(self) -> list[Strip]:
        width, height = self.size.width, self.size.height - 1
        base = self.rich_style
        if width < 8 or height < 1:
            return []
        x0, x1, y0, y1 = self._limits()
        if not self._curves:
            return [Strip.blank(width, base)] * (height + 1)
        y_ticks = ticks(y0, y1, max(2, height // 3 + 1), self._log)
        y_labels = labels(y_ticks, self._log)
        left = min(max(map(len, y_labels)) + 1, width // 3)
        self._plot_left, self._plot_width = left, width - left
        canvas = DotCanvas(width - left, height)
        x_dots, y_dots = 2 * (width - left) - 1, 4 * height - 1

        def across(x: np.ndarray) -> np.ndarray:
            return (x - x0) / (x1 - x0) * x_dots if x1 > x0 else np.full(len(x), x_dots / 2)

        def down(y: np.ndarray) -> np.ndarray:
            return (y1 - y) / (y1 - y0) * y_dots if y1 > y0 else np.full(len(y), y_dots / 2)

        if self._chance:
            level = down(np.full(2, math.log10(self._chance) if self._log else self._chance))
            canvas.line(np.array([0.0, x_dots]), level, len(self._curves), (2, 6))
        for number, curve in enumerate(self._curves):
            first, last = np.searchsorted(np.asarray(curve.x), (x0, x1))
            seen = slice(max(0, first - 1), last + 1)
            x, y = decimated(np.asarray(curve.x)[seen], self._on_axis(curve.y[seen]), width)
            canvas.line(across(x), down(y), number, DASHES[curve.dash % len(DASHES)][1])
        styles = [base + Style(color=self._hex(curve.color)) for curve in self._curves]
        grey = base + Style(color=self._hex(GREY))
        styles.append(grey)
        columns = {round(c) // 2 for c in across(np.asarray(self._marks, float)) if 0 <= round(c) // 2 < width - left}
        cursor = -1 if self._cursor is None else round(across(np.array([self._cursor]))[0]) // 2
        at = {min(height - 1, max(0, round(down(np.array([t]))[0]) // 4)): w for t, w in zip(y_ticks, y_labels)}
        strips = []
        for row in range(height):
            axis = at.get(row, "")[: left - 1].rjust(left - 1) + ("┤" if row in at else "│")
            cells = list(zip(canvas.characters(row), canvas.owners[row]))
            drawn = [(character, styles[owner] if owner >= 0 else base) for character, owner in cells]
            for column in columns:
                if drawn[column][0] == " ":
                    drawn[column] = ("┆", grey)
            if 0 <= cursor < len(drawn):
                character, style = drawn[cursor]
                drawn[cursor] = ("│", base) if character in " ┆" else (character, style + Style(reverse=True))
            parts = [Segment(axis, grey)]
            for style, run in groupby(drawn, key=lambda cell: cell[1]):
                parts.append(Segment("".join(character for character, _ in run), style))
            strips.append(Strip(parts, width))
        return [*strips, self._x_axis(x0, x1, left, width, base)]

    def _x_axis(self, x0: float, x1: float, left: int, width: int, base: Style) -> Strip:
        positions = ticks(x0, x1, max(3, (width - left) // 9))
        line, end = " " * width, 0
        for position, label in zip(positions, labels(positions)):
            share = (position - x0) / (x1 - x0) if x1 > x0 else 0.5
            middle = left + round(share * (width - left - 1))
            start = min(max(0, middle - len(label) // 2), width - len(label))
            if start > end or not end:
                line, end = line[:start] + label + line[start + len(label) :], start + len(label)
        return Strip([Segment(line, base + Style(color=self._hex(GREY)))], width)

    def _legend(self) -> list[Content]:
        """The stroke, name and value of each curve; names are cut where there is no room for all."""
        values: list[str] = []
        first: float | None = None
        for curve in self._curves:
            value = float(curve.y[-1]) if self._cursor is None else value_at(curve, self._cursor)
            text = f"{value:{self._format}}"
            if self._relative and self._cursor is not None:
                text += "" if first is None else f" ({value - first:+{self._format}})"
                first = value if first is None else first
            values.append(text)
        taken = sum(
            len(value) + len(DASHES[curve.dash % len(DASHES)][0]) + 4 for curve, value in zip(self._curves, values)
        )
        names = shortened([curve.name for curve in self._curves], self.size.width - 2 - taken)
        return [
            Content.styled(f"{DASHES[curve.dash % len(DASHES)][0]} {name} {value}", curve.color)
            for curve, name, value in zip(self._curves, names, values)
        ]

    def _hex(self, color: str) -> str:
        """A colour of the theme in hexadecimal form; a grey for Textual's automatic colours."""
        variables = self.app.theme_variables
        value = variables[color.removeprefix("$")]
        if value.startswith("#"):
            return value[:7]
        return Color.parse(variables["background"]).blend(Color.parse(variables["foreground"]), 0.5).hex6
