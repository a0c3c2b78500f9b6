"""One run, live: its status above, and tabs that tell it from seven sides."""

import asyncio
import os
import time

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.widgets import Footer, Static, TabbedContent, TabPane

from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.suitability import findings, suitability_of, summary
from rotnet_keras.runs.verdict import verdict
from rotnet_tui.screens.base import ControlScreen
from rotnet_tui.state.history import History
from rotnet_tui.state.index import shown_summary
from rotnet_tui.state.words import strip
from rotnet_tui.tabs.base import Pane
from rotnet_tui.tabs.confusion import Confusion
from rotnet_tui.tabs.curves import Curves
from rotnet_tui.tabs.features import Features
from rotnet_tui.tabs.log import LogView
from rotnet_tui.tabs.recipe import RecipeView
from rotnet_tui.tabs.samples import Samples
from rotnet_tui.tabs.system import System
from rotnet_tui.widgets.chart import SMOOTHING

TABS = {
    "curves": ("Curves", Curves),
    "samples": ("Samples", Samples),
    "confusion": ("Confusion", Confusion),
    "features": ("Features", Features),
    "system": ("System", System),
    "log": ("Log", LogView),
    "recipe": ("Recipe", RecipeView),
}
# Of all cores, in the long run: what drawing may take from a training beside it.
CPU_SHARE = 0.005
SLOWEST_SECONDS = 10.0
# How often to look whether a run that says nothing new still lives.
LOOK_SECONDS = 3.0
CATCH_UP_SECONDS = 0.5
CORES = os.cpu_count() or 1
X_AXES = ("epoch", "step", "time")
# Tabs that change without events of the run.
RESTLESS = ("system", "log")


