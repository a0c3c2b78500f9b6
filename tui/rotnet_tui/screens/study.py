"""The screen of a study: its tables, filling in as runs finish, what is running where, and the time that is left."""

import asyncio

from rich.console import Group
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import DataTable, Footer, Static

from rotnet_keras.reports.tables import result_tables
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.text import duration, percent
from rotnet_tui.commands import Commands
from rotnet_tui.messages import OpenRun
from rotnet_tui.screens.base import ActionScreen, mistake
from rotnet_tui.settings import Settings
from rotnet_tui.state.index import printable_summary
from rotnet_tui.state.study import StudyProgress, StudyRun, seconds_left, under_way
from rotnet_tui.state.words import epoch_progress, progress_bar, screen_text, state_text
from rotnet_tui.widgets.result_tables import rich_tables
from rotnet_tui.widgets.run_table import highlighted

COLUMNS = ("run", "seed", "state", "epoch", "rotation %", "time")


class StudyScreen(ActionScreen):
    """How far the study has come on top, then its runs and its tables."""

    BINDINGS = [
        Binding("escape", "dismiss", "Back", id="back"),
        Binding("enter", "open", "Open run", id="open"),
        Binding("o", "own", "Log and recipe", id="own"),
        Binding("j", "down", "Down", show=False),
        Binding("k", "up", "Up", show=False),
    ]
    HELP = """\
The tables of a **study** fill in as its runs finish; the paper's numbers are in brackets. Below them are its runs:
`enter` opens the highlighted one, `o` the log and the recipe of the study itself. `s` stops the study and the run that
it is making, `r` resumes both.
"""

    def __init__(self, run: RunFolder, settings: Settings, commands: Commands) -> None:
        super().__init__(settings, commands)
        self.run = run
        self._progress = StudyProgress(run)
        self._runs: list[StudyRun] = []
        self._reading = False

    def compose(self) -> ComposeResult:
        """The status, the runs, and the tables."""
        yield Static("Reading the study …", id="strip", markup=False)
        with Horizontal(id="study"):
            yield DataTable(id="study-runs", cursor_type="row")
            with VerticalScroll(id="study-results", can_focus=True):
                yield Static(id="study-tables", markup=False)
        yield Static(id="tiny")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Set up the table."""
        self.query_one("#strip").border_title = "study"
        table = self.query_one("#study-runs", DataTable)
        table.add_columns(*COLUMNS)
        table.focus()
        self.app.theme_changed_signal.subscribe(self, lambda theme: self._fill())

    def targets(self) -> list[RunFolder]:
        """The study."""
        return [self.run]

    async def tick(self) -> None:
        """Read the study and its runs in a thread, then show them."""
        if self._reading:
            return
        self._reading = True
        try:
            self._runs = await asyncio.to_thread(self._progress.read)
            tables = await asyncio.to_thread(result_tables, self.run)
            summary = await asyncio.to_thread(printable_summary, self.run)
        except Exception as error:  # Events were checked when they were read.
            self.notify(mistake("This study cannot be shown", error), severity="error", markup=False)
            return
        finally:
            self._reading = False
        if self not in self.app.screen_stack:
            return
        self._fill()
        colors = self.app.theme_variables
        self.query_one("#study-tables", Static).update(rich_tables(tables) if tables else Group())
        for name in ("#strip", "#tiny"):
            self.query_one(name, Static).update(_status(summary, self._runs, colors))

    def _fill(self) -> None:
        table = self.query_one("#study-runs", DataTable)
        colors, row = self.app.theme_variables, table.cursor_row
        table.clear()
        for number, run in enumerate(self._runs):
            found = run.summary
            state = Text("· planned", style="dim") if run.state == "planned" else state_text(run.state, colors)
            cells = [
                epoch_progress(found) if found else "",
                percent(found["rotation_accuracy"], sign="") if found else "",
                _time(run),
            ]
            right = [Text(cell, justify="right") for cell in cells]
            table.add_row(
                Text(screen_text(run.name)), Text(str(run.seed), justify="right"), state, *right, key=str(number)
            )
        table.move_cursor(row=row, animate=False)

    # What the keys do

    @on(DataTable.RowSelected)
    def _row_selected(self) -> None:
        self.action_open()

    def action_open(self) -> None:
        """Open the highlighted run."""
        key = highlighted(self.query_one("#study-runs", DataTable))
        folder = self._runs[int(key)].folder if key is not None else None
        if folder is None:
            self.notify("This run has not begun.", severity="warning")
            return
        self.app.post_message(OpenRun(folder))

    def action_own(self) -> None:
        """Open the tabs of the study itself."""
        self.app.post_message(OpenRun(self.run, tabs=True))

    def action_down(self) -> None:
        """Move one row down."""
        self.query_one("#study-runs", DataTable).action_cursor_down()

    def action_up(self) -> None:
        """Move one row up."""
        self.query_one("#study-runs", DataTable).action_cursor_up()

    def run_deleted(self, run: RunFolder) -> None:
        """Close the screen: there is nothing left to show."""
        self.dismiss()


def _time(run: StudyRun) -> str:
    """How long a finished run took, or how long another one takes yet."""
    if run.seconds is not None:
        return duration(run.seconds)
    left = run.summary["seconds_left"] if run.summary else None
    return "" if left is None else f"{duration(left)} left"


def _status(summary: dict, runs: list[StudyRun], colors: dict[str, str]) -> Text:
    """State and progress of a study; what is running where; its message."""
    done = sum(run.seconds is not None for run in runs)
    text = Text.assemble(
        *(state_text(summary["state"], colors), "   ", (summary["name"], "bold"), "   "),
        *(progress_bar(done / max(1, len(runs)), 10, colors), f" {done} of {len(runs)} runs finished"),
    )
    left = seconds_left(runs)
    if left and summary["state"] != "finished":
        text.append(f"   about {duration(left)} left")
    for run in under_way(runs):
        where = run.folder.host() if run.folder else ""
        rate = run.summary and run.summary["images_per_s"]
        words = [f"{run.state}: {run.name}, seed {run.seed}", f"on {where}", f"{rate:.0f} images/s" if rate else ""]
        text.append("\n" + screen_text("   ".join(word for word in words if word)))
    if summary["message"]:
        text.append(f"\n{summary['message']}")
    return text
