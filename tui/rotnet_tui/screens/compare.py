"""Several runs compared: curves, results, and the recipe keys in which they differ."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, VerticalScroll
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.widgets import Footer, Static

from rotnet_keras.errors import RunError
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.status import comparison_table
from rotnet_tui.screens.base import mistake
from rotnet_tui.settings import Settings
from rotnet_tui.state.history import History
from rotnet_tui.widgets.chart import SMOOTHING, Chart, Curve

COLORS = ("$text-primary", "$text-warning", "$text-success", "$text-error", "$text-accent", "$text-secondary")


class CompareScreen(Screen[None]):
    """Two charts above, the table below."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]
    BINDINGS = [
        Binding("escape", "app.pop_screen", "Back"),
        Binding("x", "x_axis", "Epoch or step", id="x_axis"),
        Binding("y", "log_axis", "Log axis", id="log_axis"),
        Binding("m", "smoothing", "Smoothing", id="smoothing"),
    ]
    HELP = """\
The charts show the curves of all marked runs. The table lists their results, and only those recipe keys in which the
runs differ.
"""

    def __init__(self, runs: Sequence[RunFolder], settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self._histories = [History(run) for run in runs]

    def compose(self) -> ComposeResult:
        """Two charts and the table."""
        with Horizontal(id="compare-charts"):
            yield Chart("validation accuracy, %", id="compare-accuracy")
            yield Chart("training loss", id="compare-loss")
        with VerticalScroll(id="compare-scroll", can_focus=True):
            yield Static(id="compare-table")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Read the runs and draw them."""
        self.query_one("#compare-scroll").focus()
        self.call_after_refresh(self._draw)

    async def tick(self) -> None:
        """Draw again if a run has new events."""
        changed = [history.poll(0.05) for history in self._histories]
        if any(changed):
            self._draw()

    def on_resize(self) -> None:
        """Charts depend on the size."""
        self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        try:
            self._draw_all()
        except RunError as error:
            # Events of another version, or damaged ones: the screen keeps what it shows.
            self.notify(f"These runs cannot be compared: {error}", severity="warning", markup=False)
        except NoMatches:
            raise  # The screen is being removed.
        except Exception as error:
            self.notify(mistake("This screen cannot be drawn", error), severity="error", markup=False)

    def _draw_all(self) -> None:
        settings = self.settings
        accuracy, loss = [], []
        for history, color in zip(self._histories, self._colors(), strict=True):
            history.poll(0.2)
            x = "step" if settings.x_axis == "step" else "epoch"
            epochs = [e for e in history.epochs if "validation" in e]
            values = [100 * e["validation"]["accuracy"] for e in epochs]
            accuracy.append(Curve(history.run.name, [e[x] for e in epochs], values, color))
            loss.append(Curve(history.run.name, history.columns[x], history.columns["loss"], color, smooth=True))
        self.query_one("#compare-accuracy", Chart).show(accuracy, chance=self._chance(), format=".1f")
        self.query_one("#compare-loss", Chart).show(loss, log=settings.log_axis, smoothing=settings.smoothing)
        self.query_one("#compare-table", Static).update(self._table())

    def _chance(self) -> float | None:
        """Chance level in percent, None unless it is the same for all runs."""
        counts = {history.task.num_classes for history in self._histories}
        return 100 / counts.pop() if len(counts) == 1 else None

    def _colors(self) -> list[str]:
        return [COLORS[i % len(COLORS)] for i in range(len(self._histories))]

    def _table(self) -> Table:
        columns, rows = comparison_table([history.run for history in self._histories])
        variables = self.app.theme_variables
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("")
        for name, color in zip(columns[1:], self._colors(), strict=True):
            style = variables[color[1:]][:7]
            table.add_column(Text(name, style=f"bold {style}", justify="right"), justify="right", overflow="fold")
        for name, *cells in rows:
            table.add_row(Text(name), *map(Text, cells))
        return table

    def action_x_axis(self) -> None:
        """Switch between epochs and steps."""
        self.settings.x_axis = "epoch" if self.settings.x_axis == "step" else "step"
        self._draw()

    def action_log_axis(self) -> None:
        """Switch between a logarithmic and a linear loss axis."""
        self.settings.log_axis = not self.settings.log_axis
        self._draw()

    def action_smoothing(self) -> None:
        """Next strength of smoothing."""
        self.settings.smoothing = (self.settings.smoothing + 1) % len(SMOOTHING)  # type: ignore[assignment]
        self._draw()
