"""The first screen: runs, recipes and the queue."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.css.query import NoMatches
from textual.widgets import DataTable, Footer, Input, Static, TabbedContent, TabPane

from rotnet_keras.errors import RecipeError
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.queries import parse_query
from rotnet_tui.commands import Commands
from rotnet_tui.messages import CompareRuns, EditFile, NewRun, OpenRun
from rotnet_tui.screens.base import ActionScreen
from rotnet_tui.settings import Settings
from rotnet_tui.state import recipes
from rotnet_tui.state.index import RunIndex
from rotnet_tui.state.reading import Reading
from rotnet_tui.state.words import LIVE, age, plain_text
from rotnet_tui.widgets.run_preview import run_lines, run_preview
from rotnet_tui.widgets.run_table import QuerySuggester, RunTable, highlighted

# How long each look at the run folders is waited for; it goes on meanwhile.
REFRESH_SECONDS = 0.5
# Rows of the table of runs.
MAX_ROWS = 300
FILTER_HINT = "words, state:running, tag:paper, rot>90, -recipe:cifar*; → completes, esc clears"


class HomeScreen(ActionScreen):
    """Tabs with the runs, the recipes and the queue, beside a preview of the highlighted row."""

    BINDINGS = [
        Binding("enter", "open", "Open", id="open", priority=False),
        Binding("space", "mark", "Mark", id="mark"),
        Binding("c", "compare", "Compare", id="compare"),
        Binding("slash", "filter", "Filter", id="filter", key_display="/"),
        Binding("escape", "clear", "Clear filter", show=False),
        Binding("p", "pin", "Pin", id="pin", show=False),
        Binding("e", "edit", "Edit recipe", id="edit", show=False),
        Binding("g", "start_worker", "Start the queue worker", id="work", show=False),
        Binding("j", "down", "Down", show=False),
        Binding("k", "up", "Up", show=False),
        Binding("1", "tab('runs')", "Runs", show=False),
        Binding("2", "tab('recipes')", "Recipes", show=False),
        Binding("3", "tab('queue')", "Queue", show=False),
    ]
    HELP = """\
**Runs** lists the newest run first, below the pinned ones. `enter` opens the highlighted run, `n` starts a new one,
`space` marks runs, `c` compares the marked ones. Keys act on the marked runs, or on the highlighted one if none is
marked. `T` changes their tags, `N` their note.

`/` filters: words, and `state:running`, `recipe:cifar*`, `tag:paper`, `rot>90`, `loss<0.5`, `age<2d`; a minus sign
excludes: `-state:failed`. `→` completes a field.

