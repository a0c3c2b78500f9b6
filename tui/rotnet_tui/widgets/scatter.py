"""Points in the plane, each with a sign of its class, and a cursor on one of them."""

from collections.abc import Collection, Sequence

import numpy as np
from rich.style import Style
from rich.text import Text
from textual import events
from textual.message import Message
from textual.widget import Widget

# A cell is about twice as high as it is wide.
CELL_RATIO = 2.0
# Points that are no farther apart lie beside one another.
SAME = 1e-6


class Scatter(Widget):
    """Signs at points from -1 to 1; of those in one cell, the last is seen."""

    class Chosen(Message):
        """A point was clicked.

        Attributes:
            number: of the nearest point.
        """

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._points = np.zeros((0, 2))
        self._signs: Sequence[tuple[str, str]] = ()
        self._cursor = 0
        self._near: Collection[int] = ()

    def show(
        self, points: np.ndarray, signs: Sequence[tuple[str, str]], cursor: int, near: Collection[int] = ()
    ) -> None:
        """Draw points.

        Args:
            points: (N, 2) from -1 to 1.
            signs: a character for each point, and its colour for Rich.
            cursor: the point that is drawn inverted.
            near: points that are drawn bold and underlined.
        """
        self._points, self._signs, self._cursor, self._near = points, signs, cursor, near
        self.refresh()

    def toward(self, right: int, up: int) -> int:
        """The point next to the cursor in a direction, straight ahead if possible; the cursor's own if none is."""
        if not len(self._points):
            return self._cursor
        apart = self._points - self._points[self._cursor]
        ahead = apart @ np.array([right, up])
        aside = np.abs(apart @ np.array([up, right]))
        for possible in ((ahead > SAME) & (aside <= ahead), ahead > SAME):
            if possible.any():
                return int(np.where(possible, ahead + 2 * aside, np.inf).argmin())
        return self._cursor

    def render(self) -> Text:
        """The cells of the widget."""
        width, height = self.size
        cells: dict[tuple[int, int], tuple[str, Style]] = {}
        columns, rows = self._cells()
        order = [i for i in range(len(self._points)) if i != self._cursor and i not in self._near]
        last = [*self._near, self._cursor] if len(self._points) else []
        for number in (*order, *last):
            sign, color = self._signs[number]
            style = Style(
                color=color,
                reverse=number == self._cursor,
                bold=number in last,
                underline=number in last and number != self._cursor,
            )
            cells[rows[number], columns[number]] = sign, style
        text = Text(no_wrap=True)
        for row in range(height):
            for column in range(width):
                sign, style = cells.get((row, column), (" ", Style.null()))
                text.append(sign, style)
            text.append("\n" if row < height - 1 else "")
        return text

    def _cells(self) -> tuple[list[int], list[int]]:
        """The column and the row of each point."""
        across, down = (self._points[:, 0] + 1) / 2, (1 - self._points[:, 1]) / 2
        columns = np.rint(across * (self.size.width - 1)).astype(int)
        rows = np.rint(down * (self.size.height - 1)).astype(int)
        return columns.tolist(), rows.tolist()

    def on_click(self, event: events.Click) -> None:
        """Choose the nearest point."""
        at = event.get_content_offset(self)
        if at is None or not len(self._points):
            return
        columns, rows = (np.array(each) for each in self._cells())
        far = (columns - at.x) ** 2 + (CELL_RATIO * (rows - at.y)) ** 2
        self.post_message(self.Chosen(int(far.argmin())))
