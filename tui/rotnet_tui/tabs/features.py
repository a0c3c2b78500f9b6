"""What has been learned: the first layer's filters, and what a probe makes of each tap."""

from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Static

from rotnet_keras.reports.report import Table, probe_tables, result_tables
from rotnet_keras.runs.folder import RunFolder
from rotnet_tui.state.history import History
from rotnet_tui.tabs.base import Pane
from rotnet_tui.widgets.picture import half_blocks, open_picture


class Features(Pane):
    """Probe accuracy by tap beside the paper's, and the filters of the newest epoch."""

    def __init__(self) -> None:
        super().__init__(id="features")
        self._drawn: tuple | None = None

    def compose(self) -> ComposeResult:
        """Tables on the left, filters on the right."""
        with Horizontal():
            with VerticalScroll(id="probes"):
                yield Static(id="probe-tables")
            with VerticalScroll(id="filters"):
                yield Static(id="filter-picture")

    def show(self, history: History, state: str) -> None:
        """Draw both, if something is new."""
        samples = history.kept["samples"]
        key = (*(len(history.kept[kind]) for kind in ("probe", "run", "picture")), len(samples), state, self.size)
        if key == self._drawn:
            return
        self._drawn = key
        self.query_one("#probe-tables", Static).update(self._tables(history))
        self.query_one("#filter-picture", Static).update(self._filters(history.run, samples))

    def _tables(self, history: History) -> Group | str:
        recipe = history.run.settings()
        probes = history.kept["probe"]
        if history.is_study:
            return _drawn(result_tables(history.run))
        if not probes:
            planned = len(recipe.get("probe", []))
            if not planned:
                return "This recipe has no probe: add a [[probe]] table to it to measure what the features are worth."
            return f"No probe yet: {planned} follow{'s' if planned == 1 else ''} after the pretraining."
        return _drawn(probe_tables(probes, recipe))

    def _filters(self, run: RunFolder, samples: list[dict]) -> Group | str:
        named = [run.samples / str(e["filters"]) for e in samples if e.get("filters")]
        path = named[-1] if named else run.figures / "filters.png"
        image = open_picture(path)
        if image is None:
            return "The first layer's filters are drawn at the end of every epoch."
        width = min(max(10, self.query_one("#filters").size.width - 2), image.width)
        height = max(1, round(image.height * width / image.width / 2))
        return Group(Text("First-layer filters, by falling energy", style="bold"), half_blocks(image, width, height))


def _drawn(tables: list[Table]) -> Group:
    parts: list = []
    for title, columns, rows in tables:
        table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for i, column in enumerate(columns):
            table.add_column(Text(column), justify="left" if i == 0 else "right")
        for row in rows:
            table.add_row(*map(Text, row))
        parts += [Text(title, style="bold"), table, Text()]
    return Group(*parts)
