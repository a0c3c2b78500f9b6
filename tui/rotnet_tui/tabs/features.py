"""The learned features: probe results of each tap, and the filters of the first layer."""

from collections.abc import Iterable

from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text
from textual.containers import Horizontal, VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from rotnet_keras.reports.tables import Table, probe_tables, result_tables
from rotnet_keras.runs.folder import RunFolder
from rotnet_tui.settings import Settings
from rotnet_tui.state.history import History
from rotnet_tui.tabs.base import RunTab
from rotnet_tui.widgets.picture import half_blocks, open_image


class FeaturesTab(RunTab):
    """Probe accuracy by tap beside the paper's, and the filters after the newest epoch."""

    def __init__(self, settings: Settings, *, id: str) -> None:
        super().__init__(settings, id=id)
        self._drawn: tuple | None = None

    def contents(self) -> Iterable[Widget]:
        """Tables on the left, filters on the right."""
        with Horizontal():
            with VerticalScroll(id="probes"):
                yield Static(id="probe-tables")
            with VerticalScroll(id="filters"):
                yield Static(id="filter-picture")

    def show(self, history: History, state: str) -> None:
        """Draw both, if something is new."""
        samples = history.events["samples"]
        key = (*(len(history.events[kind]) for kind in ("probe", "run", "picture")), len(samples), state, self.size)
        if key == self._drawn:
            return
        self._drawn = key
        self.query_one("#probe-tables", Static).update(self._tables(history))
        self.query_one("#filter-picture", Static).update(self._filters(history.run, samples))

    def _tables(self, history: History) -> Group | Text:
        recipe = history.run.recipe_values()
        probes = history.events["probe"]
        if history.is_study:
            return _rich_tables(result_tables(history.run))
        if not probes:
            planned = len(recipe.get("probe", []))
            if not planned:
                return Text("This recipe has no probe. Add a [[probe]] table to measure how good the features are.")
            return Text(f"No probe yet: {planned} {'follows' if planned == 1 else 'follow'} after pretraining.")
        return _rich_tables(probe_tables(history.run, probes))

    def _filters(self, run: RunFolder, samples: list[dict]) -> Group | str:
        paths = [run.samples / str(e["filters"]) for e in samples if e.get("filters")]
        image = open_image(paths[-1] if paths else run.figures / "filters.png")
        if image is None:
            return "The filters of the first layer are drawn at the end of every epoch."
        width = min(max(10, self.query_one("#filters").size.width - 2), image.width)
        height = max(1, round(image.height * width / image.width / 2))
        heading = Text("Filters of the first layer, highest energy first", style="bold")
        return Group(heading, half_blocks(image, width, height))


def _rich_tables(tables: list[Table]) -> Group:
    parts: list = []
    for title, columns, rows in tables:
        table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for i, column in enumerate(columns):
            table.add_column(Text(column), justify="left" if i == 0 else "right")
        for row in rows:
            table.add_row(*map(Text, row))
        parts += [Text(title, style="bold"), table, Text()]
    return Group(*parts)
