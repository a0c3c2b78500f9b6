"""Tables of results, as reports have them."""

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from rotnet_keras.reports.tables import Table


def rich_tables(tables: Sequence[Table]) -> Group:
    """Tables below each other, each with its title."""
    parts: list = []
    for title, columns, rows in tables:
        table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for i, column in enumerate(columns):
            table.add_column(Text(column), justify="left" if i == 0 else "right")
        for row in rows:
            table.add_row(*map(Text, row))
        parts += [Text(title, style="bold"), table, Text()]
    return Group(*parts)
