"""The metrics of a run as a grid of charts that people arrange."""

from collections.abc import Iterable, Sequence

import numpy as np
from textual import on
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from rotnet_keras.text import percent
from rotnet_tui.settings import Settings
from rotnet_tui.state.history import History
from rotnet_tui.state.metrics import PERCENT, Metrics, between, chart_names, chosen, metrics_of, x_at
from rotnet_tui.state.words import LIVE, thousands
from rotnet_tui.tabs.base import RunTab
from rotnet_tui.widgets.chart import Chart
from rotnet_tui.widgets.chart_grid import ChartGrid
from rotnet_tui.widgets.curves import COLORS, DASHES, SMOOTHING, Curve

# Columns in which the words below the charts stand wide apart.
WIDE = 100


class CurvesTab(RunTab):
    """Charts in a grid; where there is no room for all of them, a page at a time."""

    def __init__(self, settings: Settings, *, id: str) -> None:
        super().__init__(settings, id=id)
        self._cursor: int | None = None
        self._history: History | None = None
        self._state = ""

    def contents(self) -> Iterable[Widget]:
        """The charts, and a line with their settings and keys."""
        yield ChartGrid(id="charts")
        yield Static(id="curves-hint", markup=True)

    @property
    def charts(self) -> ChartGrid:
        """The charts."""
        return self.query_one(ChartGrid)

    def next_chart(self, by: int) -> None:
        """Bring another page of charts to the front."""
        self.charts.turn(by, self.settings.charts, self.settings.grid)

    def sideways(self, by: int) -> None:
        """Move the cursor of all charts by so many columns; the first time it appears at the last step."""
        history = self._history
        count = len(history.columns["step"]) if history else 0
        if history is None or not count:
            return
        steps = history.columns["step"]
        if self._cursor is None:
            self._set_cursor(steps[-1])
            return
        stride = max(1, count // max(1, self.charts.current().size.width))
        position = int(np.searchsorted(np.asarray(steps), self._cursor)) + by * stride
        self._set_cursor(steps[min(count - 1, max(0, position))])

    def clear_cursor(self) -> bool:
        """Take the cursor away; returns whether there was one."""
        had = self._cursor is not None
        if had:
            self._set_cursor(None)
        return had

    @on(Chart.CursorMoved)
    def _clicked(self, message: Chart.CursorMoved) -> None:
        if self._history is None or not len(self._history.columns["step"]):
            return
        x = np.asarray(x_at(self._history, None, self.settings.x_axis))
        nearest = int(np.argmin(np.abs(x - message.x)))
        self._set_cursor(self._history.columns["step"][nearest])

    def _set_cursor(self, step: float | None) -> None:
        self._cursor = None if step is None else int(step)
        if self._history is not None:
            for chart in self.query(Chart):
                chart.move_cursor(self._cursor_x(self._history))
            self._show_hint(self._history)

    def _cursor_x(self, history: History) -> float | None:
        if self._cursor is None:
            return None
        x = x_at(history, None, self.settings.x_axis)
        return next(iter(between(history.columns["step"], x, [self._cursor])), None)

    def show(self, history: History, state: str) -> None:
        """Draw the charts of the page in front."""
        self._history, self._state = history, state
        metrics = metrics_of(history)
        for chart, pattern in self.charts.lay_out(self.settings.charts, self.settings.grid):
            self._show_chart(chart, pattern, history, metrics)
        self._show_hint(history)

    def _show_chart(self, chart: Chart, pattern: str, history: History, metrics: Metrics) -> None:
        settings, columns = self.settings, history.columns
        x = x_at(history, None, settings.x_axis)
        names = chosen(pattern, metrics)
        title, short = chart_names(pattern, names)
        series = [metrics[name]() for name in names]
        curves = [
            Curve(
                name,
                x_at(history, each, settings.x_axis),
                each.values,
                COLORS[n % len(COLORS)],
                n % len(DASHES),
                each.smooth,
            )
            for n, (name, each) in enumerate(zip(short, series, strict=True))
        ]
        title = history.task.accuracy_name if title == "accuracy" else title
        percents = bool(series) and all(each.unit == PERCENT for each in series)
        chart.border_title = Content(f"{title}, %" if percents else title)
        chances = {each.chance for each in series}
        resumed = [e["step"] for e in history.events["resume"]]
        chart.show(
            curves,
            chance=chances.pop() if len(chances) == 1 else None,
            log=settings.log_axis and not percents,
            smoothing=settings.smoothing,
            marks=_rate_drops(columns["learning_rate"], x) + between(columns["step"], x, resumed),
            format=series[0].format if series else ".3g",
            cursor=self._cursor_x(history),
        )

    def _show_hint(self, history: History) -> None:
        self.query_one("#curves-hint", Static).update(self._hint(history, self._state), layout=False)

    def _hint(self, history: History, state: str) -> str:
        if history.is_study:
            return "A study has no curves of its own. Its tables are in the tab Features, its runs on the home screen."
        columns = history.columns
        if not len(columns["step"]):
            if state and state not in LIVE:
                return "There is nothing to draw: this run has not made a step."
            return "No step yet. The first step is slow, because TensorFlow traces the graph."
        settings = self.settings
        words = []
        if self._cursor is not None:
            at = int(np.searchsorted(np.asarray(columns["step"]), self._cursor))
            at = min(at, len(columns["step"]) - 1)
            minutes = columns["seconds"][at] / 60
            words = [
                f"[b]cursor[/] step {thousands(self._cursor)}, epoch {columns['epoch'][at]:.2f}, {minutes:.1f} min"
            ]
        axis = {"epoch": "epochs", "step": "steps", "time": "minutes"}[settings.x_axis]
        words += [f"[b]x[/] {axis}", f"[b]y[/] {'log' if settings.log_axis else 'linear'}"]
        words.append(f"[b]m[/] smoothing {SMOOTHING[settings.smoothing]:g}")
        if page := self.charts.page_words(settings.charts, settings.grid):
            words.append(page)
        if self._cursor is None:
            words.append("[b]← →[/] cursor")
        words.append("[b]g[/] arrange")
        if history.stride > 1:
            words.append(f"every {history.stride}th logged step is drawn")
        if not history.complete:
            words.append(f"reading events, {percent(history.fraction_read, 0)}")
        # All of them fit 80 columns.
        return ("   " if self.size.width >= WIDE else "  ").join(words)


def _rate_drops(rates: Sequence[float], x: Sequence[float]) -> list[float]:
    """Where a learning rate drops after having been constant: not on the slope of a cosine schedule."""
    rate = np.asarray(rates)
    dropped = np.flatnonzero((rate[2:] < 0.9 * rate[1:-1]) & (rate[1:-1] == rate[:-2])) + 2
    return [x[int(i)] for i in dropped]
