"""What is taken for what."""

from rich.console import Group
from rich.style import Style
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.color import Color
from textual.containers import VerticalScroll
from textual.widgets import Static

from rotnet_keras.runs.task_labels import recalls
from rotnet_tui.state.history import History
from rotnet_tui.state.words import printable
from rotnet_tui.tabs.base import Pane

BARS = "▁▂▃▄▅▆▇█"
SHOWN_EPOCHS = 40
# Columns of the terminal: for the names on the left, and for a cell.
NAME, NARROWEST, WIDEST = 8, 5, 10
# For the margins and the scroll bar.
AROUND = 6


class Confusion(Pane):
    """A heat table of true against predicted answers, and the recall of each by epoch."""

    def __init__(self) -> None:
        super().__init__(id="confusion")

    def compose(self) -> ComposeResult:
        """The tables."""
        with VerticalScroll():
            yield Static(id="confusion-table")

    def show(self, history: History, state: str) -> None:
        """Draw the last validation's confusion."""
        epochs = [e for e in history.epochs if "validation" in e]
        target = self.query_one("#confusion-table", Static)
        if not epochs:
            target.update("No validation yet: it comes at the end of every epoch.")
            return
        validation = epochs[-1]["validation"]
        if not validation["confusion"]:
            target.update("There are too many answers to show what was taken for what.")
            return
        names = _names(history.task.answers, len(validation["confusion"]))
        target.update(
            Group(
                Text(
                    f"Validation after epoch {epochs[-1]['epoch']:g}: rows true, columns predicted    % share or count"
                ),
                Text(),
                self._heat(validation["confusion"], names),
                Text(),
                Text("Recall by epoch"),
                self._recall([recalls(e["validation"]["confusion"]) for e in epochs], names),
            )
        )

    def _heat(self, counts: list[list[int]], names: list[str]) -> Table:
        table = Table.grid(padding=0)
        table.add_column(justify="right", width=NAME)
        width = max(NARROWEST, min(WIDEST, (self.size.width - NAME - AROUND) // len(names)))
        for _ in names:
            table.add_column(width=width, no_wrap=True)
        table.add_row("", *(Text(f"{name[: width - 1]:^{width}}", style="bold") for name in names))
        for name, row in zip(names, counts, strict=True):
            total = max(1, sum(row))
            cells = [self._cell(count, count / total, width) for count in row]
            table.add_row(Text(f"\n{name[: NAME - 2]}  ", style="bold"), *cells)
        return table

    def _cell(self, count: int, share: float, width: int) -> Text:
        colors = self.app.theme_variables
        low, high = Color.parse(colors["surface"]), Color.parse(colors["primary"])
        background = low.blend(high, share**0.6)
        style = Style(color=background.get_contrast_text(1.0).rich_color, bgcolor=background.rich_color)
        text = f"{100 * share:.{0 if width < WIDEST else 1}f} %" if self.settings.percent else str(count)
        # A no-break space, since Rich drops blanks at the end of a line with their colour.
        blank = width * "\u00a0"
        return Text(f"{blank}\n{text:\u00a0^{width}}\n{blank}", style=style)

    def _recall(self, by_epoch: list[list[float]], names: list[str]) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(justify="right", width=6)
        table.add_column()
        table.add_column(justify="right")
        for i, name in enumerate(names):
            values = [epoch[i] for epoch in by_epoch][-SHOWN_EPOCHS:]
            bars = "".join(BARS[min(len(BARS) - 1, int(v * len(BARS)))] for v in values)
            table.add_row(name, Text(bars, style=self.app.theme_variables["text-primary"]), f"{100 * values[-1]:.1f} %")
        return table


def _names(answers: tuple[str, ...], count: int) -> list[str]:
    """The answers; numbers where they are not known."""
    return [printable(name) for name in answers] if len(answers) == count else [str(i) for i in range(count)]
