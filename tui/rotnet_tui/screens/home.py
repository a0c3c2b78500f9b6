"""The first screen: runs, recipes and the queue."""

from pathlib import Path
from typing import Any

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, VerticalScroll
from textual.markup import escape
from textual.widgets import DataTable, Footer, Input, Static, TabbedContent, TabPane

from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.queue import queued_runs, worker
from rotnet_tui.screens.base import ControlScreen
from rotnet_tui.state import recipes
from rotnet_tui.state.words import LIVE, age, duration, epochs, percent, plain
from rotnet_tui.widgets.run_preview import run_preview
from rotnet_tui.widgets.run_table import RunTable, highlighted


class Home(ControlScreen):
    """Runs, recipes, queue; what is highlighted is told of on the right."""

    BINDINGS = [
        Binding("enter", "open", "Open", id="open", priority=False),
        Binding("space", "mark", "Mark", id="mark"),
        Binding("c", "compare", "Compare", id="compare"),
        Binding("slash", "filter", "Filter", id="filter", key_display="/"),
        Binding("escape", "clear", "Clear filter", show=False),
        Binding("p", "pin", "Pin", id="pin", show=False),
        Binding("e", "edit", "Edit recipe", id="edit", show=False),
        Binding("g", "work", "Start the queue's worker", id="work", show=False),
        Binding("j", "down", "Down", show=False),
        Binding("k", "up", "Up", show=False),
        Binding("1", "tab('runs')", "Runs", show=False),
        Binding("2", "tab('recipes')", "Recipes", show=False),
        Binding("3", "tab('queue')", "Queue", show=False),
    ]
    HELP = """\
**Runs** of this folder, the newest first; pinned ones before them. `enter` watches the highlighted one, `n` starts
one, `space` marks some, `c` compares the marked. Keys act on the marked runs, or else on the highlighted one.

Quitting never stops a run. To select text with the mouse, hold shift while dragging.
"""

    def __init__(self) -> None:
        super().__init__()
        self._marked: set[str] = set()
        self._recipes: list[recipes.RecipeEntry] = []

    def compose(self) -> ComposeResult:
        """Tables on the left, the preview on the right, the filter below."""
        with Horizontal(id="home"):
            with TabbedContent(id="home-tabs", initial=self.app.settings.home_tab):
                with TabPane("Runs", id="runs"):
                    yield RunTable(id="run-table")
                    yield Static(id="runs-empty")
                with TabPane("Recipes", id="recipes"):
                    yield DataTable(id="recipe-table", cursor_type="row")
                with TabPane("Queue", id="queue"):
                    yield Static(id="queue-head")
                    yield DataTable(id="queue-table", cursor_type="row")
            with VerticalScroll(id="preview", can_focus=False):
                yield Static(id="preview-text", markup=False)
        yield Input(placeholder="filter by name, recipe or state; esc clears", id="filter", compact=True)
        yield Static(id="tiny")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Set the tables up."""
        self.query_one("#filter").display = False
        self.query_one("#preview").border_title = "preview"
        self.query_one("#recipe-table", DataTable).add_columns("recipe", "kind", "time", "what it is")
        self.query_one("#queue-table", DataTable).add_columns("place", "run", "recipe", "waiting for")
        self._fill_recipes()
        self.app.theme_changed_signal.subscribe(self, lambda theme: self._begin_again())
        self.query_one(f"#{self.app.settings.home_tab}", TabPane).query_one(DataTable).focus()

    # What is shown

    async def tick(self) -> None:
        """Read what is new, show the tab in front."""
        await self.app.index.refresh()
        self._fill_runs()
        if self._tab == "queue":
            self._fill_queue()
        self._preview()
        self._tiny()

    @property
    def _tab(self) -> str:
        # None is active while the screen comes up or goes.
        return self.query_one("#home-tabs", TabbedContent).active or self.app.settings.home_tab

    @property
    def _table(self) -> DataTable:
        return self.query_one(f"#{self._tab}", TabPane).query_one(DataTable)

    def _shown_runs(self) -> list[dict[str, Any]]:
        words = self.query_one("#filter", Input).value.lower().split()
        found = self.app.index.newest_first()
        fitting = [f for f in found if all(w in f"{f['name']} {f['recipe']} {f['state']}".lower() for w in words)]
        return sorted(fitting, key=lambda f: f["name"] not in self.app.settings.pinned)

    def _fill_runs(self) -> None:
        table = self.query_one("#run-table", RunTable)
        shown = self._shown_runs() if self.app.index.ready else []
        table.fill(shown, self._marked, self.app.settings.pinned)
        table.display = bool(shown)
        empty = self.query_one("#runs-empty", Static)
        empty.display = not shown
        wanted = self.query_one("#filter", Input).value
        if wanted:
            empty.update(f"No run matches {escape(repr(wanted))}. esc clears the filter.")
        elif self.app.index.ready:
            empty.update(
                f"Nothing in {escape(str(self.app.index.runs_dir))} yet.\n\n[b]n[/] starts a run: quickstart takes a "
                "few minutes on a CPU and needs no download."
            )
        else:
            empty.update("Reading the runs …")

    def _begin_again(self) -> None:
        """Draw everything anew, in the colours of now."""
        self.query_one("#run-table", RunTable).forget()
        self._fill_runs()
        self._preview()

    def on_resize(self) -> None:
        """The number of columns depends on the width."""
        self._fill_runs()

    def _fill_recipes(self) -> None:
        self._recipes = recipes.list_recipes()
        table = self.query_one("#recipe-table", DataTable)
        table.clear()
        for entry in self._recipes:
            cells = map(plain, (entry.name, entry.kind, entry.time, entry.title))
            table.add_row(*cells, key=entry.argument)

    def _fill_queue(self) -> None:
        table = self.query_one("#queue-table", DataTable)
        waiting = queued_runs(self.app.index.runs_dir)
        busy = worker(self.app.index.runs_dir)
        names = [run.name for run in waiting]
        at = min(table.cursor_row, max(0, len(names) - 1))
        table.clear()
        for place, run in enumerate(waiting, 1):
            recipe = str(run.facts().get("recipe") or "")
            table.add_row(str(place), plain(run.name), plain(recipe), age(run.queued()), key=run.name)
        table.move_cursor(row=at, animate=False)
        if not waiting:
            words = "Nothing waits. The form (n) can queue a run: queued ones train one after the other."
        elif busy:
            words = (
                f"{len(waiting)} waiting. The worker, process {busy}, starts the next as soon as the device is free."
            )
        else:
            words = (
                f"{len(waiting)} waiting, but no worker is there: [b]g[/] starts it (rotnet-keras queue work --detach)."
            )
        self.query_one("#queue-head", Static).update(words)

    def _preview(self) -> None:
        text = self.query_one("#preview-text", Static)
        self.query_one("#preview").set_class(self._tab == "recipes", "-long")
        colors = self.app.theme_variables
        if self._tab == "recipes":
            entry = self._recipe()
            text.update(recipes.description(entry, colors) if entry else "")
            return
        found = self.app.index.summaries.get(highlighted(self._table) or "")
        text.update(run_preview(found, colors) if found else "")

    def _tiny(self) -> None:
        going = [f for f in self.app.index.newest_first() if f["state"] in LIVE] or self.app.index.newest_first()
        lines = [
            f"{f['state']} {f['name']} {epochs(f)} {percent(f['rotation_accuracy'])} {duration(f['seconds_left'])}"
            for f in going[:4]
        ]
        self.query_one("#tiny", Static).update(Text("\n".join(lines or ["no runs yet"])))

    # What is highlighted

    def _recipe(self) -> recipes.RecipeEntry | None:
        wanted = highlighted(self.query_one("#recipe-table", DataTable))
        return next((entry for entry in self._recipes if entry.argument == wanted), None)

    def targets(self) -> list[RunFolder]:
        """The marked runs, or the highlighted one."""
        if self._tab == "recipes":
            return []
        chosen = highlighted(self._table)
        names = sorted(self._marked) if self._marked and self._tab == "runs" else [chosen] if chosen else []
        return [RunFolder(self.app.index.runs_dir / name) for name in names]

    @on(DataTable.RowHighlighted)
    def _moved(self) -> None:
        self._preview()

    @on(DataTable.RowSelected)
    def _selected(self) -> None:
        self.action_open()

    @on(TabbedContent.TabActivated)
    def _changed_tab(self) -> None:
        self.app.settings.home_tab = self._tab
        if self._tab == "recipes":
            self._fill_recipes()
        self._table.focus()
        self.app.tick()

    # What the keys do

    def action_open(self) -> None:
        """Watch the highlighted run, or fill the form from the highlighted recipe."""
        if self._tab == "recipes":
            entry = self._recipe()
            if entry:
                self.app.new_run(entry.argument)
            return
        chosen = highlighted(self._table)
        if chosen:
            self.app.open_run(RunFolder(self.app.index.runs_dir / chosen))

    def action_new_run(self) -> None:
        """Open the form, on the highlighted recipe if recipes are in front."""
        entry = self._recipe() if self._tab == "recipes" else None
        self.app.new_run(entry.argument if entry else None)

    def action_mark(self) -> None:
        """Mark the highlighted run, or take its mark away."""
        chosen = highlighted(self._table)
        if self._tab == "runs" and chosen:
            self._marked ^= {chosen}
            self._fill_runs()
            self._table.action_cursor_down()

    def action_pin(self) -> None:
        """Keep the highlighted run on top, or let it go."""
        chosen = highlighted(self._table)
        if self._tab == "runs" and chosen:
            settings = self.app.settings
            others = [name for name in settings.pinned if name != chosen]
            settings.pinned = others if chosen in settings.pinned else [*others, chosen]
            self._fill_runs()

    def action_compare(self) -> None:
        """Set the marked runs side by side."""
        if len(self._marked) < 2:
            self.notify("Mark two runs or more with space, then press c.", severity="warning")
            return
        self.app.compare([RunFolder(self.app.index.runs_dir / name) for name in sorted(self._marked)])

    def action_filter(self) -> None:
        """Open the filter."""
        self.query_one("#home-tabs", TabbedContent).active = "runs"
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()

    def action_clear(self) -> None:
        """Close the filter; take the marks away where there is none."""
        field = self.query_one("#filter", Input)
        if field.display:
            field.value = ""
            field.display = False
        else:
            self._marked.clear()
        self._fill_runs()
        self._table.focus()

    @on(Input.Changed, "#filter")
    def _filtered(self) -> None:
        self._fill_runs()

    @on(Input.Submitted, "#filter")
    def _filter_done(self) -> None:
        self._table.focus()

    def action_tab(self, name: str) -> None:
        """Bring a tab to the front."""
        self.query_one("#home-tabs", TabbedContent).active = name

    def action_down(self) -> None:
        """One row down."""
        self._table.action_cursor_down()

    def action_up(self) -> None:
        """One row up."""
        self._table.action_cursor_up()

    @work
    async def action_work(self) -> None:
        """Start the queue's worker."""
        await self.app.perform("queue", "work", "--detach")
        self.app.tick()

    def action_edit(self) -> None:
        """Open the highlighted recipe in the user's editor; a shipped one is copied here first."""
        entry = self._recipe() if self._tab == "recipes" else None
        if entry is None:
            self.notify("Go to a recipe first: 2 shows them.", severity="warning")
            return
        try:
            path = recipes.editable(entry, Path.cwd())
        except OSError as error:
            self.notify(f"The recipe cannot be copied here: {error}", severity="error", markup=False)
            return
        self.app.edit(path)
        self._fill_recipes()
        self._preview()

    def gone(self, run: RunFolder) -> None:
        """Take a deleted run's mark away."""
        self._marked.discard(run.name)
