"""Charts in a grid; where there is no room for all of them, a page at a time."""

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Grid

from rotnet_tui.state.metrics import grid_size
from rotnet_tui.widgets.chart import Chart

# The least cells of a chart beside or above another one.
MIN_WIDTH, MIN_HEIGHT = 36, 9
# Charts on a page.
MOST = 9


class ChartGrid(Grid):
    """Up to nine charts, each for a pattern of metrics.

    Args:
        prefix: of the names of the charts, where a screen has several grids.
    """

    def __init__(self, id: str, prefix: str = "") -> None:
        super().__init__(id=id)
        self._prefix = prefix
        self._front = 0

    def compose(self) -> ComposeResult:
        """The charts, of which as many are shown as are needed."""
        for number in range(1, MOST + 1):
            chart = Chart("", id=f"{self._prefix}chart-{number}")
            chart.display = False
            yield chart

    def lay_out(self, patterns: Sequence[str], grid: str) -> list[tuple[Chart, str]]:
        """Lay out the page in front; returns its charts, each with its pattern.

        Args:
            patterns: of all charts.
            grid: columns and rows that were asked for, such as "2x2".
        """
        columns, rows = self._fitting(grid)
        if self._front >= len(patterns):
            self._front = 0
        page = patterns[self._front : self._front + columns * rows]
        used = max(1, min(columns, len(page)))
        self.styles.grid_size_columns, self.styles.grid_size_rows = used, -(-len(page) // used)
        charts = list(self.query(Chart))
        for number, chart in enumerate(charts):
            chart.display = number < len(page)
        return list(zip(charts, page))

    def turn(self, by: int, patterns: Sequence[str], grid: str) -> None:
        """Bring another page to the front."""
        columns, rows = self._fitting(grid)
        pages = -(-len(patterns) // (columns * rows))
        self._front = (self._front // (columns * rows) + by) % pages * columns * rows

    def page_words(self, patterns: Sequence[str], grid: str) -> str:
        """Which page is in front, as markup with its keys; empty if there is only one."""
        columns, rows = self._fitting(grid)
        per_page = columns * rows
        if per_page >= len(patterns):
            return ""
        what = "chart" if per_page == 1 else "charts"
        return f"[b]\\[ ][/] {what} {self._front // per_page + 1} of {-(-len(patterns) // per_page)}"

    def current(self) -> Chart:
        """The chart of this grid that has the focus, else the first one."""
        focused = self.screen.focused
        return focused if isinstance(focused, Chart) and focused in self.children else self.query(Chart).first()

    def _fitting(self, grid: str) -> tuple[int, int]:
        columns, rows = grid_size(grid) or (2, 2)
        width = 1 if self.screen.has_class("-narrow") else max(1, self.size.width // MIN_WIDTH)
        return min(columns, width), min(rows, max(1, self.size.height // MIN_HEIGHT))
