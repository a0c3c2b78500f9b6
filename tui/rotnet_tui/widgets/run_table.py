"""The table of all runs, brought up to date cell by cell."""

from collections.abc import Sequence
from typing import Any

from rich.text import Text
from textual.widgets import DataTable

from rotnet_tui.state.words import age, duration, epochs, percent, state_text

LABELS = {
    **{"mark": " ", "state": "state", "name": "run", "recipe": "recipe", "epoch": "epoch"},
    **{"rotation": "rot. %", "object": "object %", "left": "ETA", "age": "age"},
}
RIGHT = ("epoch", "rotation", "object", "left", "age")
# Left out below this many columns of the terminal.
SPARED, WIDE = ("recipe", "age"), 100


class RunTable(DataTable[Any]):
    """One row a run; the row that is highlighted stays so while others come and go."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id, cursor_type="row")
        self._shown: dict[str, dict[str, Any]] = {}
        self._keys: list[str] = []

    def fill(self, runs: Sequence[dict[str, Any]], marked: set[str], pinned: Sequence[str]) -> None:
        """Show summaries of runs in this order."""
        rows = {found["name"]: self._cells(found, marked, pinned) for found in runs}
        keys = [key for key in LABELS if key not in SPARED or self.app.size.width >= WIDE]
        if list(rows) != list(self._shown) or keys != self._keys:
            self._begin(rows, keys)
        else:
            for name, cells in rows.items():
                for key in keys:
                    if cells[key] != self._shown[name][key]:
                        self.update_cell(name, key, cells[key], update_width=True)
        self._shown, self._keys = rows, keys

    def forget(self) -> None:
        """Draw everything anew the next time: the colours have changed."""
        self._keys = []

    def _begin(self, rows: dict[str, dict[str, Any]], keys: list[str]) -> None:
        before = highlighted(self)
        self.clear(columns=True)
        for key in keys:
            self.add_column(Text(LABELS[key], justify="right" if key in RIGHT else "left"), key=key)
        for name, cells in rows.items():
            self.add_row(*(cells[key] for key in keys), key=name)
        if before in rows:
            self.move_cursor(row=list(rows).index(before), animate=False)

    def _cells(self, found: dict[str, Any], marked: set[str], pinned: Sequence[str]) -> dict[str, Any]:
        name = found["name"]
        mark = "◆" if name in marked else "▴" if name in pinned else " "
        left = {"mark": mark, "state": state_text(found["state"], self.app.theme_variables), "name": Text(name)}
        right = {
            "epoch": epochs(found),
            "rotation": percent(found["rotation_accuracy"]),
            "object": percent(found["object_accuracy"]),
            "left": duration(found["seconds_left"]),
            "age": age(found["created"]),
        }
        recipe = {"recipe": Text(found["recipe"] or "")}
        return left | recipe | {key: Text(value, justify="right") for key, value in right.items()}


def highlighted(table: DataTable) -> str | None:
    """The key of the row that the cursor is on."""
    if not table.row_count:
        return None
    return table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