Quitting never stops a run. To select text with the mouse, hold shift while dragging.
"""

    def __init__(self, settings: Settings, commands: Commands, index: RunIndex) -> None:
        super().__init__(settings, commands)
        self.index = index
        self._marked: set[str] = set()
        self._recipes: list[recipes.RecipeEntry] = []
        self._details = recipes.RecipeDetails()
        self._reading = Reading(self._details.fetch, self._show_details)
        self._query = parse_query("")
        self._matching: list[dict[str, Any]] = []
        self._matching_of: tuple = ()

    def compose(self) -> ComposeResult:
        """Tables, the preview, and the filter below."""
        with Horizontal(id="home"):
            with TabbedContent(id="home-tabs", initial=self.settings.home_tab):
                with TabPane("Runs", id="runs"):
                    yield RunTable(id="run-table")
                    yield Static(id="runs-more", markup=False)
                    yield Static(id="runs-empty")
                with TabPane("Recipes", id="recipes"):
                    yield DataTable(id="recipe-table", cursor_type="row")
                with TabPane("Queue", id="queue"):
                    yield Static(id="queue-head")
                    yield DataTable(id="queue-table", cursor_type="row")
            with VerticalScroll(id="preview", can_focus=False):
                yield Static(id="preview-text", markup=False)
        yield Static(id="filter-problem", classes="error", markup=False)
        suggester = QuerySuggester(self.index)
        yield Input(placeholder=FILTER_HINT, id="filter", compact=True, suggester=suggester, select_on_focus=False)
        yield Static(id="tiny")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Set up the tables."""
        self.query_one("#filter").display = self.query_one("#filter-problem").display = False
        self.query_one("#preview").border_title = "preview"
        self.query_one("#recipe-table", DataTable).add_columns("recipe", "kind", "time", "title")
        self.query_one("#queue-table", DataTable).add_columns("position", "run", "recipe", "queued for")
        self._read_recipes()
        self.app.theme_changed_signal.subscribe(self, lambda theme: self._redraw())
        self.query_one(f"#{self.settings.home_tab}", TabPane).query_one(DataTable).focus()

    # What is shown

    async def tick(self) -> None:
        """Read what is new and show the current tab."""
        # A slow disk may take minutes, in which what is known is shown.
        with suppress(TimeoutError):
            await asyncio.wait_for(self.index.refresh(progress=self._fill_runs), REFRESH_SECONDS)
        self._fill_runs()
        if self._tab == "queue":
            self._fill_queue(*await asyncio.to_thread(self.index.waiting))
        self._row_highlighted()
        self._fill_tiny()

    @property
    def _tab(self) -> str:
        # No tab is active while the screen is being built or removed.
        return self.query_one("#home-tabs", TabbedContent).active or self.settings.home_tab

    @property
    def _table(self) -> DataTable:
        return self.query_one(f"#{self._tab}", TabPane).query_one(DataTable)

    def _filtered_runs(self) -> list[dict[str, Any]]:
        """The runs that the filter chooses, by those of its terms that are understood."""
        typed = self.query_one("#filter", Input).value
        problem = ""
        try:
            self._query = parse_query(typed)
        except RecipeError as error:
            problem, self._query = str(error), parse_query(typed, strict=False)
        target = self.query_one("#filter-problem", Static)
        target.update(problem)
        target.display = bool(problem)
        # Of thousands of runs this takes a while, and mostly nothing has changed. Ages are compared once a minute.
        key = (self.index.version, typed, tuple(self.settings.pinned), time.monotonic() // 60)
        if key != self._matching_of:
            matching = [run for run in self.index.newest_first() if self._query.matches(run)]
            self._matching = sorted(matching, key=lambda run: run["name"] not in self.settings.pinned)
            self._matching_of = key
        return self._matching

    def _fill_runs(self) -> None:
        table = self.query_one("#run-table", RunTable)
        runs = self._filtered_runs()
        table.fill(runs[:MAX_ROWS], self._marked, self.settings.pinned)
        more = self.query_one("#runs-more", Static)
        words = []
        if runs and not self.index.ready:
            words.append(f"{len(self.index.summaries)} of {self.index.count} run folders read")
        if len(runs) > MAX_ROWS:
            words.append(f"the newest {MAX_ROWS} of {len(runs)} runs; / filters")
        more.update(Text("   ".join(words)))
        more.display = bool(words)
        table.display = bool(runs)
        empty = self.query_one("#runs-empty", Static)
        empty.display = not runs
        if self._query.text and self.index.ready:
            empty.update(Content(f"No run matches {self._query.text!r}. Press esc to clear the filter."))
        elif self.index.ready:
            hint = (
                " yet.\n\nPress [b]n[/] to start one. The recipe quickstart takes a few minutes on a CPU and needs no "
                "download."
            )
            empty.update(Content(f"No runs in {self.index.runs_dir}") + Content.from_markup(hint))
        else:
            empty.update("Reading the run folders …")

    def _redraw(self) -> None:
        """Draw everything again, in the colours of the new theme."""
        self.query_one("#run-table", RunTable).invalidate()
        self._fill_runs()
        self._row_highlighted()

    def on_resize(self) -> None:
        """The number of columns depends on the width."""
        self._fill_runs()

    @work(group="recipes")
    async def _read_recipes(self) -> None:
        """Read the list of recipes in a thread, and show it if it has changed."""
        found = await asyncio.to_thread(recipes.list_recipes)
        if found == self._recipes:
            return
        self._recipes = found
        with suppress(NoMatches):  # The screen may be closed while files are being read.
            self._fill_recipes()

    def _fill_recipes(self) -> None:
        table = self.query_one("#recipe-table", DataTable)
        row = table.cursor_row
        table.clear()
        for entry in self._recipes:
            cells = map(plain_text, (entry.name, entry.kind, entry.time, entry.title))
            table.add_row(*cells, key=entry.argument)
        table.move_cursor(row=row, animate=False)

    @work(group="recipes")
    async def _read_details(self) -> None:
        """Show the highlighted recipe, read in a thread."""
        if entry := self._highlighted_recipe():
            self._details.choose(entry, self.app.theme_variables)
            await self._reading.show()

    def _show_details(self) -> None:
        with suppress(NoMatches):  # The screen may be closed while files are being read.
            self._fill_preview()

    def _fill_queue(self, waiting: list[tuple[float, str, str]], pid: int | None) -> None:
        table = self.query_one("#queue-table", DataTable)
        row = min(table.cursor_row, max(0, len(waiting) - 1))
        table.clear()
        for position, (since, name, recipe) in enumerate(waiting, 1):
            table.add_row(str(position), plain_text(name), plain_text(recipe), age(since), key=name)
        table.move_cursor(row=row, animate=False)
        count = f"{len(waiting)} waiting"
        if not waiting:
            text = "The queue is empty. To queue a run, press [b]n[/], then f3 in the form. Runs train one by one."
        elif pid:
            text = f"{count}. The queue worker (process {pid}) starts the next run when the device is free."
        else:
            text = f"{count}. No queue worker is running. Press [b]g[/] to start it (rotnet-keras queue work --detach)."
        self.query_one("#queue-head", Static).update(text)

    def _fill_preview(self) -> None:
        text = self.query_one("#preview-text", Static)
        self.query_one("#preview").set_class(self._tab == "recipes", "-long")
        colors = self.app.theme_variables
        if self._tab == "recipes":
            entry = self._highlighted_recipe()
            text.update((self._details.of(entry, colors) or "Reading the recipe …") if entry else "")
            return
        summary = self.index.summaries.get(highlighted(self._table) or "")
        text.update(run_preview(summary, colors) if summary else "")

    def _fill_tiny(self) -> None:
        runs = self.index.newest_first()
        self.query_one("#tiny", Static).update(run_lines([run for run in runs if run["state"] in LIVE] or runs))

    def refresh_soon(self) -> None:
        """Look through the whole folder: something was done to a run."""
        self.index.expire()
        super().refresh_soon()

    # What is highlighted

    def _highlighted_recipe(self) -> recipes.RecipeEntry | None:
        argument = highlighted(self.query_one("#recipe-table", DataTable))
        return next((entry for entry in self._recipes if entry.argument == argument), None)

    def targets(self) -> list[RunFolder]:
        """The marked runs, or the highlighted one."""
        if self._tab == "recipes":
            return []
        name = highlighted(self._table)
        names = sorted(self._marked) if self._marked and self._tab == "runs" else [name] if name else []
        return [RunFolder(self.index.runs_dir / name) for name in names]

    @on(DataTable.RowHighlighted)
    def _row_highlighted(self) -> None:
        if self._tab == "recipes":
            self._read_details()
        else:
            self._fill_preview()

    @on(DataTable.RowSelected)
    def _row_selected(self) -> None:
        self.action_open()

    @on(TabbedContent.TabActivated)
    def _tab_activated(self) -> None:
        self.settings.home_tab = self._tab
        if self._tab == "recipes":
            self._read_recipes()
        self._table.focus()
        self.refresh_soon()

    # What the keys do

    def action_open(self) -> None:
        """Open the highlighted run, or the form for the highlighted recipe."""
        if self._tab == "recipes":
            entry = self._highlighted_recipe()
            if entry:
                self.app.post_message(NewRun(entry.argument))
            return
        name = highlighted(self._table)
        if name:
            self.app.post_message(OpenRun(RunFolder(self.index.runs_dir / name)))

    def action_new_run(self) -> None:
        """Open the form, for the highlighted recipe if the recipes are shown."""
        entry = self._highlighted_recipe() if self._tab == "recipes" else None
        self.app.post_message(NewRun(entry.argument if entry else None))

    def action_mark(self) -> None:
        """Mark or unmark the highlighted run."""
        name = highlighted(self._table)
        if self._tab == "runs" and name:
            self._marked ^= {name}
            self._fill_runs()
            self._table.action_cursor_down()

    def action_pin(self) -> None:
        """Pin the highlighted run to the top, or unpin it."""
        name = highlighted(self._table)
        if self._tab == "runs" and name:
            pinned = self.settings.pinned
            others = [other for other in pinned if other != name]
            self.settings.pinned = others if name in pinned else [*others, name]
            self._fill_runs()

    def action_compare(self) -> None:
        """Compare the marked runs."""
        if len(self._marked) < 2:
            self.notify("Mark two or more runs with space, then press c.", severity="warning")
            return
        self.app.post_message(CompareRuns([RunFolder(self.index.runs_dir / name) for name in sorted(self._marked)]))

    def action_filter(self) -> None:
        """Open the filter."""
        self.query_one("#home-tabs", TabbedContent).active = "runs"
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()

    def action_clear(self) -> None:
        """Close the filter, or clear the marks if it is closed."""
        field = self.query_one("#filter", Input)
        if field.display:
            field.value = ""
            field.display = False
        else:
            self._marked.clear()
        self._fill_runs()
        self._table.focus()

    @on(Input.Changed, "#filter")
    def _filter_changed(self) -> None:
        self._fill_runs()

    @on(Input.Submitted, "#filter")
    def _filter_submitted(self) -> None:
        self._table.focus()

    def action_tab(self, name: str) -> None:
        """Switch to a tab."""
        self.query_one("#home-tabs", TabbedContent).active = name

    def action_down(self) -> None:
        """Move one row down."""
        self._table.action_cursor_down()

    def action_up(self) -> None:
        """Move one row up."""
        self._table.action_cursor_up()

    @work
    async def action_start_worker(self) -> None:
        """Start the queue worker."""
        await self.perform("queue", "work", "--detach")
        self.refresh_soon()

    @work
    async def action_edit(self) -> None:
        """Open the highlighted recipe in the user's editor. A shipped recipe is copied here first."""
        entry = self._highlighted_recipe() if self._tab == "recipes" else None
        if entry is None:
            self.notify("Select a recipe first. Press 2 for the list of recipes.", severity="warning")
            return
        try:
            path = await asyncio.to_thread(recipes.editable_copy, entry, Path.cwd())
        except OSError as error:
            self.notify(f"The recipe cannot be copied to this folder: {error}", severity="error", markup=False)
            return
        message = EditFile(path)
        self.app.post_message(message)
        await message.closed
        self._read_recipes()
        self._read_details()

    def run_deleted(self, run: RunFolder) -> None:
        """Unmark a deleted run."""
        self._marked.discard(run.name)
