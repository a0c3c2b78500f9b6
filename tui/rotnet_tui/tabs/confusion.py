"""The confusion matrix of the last validation."""

from collections.abc import Iterable

from rich.console import Group
from rich.style import Style
from rich.table import Table
from rich.text import Text
from textual.color import Color
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from rotnet_keras.runs.task_labels import MAX_CONFUSION_CLASSES, per_class_recall
from rotnet_keras.text import percent
from rotnet_tui.state.history import History
from rotnet_tui.state.words import bar, screen_text
from rotnet_tui.tabs.base import RunTab

SHOWN_EPOCHS = 40
# Columns of the terminal: for the names on the left, and for a cell.
NAME_WIDTH, MIN_CELL, MAX_CELL = 8, 5, 10
# Columns for the margins and the scroll bar.
MARGINS = 6


class ConfusionTab(RunTab):
    """A heat map of true against predicted classes, and the recall of each class by epoch."""

    def contents(self) -> Iterable[Widget]:
        """The heat map and the recalls, in one widget."""
        with VerticalScroll():
            yield Static(id="confusion-table")

    def show(self, history: History, state: str) -> None:
        """Draw the confusion matrix of the last validation."""
        epochs = [e for e in history.epochs if "validation" in e]
        target = self.query_one("#confusion-table", Static)
        if not epochs:
            target.update("No validation yet. It comes at the end of every epoch.")
            return
        validation = epochs[-1]["validation"]
        if not 0 < len(validation["confusion"]) <= MAX_CONFUSION_CLASSES:
            target.update("There are too many classes for a confusion matrix.")
            return
        names = _names(history.task.classes, len(validation["confusion"]))
        heading = f"Confusion matrix, validation after epoch {epochs[-1]['epoch']:g}"
        unit = "percent" if self.settings.percent else "counts"
        target.update(
            Group(
                Text.assemble((heading, "bold"), "   rows: true, columns: predicted   ", ("%", "bold"), f" {unit}"),
                Text(),
                self._heat_map(validation["confusion"], names),
                Text(),
                Text("Recall by epoch", style="bold"),
                self._recall([per_class_recall(e["validation"]["confusion"]) for e in epochs], names),
            )
        )

    def _heat_map(self, counts: list[list[int]], names: list[str]) -> Table:
        table = Table.grid(padding=0)
        table.add_column(justify="right", width=NAME_WIDTH)
        width = max(MIN_CELL, min(MAX_CELL, (self.size.width - NAME_WIDTH - MARGINS) // len(names)))
        for _ in names:
            table.add_column(width=width, no_wrap=True)
        table.add_row("", *(Text(f"{name[: width - 1]:^{width}}", style="bold") for name in names))
        for name, row in zip(names, counts, strict=True):
            total = max(1, sum(row))
            cells = [self._cell(count, count / total, width) for count in row]
            table.add_row(Text(f"\n{name[: NAME_WIDTH - 2]}  ", style="bold"), *cells)
        return table

    def _cell(self, count: int, share: float, width: int) -> Text:
        colors = self.app.theme_variables
        low, high = Color.parse(colors["surface"]), Color.parse(colors["primary"])
        background = low.blend(high, share**0.6)
        style = Style(color=background.get_contrast_text(1.0).rich_color, bgcolor=background.rich_color)
        text = percent(share, 0 if width < MAX_CELL else 1) if self.settings.percent else str(count)
        # A no-break space: Rich drops blanks at the end of a line together with their colour.
        blank = width * "\u00a0"
        return Text(f"{blank}\n{text:\u00a0^{width}}\n{blank}", style=style)

    def _recall(self, by_epoch: list[list[float]], names: list[str]) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(justify="right", width=6)
        table.add_column()
        table.add_column(justify="right")
        for i, name in enumerate(names):
            values = [epoch[i] for epoch in by_epoch][-SHOWN_EPOCHS:]
            bars = "".join(map(bar, values))
            table.add_row(Text(name), Text(bars, style=self.app.theme_variables["text-primary"]), percent(values[-1]))
        return table


def _names(classes: tuple[str, ...], count: int) -> list[str]:
    """The names of the classes; numbers where they are not known."""
    return [screen_text(name) for name in classes] if len(classes) == count else [str(i) for i in range(count)]
