"""Several runs compared: curves, results, and the recipe keys in which they differ."""

import asyncio
from collections.abc import Sequence

import numpy as np
from rich.table import Table
from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.widgets import Footer, Static

from rotnet_keras.errors import RunError
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.status import comparison_table
from rotnet_tui.screens.base import mistake
from rotnet_tui.screens.dialogs import ChartsDialog
from rotnet_tui.settings import Settings
from rotnet_tui.state.history import History
from rotnet_tui.state.known_run import KnownRun
from rotnet_tui.state.metrics import PERCENT, Series, chosen, metrics_of, x_at
from rotnet_tui.state.words import screen_text, thousands
from rotnet_tui.widgets.chart import Chart
from rotnet_tui.widgets.chart_grid import ChartGrid
from rotnet_tui.widgets.curves import COLORS, DASHES, SMOOTHING, Curve

# The cursor crosses the charts in so many key presses.
CURSOR_STEPS = 60


class CompareScreen(Screen[None]):
    """A row of charts above, the table below."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]
    BINDINGS = [
        Binding("escape", "back", "Back"),
        Binding("x", "x_axis", "Epoch or step", id="x_axis"),
        Binding("y", "log_axis", "Log axis", id="log_axis"),
        Binding("m", "smoothing", "Smoothing", id="smoothing"),
        Binding("g", "arrange", "Arrange", id="arrange"),
        Binding("left", "cursor(-1)", "Cursor to the left", show=False),
        Binding("right", "cursor(1)", "Cursor to the right", show=False),
        Binding("left_square_bracket", "chart(-1)", "Previous charts", show=False),
        Binding("right_square_bracket", "chart(1)", "Next charts", show=False),
    ]
    HELP = """\