class RunScreen(ControlScreen):
    """Status strip and tabs of one run."""

    BINDINGS = [
        Binding("escape", "back", "Back", id="back"),
        *(Binding(str(n), f"tab('{name}')", title, show=False) for n, (name, (title, _)) in enumerate(TABS.items(), 1)),
        Binding("x", "x_axis", "Step, epoch, time", id="x_axis", show=False),
        Binding("y", "log_axis", "Log axis", id="log_axis", show=False),
        Binding("m", "smoothing", "Smoothing", id="smoothing", show=False),
        Binding("z", "zoom", "Maximise", id="zoom"),
        Binding("left_square_bracket", "chart(-1)", "Chart before", show=False),
        Binding("right_square_bracket", "chart(1)", "Next chart", show=False),
        Binding("left", "scrub(-1)", "Epoch before", show=False),
        Binding("right", "scrub(1)", "Next epoch", show=False),
        Binding("o", "worst", "Hardest samples", id="worst", show=False),
        Binding("percent_sign", "percent", "Share or count", id="percent", show=False),
        Binding("f", "follow", "Follow the log", id="follow", show=False),
        Binding("l", "level", "Log level", id="level", show=False),
        Binding("u", "fold", "Fold tracebacks", id="fold", show=False),
        Binding("slash", "search", "Search the log", id="search", show=False),
    ]
    HELP = """\
`1` to `7` change the tab. **Curves**: `x` `y` `m` axis and smoothing, `z` maximises, `[` `]` next chart, `+` `-` `0`
zoom. **Samples**: arrows go through the epochs, `o` shows the hardest. **Confusion**: `%` share or count. **Log**:
`f` follow, `/` search, `l` level, `u` tracebacks. `.` holds the screen; the training goes on. Select text with shift
and the mouse.
"""

    def __init__(self, run: RunFolder) -> None:
        super().__init__()
        self.run = run
        self.history = History(run)
        self._state = ""
        self._stale: set[str] = set(TABS)
        self._drawn_at = self._spent_at = self._looked_at = 0.0
        self._told = Text()
        self._catching_up = False

    def compose(self) -> ComposeResult:
        """The strip, the tabs, the keys."""
        yield Static(id="strip")
        tab = self.app.settings.tab
        with TabbedContent(id="run-tabs", initial=f"tab-{tab if tab in TABS else 'curves'}"):
            for name, (title, pane) in TABS.items():
                with TabPane(title, id=f"tab-{name}"):
                    yield pane()
        yield Static(id="tiny")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Name the run on top."""
        self.query_one("#strip").border_title = "run"
        self.app.theme_changed_signal.subscribe(self, lambda theme: self.on_resize())

    def targets(self) -> list[RunFolder]:
        """This run."""
        return [self.run]

    # What is shown

    async def tick(self) -> None:
        """Follow the events; draw the tab in front if something is new and drawing has not cost too much lately."""
        if self._catching_up:
            return
        self._catching_up = True
        try:
            news = self.history.poll()
            if news:
                self._stale |= set(TABS)
            caught_up = not self.history.complete
            shown = 0.0
            while not self.history.complete and self.is_current:
                if time.monotonic() - shown > CATCH_UP_SECONDS:
                    self._show_strip()
                    self._draw()
                    shown = time.monotonic()
                # Short slices: a key is answered after a few turns of the event loop.
                await asyncio.sleep(0.001)
                self.history.poll()
                self._stale |= set(TABS)
        finally:
            self._catching_up = False
        if news or time.monotonic() - self._looked_at > LOOK_SECONDS:
            self._show_strip()
        self._draw(at_once=caught_up)

    def _show_strip(self) -> None:
        self._looked_at = time.monotonic()
        run, colors = self.run, self.app.theme_variables
        if not run.path.is_dir():
            lines = Text(f"? gone   {run.name}\n\nThis run's folder is not there any more.")
            self._tell(lines)
            return
        found = shown_summary(run)
        if found["state"] != self._state:
            self._state = found["state"]
            self._stale |= set(TABS)
        sentence = _judgement(self.history)
        if run.newer():
            sentence = ("bad", "This folder was written by a newer version of rotnet-keras: it can only be looked at.")
        elif found["message"]:
            sentence = ("flat" if found["state"] == "stopped" else "bad", found["message"])
        elif self._state in ("starting", "queued") and not self.history.latest:
            sentence = ("unknown", _waiting(found["state"]))
        width = self.query_one("#strip").content_size.width or self.size.width - 4
        self._tell(strip(found, sentence, colors, width))

    def _tell(self, lines: Text) -> None:
        """Show the status. Laying the screen out again costs more than all the rest: only where it may grow."""
        if lines == self._told:
            return
        same_height = _rows(lines, self.size.width) == _rows(self._told, self.size.width)
        self._told = lines
        for name in ("#strip", "#tiny"):
            self.query_one(name, Static).update(lines, layout=not same_height)

    def _draw(self, at_once: bool = False) -> None:
        name = self._tab
        now, spent = time.monotonic(), time.process_time()
        wait = min(SLOWEST_SECONDS, max(1.0, (spent - self._spent_at) / (CPU_SHARE * CORES)))
        if not at_once and now - self._drawn_at < wait and self._drawn_at:
            return
        if not at_once and name not in self._stale and name not in RESTLESS:
            return
        self._drawn_at, self._spent_at = now, spent
        self._stale.discard(name)
        try:
            self._pane(name).show(self.history, self._state)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            # Events of another version, or damaged ones: the tab stays as it was.
            self.notify(f"This tab cannot be drawn: {type(error).__name__}: {error}", severity="warning", markup=False)

    @property
    def _tab(self) -> str:
        # None is active while the screen comes up or goes.
        return self.query_one("#run-tabs", TabbedContent).active.removeprefix("tab-") or "curves"

    def _pane(self, name: str) -> Pane:
        return self.query_one(f"#{name}", Pane)

    @on(TabbedContent.TabActivated, "#run-tabs")
    def _changed_tab(self) -> None:
        self.app.settings.tab = self._tab
        # The pane has its size only after the coming layout.
        self.call_after_refresh(self._draw, at_once=True)

    def on_resize(self) -> None:
        """Pictures and charts depend on the size."""
        self._stale |= set(TABS)
        self._told = Text()
        self.call_after_refresh(self._show_strip)
        self.call_after_refresh(self._draw, at_once=True)

    # What the keys do

    def action_back(self) -> None:
        """Back to the list, after closing what is open."""
        if self.maximized is not None:
            self.minimize()
        elif not (self._tab == "log" and self.query_one(LogView).clear_search()):
            self.dismiss()

    def action_tab(self, name: str) -> None:
        """Bring a tab to the front."""
        self.query_one("#run-tabs", TabbedContent).active = f"tab-{name}"

    def action_x_axis(self) -> None:
        """Next of epoch, step and time."""
        settings = self.app.settings
        settings.x_axis = X_AXES[(X_AXES.index(settings.x_axis) + 1) % len(X_AXES)]  # type: ignore[assignment]
        self._draw(at_once=True)

    def action_log_axis(self) -> None:
        """Logarithmic or linear."""
        self.app.settings.log_axis = not self.app.settings.log_axis
        self._draw(at_once=True)

    def action_smoothing(self) -> None:
        """None, some, more."""
        settings = self.app.settings
        settings.smoothing = (settings.smoothing + 1) % len(SMOOTHING)  # type: ignore[assignment]
        self._draw(at_once=True)

    def action_zoom(self) -> None:
        """Let one chart fill the screen, or give the screen back."""
        if self.maximized is not None:
            self.minimize()
        elif self._tab == "curves":
            self.maximize(self.query_one(Curves).front(), container=False)

    def action_chart(self, by: int) -> None:
        """Bring another chart to the front."""
        self.query_one(Curves).next_chart(by)
        self.call_after_refresh(self._draw, at_once=True)

    def action_scrub(self, by: int) -> None:
        """Samples of another epoch."""
        if self._tab == "samples":
            self.query_one(Samples).scrub(by)
            self._draw(at_once=True)

    def action_worst(self) -> None:
        """The hardest copies, or the same images every time."""
        self.app.settings.worst = not self.app.settings.worst
        self._draw(at_once=True)

    def action_percent(self) -> None:
        """Shares or counts."""
        self.app.settings.percent = not self.app.settings.percent
        self._draw(at_once=True)

    def action_follow(self) -> None:
        """Follow the log's end, or not."""
        if self._tab == "log":
            self.query_one(LogView).toggle_follow()

    def action_level(self) -> None:
        """Next level of the log."""
        if self._tab == "log":
            self.query_one(LogView).next_level()

    def action_fold(self) -> None:
        """Fold tracebacks or not."""
        if self._tab == "log":
            self.query_one(LogView).toggle_fold()

    def action_search(self) -> None:
        """Search the log."""
        self.action_tab("log")
        self.query_one(LogView).search()

    def gone(self, run: RunFolder) -> None:
        """There is nothing to watch any more."""
        self.dismiss()


def _rows(text: Text, width: int) -> list[int]:
    """How many rows each line of a text may take in a terminal of so many columns."""
    return [len(line) // max(1, width - 4) for line in text.plain.split("\n")]


def _judgement(history: History) -> tuple[str, str]:
    try:
        if history.is_study:
            return "unknown", _study_so_far(history)
        event = suitability_of(history.kept["suitability"])
        if event and any(finding.likely for finding in findings(event)):
            return "flat", summary(event)
        judged = verdict(history.judged(), history.task.count)
    except (KeyError, TypeError, ValueError) as error:
        return "unknown", f"Its events do not tell how it learns ({type(error).__name__}: {error})."
    return judged.level, judged.text


def _study_so_far(history: History) -> str:
    done = {(e["name"], e["seed"]) for e in history.kept["run"]}
    total = history.run.facts().get("steps", "?")
    return f"A study: {len(done)} of its {total} runs are finished. They are in the list of all runs."


def _waiting(state: str) -> str:
    if state == "queued":
        return "Waiting in the queue: it starts when the device is free."
    return "Starting: TensorFlow is loaded, images are read, the graph is traced. The first step takes longer."
