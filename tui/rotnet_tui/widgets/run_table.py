"""The table of all runs, updated cell by cell, and what completes its filter."""

from collections.abc import Sequence
from typing import Any

from rich.text import Text
from textual.suggester import Suggester
from textual.widgets import DataTable

from rotnet_keras.runs.queries import completion
from rotnet_keras.text import duration, percent
from rotnet_tui.state.index import RunIndex
from rotnet_tui.state.words import age, epoch_progress, state_text

LABELS = {
    **{"mark": " ", "state": "state", "name": "run", "recipe": "recipe", "epoch": "epoch"},
    **{"rotation": "rotation %", "object": "object %", "left": "ETA", "age": "age"},
}
RIGHT = ("epoch", "rotation", "object", "left", "age")
# Columns that are hidden in a terminal of fewer than WIDE columns.
HIDDEN_IF_NARROW, WIDE = ("recipe", "age"), 100


class RunTable(DataTable[Any]):
    """One row per run. The highlighted row stays highlighted while others come and go."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id, cursor_type="row")
        self._shown: dict[str, dict[str, Any]] = {}
        self._keys: list[str] = []

    def fill(self, runs: Sequence[dict[str, Any]], marked: set[str], pinned: Sequence[str]) -> None:
        """Show the summaries of runs, in this order."""
        rows = {summary["name"]: self._cells(summary, marked, pinned) for summary in runs}
        keys = [key for key in LABELS if key not in HIDDEN_IF_NARROW or self.app.size.width >= WIDE]
        if list(rows) != list(self._shown) or keys != self._keys:
            self._rebuild(rows, keys)
        else:
            for name, cells in rows.items():
                for key in keys:
                    if cells[key] != self._shown[name][key]:
                        self.update_cell(name, key, cells[key], update_width=True)
        self._shown, self._keys = rows, keys

    def invalidate(self) -> None:
        """Draw everything again the next time, since the colours have changed."""
        self._keys = []

    def _rebuild(self, rows: dict[str, dict[str, Any]], keys: list[str]) -> None:
        before = highlighted(self)
        self.clear(columns=True)
        for key in keys:
            self.add_column(Text(LABELS[key], justify="right" if key in RIGHT else "left"), key=key)
        for name, cells in rows.items():
            self.add_row(*(cells[key] for key in keys), key=name)
        if before in rows:
            self.move_cursor(row=list(rows).index(before), animate=False)

    def _cells(self, summary: dict[str, Any], marked: set[str], pinned: Sequence[str]) -> dict[str, Any]:
        name = summary["name"]
        mark = "◆" if name in marked else "▴" if name in pinned else " "
        left = {"mark": mark, "state": state_text(summary["state"], self.app.theme_variables), "name": _name(summary)}
        right = {
            "epoch": epoch_progress(summary),
            "rotation": percent(summary["rotation_accuracy"], sign=""),
            "object": percent(summary["object_accuracy"], sign=""),
            "left": duration(summary["seconds_left"]),
            "age": age(summary["created"]),
        }
        recipe = {"recipe": Text(summary["recipe"] or "")}
        return left | recipe | {key: Text(value, justify="right") for key, value in right.items()}


class QuerySuggester(Suggester):
    """Completes the last term of a filter to a field, or to a value that some run has."""

    def __init__(self, index: RunIndex) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._index = index

    async def get_suggestion(self, value: str) -> str | None:
        """The completed filter; None if there is nothing to complete."""
        return completion(value, list(self._index.summaries.values()))


def _name(summary: dict[str, Any]) -> Text:
    """The name of a run with its tags."""
    text = Text(summary["name"])
    for tag in summary["tags"]:
        text.append(f" #{tag}", style="italic dim")
    return text


def highlighted(table: DataTable) -> str | None:
    """The key of the highlighted row; None if the table is empty."""
    if not table.row_count:
        return None
    return table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
