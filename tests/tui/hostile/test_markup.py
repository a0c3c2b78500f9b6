"""What others named and wrote is shown as it is: none of it is read as markup, and none of it ends the UI."""

import ast
from pathlib import Path

import pytest
import rotnet_tui
from rotnet_tui.app import RotnetApp
from rotnet_tui.messages import OpenRun
from rotnet_tui.screens.run import TABS
from support.nonsense import make_nonsense
from support.screen_words import text_of, until
from textual.widgets import DataTable

from rotnet_keras.runs.folder import RunFolder

SOURCES = sorted(Path(rotnet_tui.__file__).parent.rglob("*.py"))
# Calls whose first text Textual or Rich reads as markup, unless they are told not to.
READ_AS_MARKUP = ("update", "notify", "Static", "Label", "add_row", "add_column", "add_columns", "write")


def _has_data(node):
    """Whether a text is put together while the program runs."""
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("format", "join")
    )


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_no_text_with_data_in_it_is_given_as_markup(source):
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        plain = any(word.arg == "markup" and getattr(word.value, "value", None) is False for word in node.keywords)
        if name in READ_AS_MARKUP and not plain:
            assert not [text for text in node.args if _has_data(text)], f"{source.name}:{node.lineno}"


async def test_a_word_of_markup_is_looked_for_as_it_was_typed(runs_dir):
    make_nonsense(runs_dir, ["[b]bold["])
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(120, 36)) as pilot:
        table = app.screen.query_one("#run-table", DataTable)
        await until(pilot, lambda: table.row_count == 2)
        await pilot.press("slash", "left_square_bracket", "slash")
        await until(pilot, lambda: "No run matches '[/'" in text_of(app, "#runs-empty"))
        await pilot.press("backspace", "b")
        await until(pilot, lambda: table.row_count == 1)
        assert str(table.get_row_at(0)[2]) == "[b]bold["


async def test_runs_that_make_no_sense_are_shown_in_all_tabs(runs_dir):
    make_nonsense(runs_dir, ["[b]bold[", "wrong_task", "pipe_events.jsonl", "device_log.txt", "dotted_key"])
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: len(app.index.summaries) == 6)
        app.post_message(OpenRun(RunFolder(runs_dir / "[b]bold[")))
        await until(pilot, lambda: app.screen.query("#strip") and "? unknown   [b]bold[" in text_of(app, "#strip"))
        for tab in TABS:
            app.screen.action_tab(tab)
            # An error of markup would come when the tab is rendered.
            await until(pilot, lambda tab=tab: app.screen.query_one(f"#{tab}").size.width > 0)
            if tab == "log":
                lines = app.screen.query_one("#log-lines").lines
                await until(pilot, lambda lines=lines: any("[/] Error: [red]" in line.text for line in lines))
        assert app.is_running
