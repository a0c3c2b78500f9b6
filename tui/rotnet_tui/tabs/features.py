"""The learned features: probe results and effective rank of each tap, and the filters of the first layer."""

from collections.abc import Iterable

from PIL import Image
from rich.console import Group
from rich.text import Text
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from rotnet_keras.reports.tables import Table, probe_tables, result_tables
from rotnet_keras.runs import feature_quality
from rotnet_tui.settings import Settings
from rotnet_tui.state.history import History
from rotnet_tui.tabs.base import RunTab
from rotnet_tui.widgets.chart import Chart
from rotnet_tui.widgets.curves import COLORS, DASHES, Curve
from rotnet_tui.widgets.picture import Picture, open_image, picture
from rotnet_tui.widgets.result_tables import rich_tables


class FeaturesTab(RunTab):
    """Probe accuracy by tap beside the paper's, effective ranks by epoch, and the filters after the newest epoch."""

    def __init__(self, settings: Settings, *, id: str) -> None:
        super().__init__(settings, id=id)
        # What was read: for which events, the tables, and the filters. What is drawn: that, the state and the size.
        self._read: tuple[tuple, list[Table], Image.Image | None] | None = None
        self._drawn: tuple | None = None

    def contents(self) -> Iterable[Widget]:
        """Tables and the chart of effective ranks on the left, filters on the right."""
        with Horizontal():
            with Vertical(id="measured"):
                with VerticalScroll(id="probes"):
                    yield Static(id="probe-tables")
                yield Chart("effective rank by epoch", id="rank-chart")
            with VerticalScroll(id="filters"):
                yield Static(id="filter-words")
                yield picture(self.settings.images, id="filter-picture")

    def fetch(self, history: History) -> None:
        """Read the results, if there are new ones, and the newest filters."""
        key = tuple(len(history.events[kind]) for kind in ("probe", "features", "run", "picture", "samples"))
        if self._read is None or key != self._read[0] or self._read[2] is None:
            run, probes = history.run, list(history.events["probe"])
            tables = result_tables(run) if history.is_study else probe_tables(run, probes)
            paths = [run.samples / str(e["filters"]) for e in list(history.events["samples"]) if e.get("filters")]
            filters = open_image(paths[-1] if paths else run.figures / "filters.png")
            if self._read is None or key != self._read[0] or filters is not None:
                self._read = key, tables, filters

    def show(self, history: History, state: str) -> None:
        """Draw both, if something is new."""
        read = self._read
        if read is None:
            self.query_one("#probe-tables", Static).update("Reading the results …")
            self.query_one("#rank-chart").display = self.query_one("#filter-picture").display = False
            return
        if (read, state, self.size) == self._drawn:
            return
        self._drawn = read, state, self.size
        _, tables, filters = read
        self.query_one("#probe-tables", Static).update(self._tables(history, tables))
        self._show_filters(filters)
        self._show_ranks(history)

    def _show_ranks(self, history: History) -> None:
        chart, curves = self.query_one("#rank-chart", Chart), feature_quality.tap_curves(history.events["features"])
        chart.display = any(len(curve.steps) > 1 for curve in curves)
        per_epoch = max(1, history.run.facts().get("steps_per_epoch", 1))
        chart.show(
            [
                Curve(
                    curve.tap,
                    [s / per_epoch for s in curve.steps],
                    curve.ranks,
                    COLORS[n % len(COLORS)],
                    n % len(DASHES),
                )
                for n, curve in enumerate(curves)
            ],
            format=".1f",
        )

    def _tables(self, history: History, read: list[Table]) -> Group | Text:
        """What was measured of each tap, by probes and without labels."""
        tables = self._probes(history, read)
        features, probes = history.events["features"], history.events["probe"]
        if not features:
            return tables
        columns, found = feature_quality.rows(feature_quality.tap_curves(features))
        table = rich_tables([("Features after the newest epoch", columns, found)])
        return Group(
            tables,
            *([Text()] if isinstance(tables, Text) else []),
            table,
            Text(f"{feature_quality.advice([*features, *probes])} {feature_quality.CAUTION}"),
        )

    def _probes(self, history: History, read: list[Table]) -> Group | Text:
        if not history.is_study and not history.events["probe"]:
            planned = len(history.run.recipe_values().get("probe", []))
            if not planned:
                return Text("This recipe has no probe. Add a [[probe]] table to measure how good the features are.")
            if history.run.facts().get("data", {}).get("classes") == []:
                return Text("The images have no labels, which probes need: they are left out.")
            return Text(f"No probe yet: {planned} {'follows' if planned == 1 else 'follow'} after pretraining.")
        return rich_tables(read)

    def _show_filters(self, image: Image.Image | None) -> None:
        words, drawn = self.query_one("#filter-words", Static), self.query_one("#filter-picture", Picture)
        drawn.display = image is not None
        if image is None:
            words.update("The filters of the first layer are drawn at the end of every epoch.")
            return
        words.update(Text("Filters of the first layer, highest energy first", style="bold"))
        width = min(max(10, self.query_one("#filters").size.width - 2), image.width)
        drawn.show(image, width, max(1, round(image.height * width / image.width / 2)))