The charts show metrics of all marked runs; each run has its colour and stroke. `←` `→` move a cursor over all charts:
the legends then say how the other runs differ from the first at this place. `g` chooses the metrics, `[` `]` switch
pages. The table lists the results, and only those recipe keys in which the runs differ.
"""

    def __init__(self, runs: Sequence[RunFolder], settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self._runs = runs
        self._histories: list[History] = []
        self._cursor: float | None = None
        self._reading = False

    def compose(self) -> ComposeResult:
        """The charts and the table."""
        yield ChartGrid(id="compare-charts")
        yield Static(id="compare-hint", markup=True)
        with VerticalScroll(id="compare-scroll", can_focus=True):
            yield Static("Reading the runs …", id="compare-table")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to read the runs."""
        self.query_one("#compare-scroll").focus()
        self.app.theme_changed_signal.subscribe(self, lambda theme: self._draw())

    async def tick(self) -> None:
        """Read what is new, in short slices, and draw it."""
        if self._reading:
            return
        self._reading = True
        try:
            if not self._histories:
                known = [await asyncio.to_thread(KnownRun.of, run) for run in self._runs]
                self._histories = [History(run) for run in known]
            changed = False
            for history in self._histories:
                await asyncio.to_thread(history.fetch)
                changed |= history.poll()
                while not history.complete and self.is_current:
                    await asyncio.sleep(0.001)
                    await asyncio.to_thread(history.fetch)
                    history.poll()
            if changed or not self._drawn:
                self._draw()
                await self._fill_table()
        finally:
            self._reading = False

    @property
    def _drawn(self) -> bool:
        return isinstance(self.query_one("#compare-table", Static).content, Table)

    def on_resize(self) -> None:
        """Charts depend on the size."""
        self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        if not self._histories:
            return
        try:
            self._draw_charts()
        except NoMatches:
            raise  # The screen is being removed.
        except Exception as error:
            self.notify(mistake("This screen cannot be drawn", error), severity="error", markup=False)

    async def _fill_table(self) -> None:
        try:
            columns, rows = await asyncio.to_thread(comparison_table, self._runs)
        except RunError as error:
            # Events of another version, or damaged ones: the screen keeps what it shows.
            self.notify(f"These runs cannot be compared: {error}", severity="warning", markup=False)
        except Exception as error:
            self.notify(mistake("The runs cannot be compared", error), severity="error", markup=False)
        else:
            self.query_one("#compare-table", Static).update(self._table(columns, rows))

    def _draw_charts(self) -> None:
        settings = self.settings
        metrics = [metrics_of(history) for history in self._histories]
        grid = self.query_one(ChartGrid)
        for chart, pattern in grid.lay_out(settings.compare_charts, settings.compare_grid):
            curves, drawn = [], []
            for number, (history, found) in enumerate(zip(self._histories, metrics, strict=True)):
                names = chosen(pattern, found)
                for name in names:
                    series = found[name]()
                    drawn.append(series)
                    words = history.run.name if len(names) == 1 else f"{history.run.name} {name}"
                    look = COLORS[number % len(COLORS)], number % len(DASHES)
                    x = x_at(history, series, settings.x_axis)
                    curves.append(Curve(screen_text(words), x, series.values, *look, series.smooth))
            self._show(chart, pattern, curves, drawn)
        self._show_hint(grid)

    def _show(self, chart: Chart, pattern: str, curves: Sequence[Curve], drawn: Sequence[Series]) -> None:
        percents = bool(drawn) and all(series.unit == PERCENT for series in drawn)
        chart.border_title = Content(f"{pattern}, %" if percents else pattern)
        chances = {series.chance for series in drawn}
        chart.show(
            curves,
            chance=chances.pop() if len(chances) == 1 else None,
            log=self.settings.log_axis and not percents,
            smoothing=self.settings.smoothing,
            format=drawn[0].format if drawn else ".3g",
            cursor=self._cursor,
            relative=True,
        )

    def _show_hint(self, grid: ChartGrid) -> None:
        settings = self.settings
        axis = {"epoch": "epochs", "step": "steps", "time": "minutes"}[settings.x_axis]
        words = [f"[b]x[/] {axis}", f"[b]m[/] smoothing {SMOOTHING[settings.smoothing]:g}"]
        if page := grid.page_words(settings.compare_charts, settings.compare_grid):
            words.append(page)
        if self._cursor is None:
            words.append("[b]← →[/] cursor")
        else:
            at = thousands(self._cursor) if settings.x_axis == "step" else f"{self._cursor:.2f}"
            words.insert(0, f"[b]cursor[/] {axis.removesuffix('s')} {at}")
        self.query_one("#compare-hint", Static).update(Content.from_markup("   ".join(words)), layout=False)

    def _ends(self) -> tuple[float, float]:
        """The first and the last position of all runs on the x axis."""
        steps = [x_at(history, None, self.settings.x_axis) for history in self._histories]
        found = [float(x) for each in steps if len(each) for x in (each[0], each[-1])]
        return (min(found), max(found)) if found else (0.0, 0.0)

    @on(Chart.CursorMoved)
    def _clicked(self, message: Chart.CursorMoved) -> None:
        self._set_cursor(message.x)

    def _set_cursor(self, x: float | None) -> None:
        self._cursor = x
        for chart in self.query(Chart):
            chart.move_cursor(x)
        self._show_hint(self.query_one(ChartGrid))

    def _table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
        variables = self.app.theme_variables
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("")
        for number, name in enumerate(columns[1:]):
            color, stroke = COLORS[number % len(COLORS)], DASHES[number % len(DASHES)][0]
            style = variables[color[1:]][:7]
            heading = Text(screen_text(name), style=f"bold {style}", justify="right")
            table.add_column(Text(f"{stroke} ", style=style) + heading, justify="right", overflow="fold")
        for name, *cells in rows:
            table.add_row(Text(name), *map(Text, cells))
        return table

    # What the keys do

    def action_back(self) -> None:
        """Remove the cursor, else go back."""
        if self._cursor is None:
            self.dismiss()
        else:
            self._set_cursor(None)

    def action_cursor(self, by: int) -> None:
        """Move the cursor; the first time it appears at the end."""
        low, high = self._ends()
        moved = high if self._cursor is None else self._cursor + by * (high - low) / CURSOR_STEPS
        self._set_cursor(float(np.clip(moved, low, high)))

    def action_chart(self, by: int) -> None:
        """Bring other charts to the front."""
        self.query_one(ChartGrid).turn(by, self.settings.compare_charts, self.settings.compare_grid)
        self._draw()

    @work
    async def action_arrange(self) -> None:
        """Choose the metrics of the charts and their grid."""
        names = list(dict.fromkeys(name for history in self._histories for name in metrics_of(history)))
        dialog = ChartsDialog(self.settings.compare_grid, self.settings.compare_charts, names)
        answer = await self.app.push_screen_wait(dialog)
        if answer:
            self.settings.compare_grid, self.settings.compare_charts = answer
            self.call_after_refresh(self._draw)

    def action_x_axis(self) -> None:
        """Switch between epochs and steps."""
        self.settings.x_axis = "epoch" if self.settings.x_axis == "step" else "step"
        self._cursor = None
        self._draw()

    def action_log_axis(self) -> None:
        """Switch between a logarithmic and a linear axis."""
        self.settings.log_axis = not self.settings.log_axis
        self._draw()

    def action_smoothing(self) -> None:
        """Next strength of smoothing."""
        self.settings.smoothing = (self.settings.smoothing + 1) % len(SMOOTHING)  # type: ignore[assignment]
        self._draw()
