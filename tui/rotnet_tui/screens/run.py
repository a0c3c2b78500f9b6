"""The screen of one run: its status on top, and eight tabs."""

import asyncio
import os
import time
from collections.abc import Awaitable
from contextlib import suppress
from functools import partial

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.css.query import NoMatches
from textual.widgets import Footer, Static, TabbedContent, TabPane, Tabs

from rotnet_keras.runs.folder import RunFolder
from rotnet_tui.commands import Commands
from rotnet_tui.screens.base import ActionScreen, mistake
from rotnet_tui.screens.dialogs import ChartsDialog
from rotnet_tui.screens.image import ImageScreen
from rotnet_tui.screens.run_status import rows_of, sentence_of
from rotnet_tui.settings import Settings
from rotnet_tui.state.history import History
from rotnet_tui.state.known_run import KnownRun
from rotnet_tui.state.metrics import metrics_of
from rotnet_tui.state.reading import Reading
from rotnet_tui.state.sample import missing_projection
from rotnet_tui.state.words import status_strip
from rotnet_tui.tabs.base import RunTab
from rotnet_tui.tabs.confusion import ConfusionTab
from rotnet_tui.tabs.curves import CurvesTab
from rotnet_tui.tabs.features import FeaturesTab
from rotnet_tui.tabs.log import LogTab
from rotnet_tui.tabs.projection import DIRECTIONS, ProjectionTab
from rotnet_tui.tabs.recipe import RecipeTab
from rotnet_tui.tabs.samples import SamplesTab
from rotnet_tui.tabs.system import SystemTab
from rotnet_tui.widgets.chart_grid import ChartGrid
from rotnet_tui.widgets.curves import SMOOTHING

TABS: dict[str, tuple[str, type[RunTab]]] = {
    "curves": ("Curves", CurvesTab),
    "samples": ("Samples", SamplesTab),
    "confusion": ("Confusion", ConfusionTab),
    "features": ("Features", FeaturesTab),
    "system": ("System", SystemTab),
    "log": ("Log", LogTab),
    "recipe": ("Recipe", RecipeTab),
    "projection": ("Projection", ProjectionTab),
}
# The share of all cores that drawing may take, on average, from a training on the same machine.
CPU_SHARE = 0.005
MAX_DRAW_SECONDS = 10.0
# How often the state of a run without new events is read: its process may have ended.
STATE_SECONDS = 3.0
# How often the screen is drawn while a long file of events is being read.
CATCH_UP_SECONDS = 0.5
CORES = os.cpu_count() or 1
X_AXES = ("epoch", "step", "time")
# Tabs that change without new events of the run.
ALWAYS_STALE = ("system", "log")


class RunScreen(ActionScreen):
    """Status strip and tabs of one run."""

    AUTO_FOCUS = ""

    BINDINGS = [
        Binding("escape", "back", "Back", id="back"),
        *(Binding(str(n), f"tab('{name}')", title, show=False) for n, (name, (title, _)) in enumerate(TABS.items(), 1)),
        Binding("x", "x_axis", "X axis: epoch, step or time", id="x_axis", show=False),
        Binding("y", "log_axis", "Log or linear axis", id="log_axis", show=False),
        Binding("m", "smoothing", "Smoothing", id="smoothing", show=False),
        Binding("z", "zoom", "Maximise", id="zoom"),
        Binding("left_square_bracket", "chart(-1)", "Previous chart", show=False),
        Binding("right_square_bracket", "chart(1)", "Next chart", show=False),
        Binding("left", "sideways(-1)", "Cursor to the left, previous epoch", show=False),
        Binding("right", "sideways(1)", "Cursor to the right, next epoch", show=False),
        *(Binding(key, f"vertical('{key}')", "Scroll", show=False) for key in ("up", "down", "pageup", "pagedown")),
        *(Binding(key, f"vertical('{key}')", "Scroll", show=False) for key in ("home", "end")),
        *(Binding(f"shift+{key}", f"toward('{key}')", "Nearest point", show=False) for key in DIRECTIONS),
        Binding("enter", "open_image", "Open the image", id="open_image", show=False),
        Binding("g", "arrange", "Arrange the charts", id="arrange", show=False),
        Binding("o", "worst", "Hardest or same samples", id="worst", show=False),
        Binding("percent_sign", "percent", "Percent or counts", id="percent", show=False),
        Binding("f", "log('toggle_follow')", "Follow the log", id="follow", show=False),
        Binding("l", "log('next_level')", "Log level", id="level", show=False),
        Binding("v", "log('toggle_wrap')", "Wrap the log", id="wrap", show=False),
        Binding("u", "log('toggle_fold')", "Fold tracebacks", id="fold", show=False),
        Binding("slash", "search", "Search the log", id="search", show=False),
    ]
    HELP = """\
`1` to `8` switch tabs. **Curves**: `←` `→` move a cursor over all charts, `esc` removes it; `g` arranges the charts;
`x` and `y` change the axes, `m` the smoothing; `z` maximises a chart, `[` `]` switch pages, `+` `-` `0` zoom.
**Samples**: `←` `→` go through the epochs, `↑` `↓` through the images, `enter` opens one, `o` shows the hardest.
**Projection**: the same, and `shift` with an arrow or a click goes to a point. **Confusion**: `%` switches between
percent and counts. **Log**: `f` follows, `/` searches, `l` filters by level, `u` unfolds tracebacks, `←` `→` scroll
long lines, `v` wraps them.

`.` pauses the display; training goes on. To select text with the mouse, hold shift while dragging.
"""

    def __init__(self, run: RunFolder, settings: Settings, commands: Commands) -> None:
        super().__init__(settings, commands)
        self.run = run if isinstance(run, KnownRun) else KnownRun.of(run)
        self.history = History(self.run)
        self._state = ""
        self._stale: set[str] = set(TABS)
        self._drawn_at = self._cpu_at_draw = self._state_read_at = 0.0
        self._strip_text = Text()
        self._catching_up = False
        self._building = asyncio.Lock()
        self._tabs = {name: tab_class(settings, id=name) for name, (_, tab_class) in TABS.items()}
        self._readings = {
            name: Reading(partial(tab.fetch, self.history), self._draw_read) for name, tab in self._tabs.items()
        }

    def compose(self) -> ComposeResult:
        """The status strip, the tabs, and the footer."""
        yield Static(id="strip")
        tab = self.settings.tab
        with TabbedContent(id="run-tabs", initial=f"tab-{tab if tab in TABS else 'curves'}"):
            for name, (title, _) in TABS.items():
                with TabPane(title, id=f"tab-{name}"):
                    yield self._tabs[name]
        yield Static(id="tiny")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Title the status strip, and follow changes of the theme."""
        # Its arrow keys belong to what is in the tabs.
        self.query_one("#run-tabs Tabs", Tabs).can_focus = False
        self.query_one("#strip").border_title = "run"
        self.app.theme_changed_signal.subscribe(self, lambda theme: self.on_resize())

    def targets(self) -> list[RunFolder]:
        """This run."""
        return [RunFolder(self.run.path)]

    # What is shown

    async def tick(self) -> None:
        """Read new events; draw the current tab if something is new and drawing has not cost too much lately."""
        if self._catching_up:
            return
        self._catching_up = True
        try:
            await asyncio.to_thread(self.history.fetch)
            has_new_events = self.history.poll()
            if has_new_events:
                self._stale |= set(TABS)
            was_behind = not self.history.complete
            shown = 0.0
            while not self.history.complete and self.is_current:
                if time.monotonic() - shown > CATCH_UP_SECONDS:
                    self._show_strip()
                    self._draw()
                    shown = time.monotonic()
                # Short slices: a key is answered after a few iterations of the event loop.
                await asyncio.sleep(0.001)
                await asyncio.to_thread(self.history.fetch)
                self.history.poll()
                self._stale |= set(TABS)
        finally:
            self._catching_up = False
        if has_new_events or time.monotonic() - self._state_read_at > STATE_SECONDS:
            await asyncio.to_thread(self.run.read)
            self._state_read_at = time.monotonic()
            self._show_strip()
        if self._front_tab():
            await self._read(self._readings[self._tab].again())
        self._draw(at_once=was_behind)

    def _draw_read(self) -> None:
        with suppress(NoMatches):  # The screen may be closed while files are being read.
            self._draw(at_once=True)

    @on(RunTab.Chosen)
    @work(group="chosen")
    async def _renew(self) -> None:
        """Draw the tab in front with what it reads from the disk."""
        await self._read(self._readings[self._tab].show())

    async def _read(self, reading: Awaitable[None]) -> None:
        try:
            await reading
        except Exception as error:  # What files may be was checked when they were read.
            self.notify(mistake("This tab cannot be read", error), severity="error", markup=False)

    def _show_strip(self) -> None:
        run, colors = self.run, self.app.theme_variables
        if run.summary is None:
            self._update_strip(Text(f"? missing   {run.name}\n\nThe folder of this run no longer exists."))
            return
        summary = run.summary
        if summary["state"] != self._state:
            self._state = summary["state"]
            self._stale |= set(TABS)
        width = self.query_one("#strip").content_size.width or self.size.width - 4
        self._update_strip(status_strip(summary, sentence_of(run, summary, self.history), colors, width))

    def _update_strip(self, text: Text) -> None:
        """Show the status. A new layout of the screen is costly, so it is made only if the number of rows changes."""
        if text == self._strip_text:
            return
        same_height = rows_of(text, self.size.width) == rows_of(self._strip_text, self.size.width)
        self._strip_text = text
        for name in ("#strip", "#tiny"):
            self.query_one(name, Static).update(text, layout=not same_height)

    def _draw(self, at_once: bool = False) -> None:
        name = self._tab
        now, cpu = time.monotonic(), time.process_time()
        wait = min(MAX_DRAW_SECONDS, max(1.0, (cpu - self._cpu_at_draw) / (CPU_SHARE * CORES)))
        if not at_once and now - self._drawn_at < wait and self._drawn_at:
            return
        if not at_once and name not in self._stale and name not in ALWAYS_STALE:
            return
        self._drawn_at, self._cpu_at_draw = now, cpu
        self._stale.discard(name)
        tab = self._tabs[name]
        if not tab.built:
            self._build(tab)
            return
        try:
            tab.show(self.history, self._state)
        except NoMatches:
            raise  # The screen is being removed.
        except Exception as error:  # Events were checked when they were read: the tab keeps what it shows.
            self.notify(mistake("This tab cannot be drawn", error), severity="error", markup=False)

    @work(group="build")
    async def _build(self, tab: RunTab) -> None:
        """Make the widgets of a tab that is opened for the first time, then draw it."""
        async with self._building:
            await tab.build()
        # It has its size only after the next layout.
        self.call_after_refresh(self._renew)

    async def _opened(self, name: str) -> RunTab:
        """Switch to a tab, and return it when it has its widgets."""
        self.action_tab(name)
        tab = self._tabs[name]
        async with self._building:
            await tab.build()
        return tab

    @property
    def _tab(self) -> str:
        # No tab is active while the screen is being built or removed.
        return self.query_one("#run-tabs", TabbedContent).active.removeprefix("tab-") or "curves"

    @on(TabbedContent.TabActivated, "#run-tabs")
    def _tab_activated(self) -> None:
        self.settings.tab = self._tab
        # The tab has its size only after the next layout.
        self.call_after_refresh(self._renew if self._front_tab() else self._draw_read)

    def on_resize(self) -> None:
        """Images and charts depend on the size."""
        self._stale |= set(TABS)
        self._strip_text = Text()
        self.call_after_refresh(self._show_strip)
        self.call_after_refresh(self._draw, at_once=True)

    # What the keys do

    def action_back(self) -> None:
        """Close the maximised chart, the search or the cursor, else go back to the home screen."""
        tab = self._tabs[self._tab]
        if self.maximized is not None:
            self.minimize()
        elif not (isinstance(tab, LogTab) and tab.clear_search()) and not (
            isinstance(tab, CurvesTab | SystemTab) and tab.clear_cursor()
        ):
            self.dismiss()

    def action_tab(self, name: str) -> None:
        """Switch to a tab."""
        self.query_one("#run-tabs", TabbedContent).active = f"tab-{name}"

    def action_x_axis(self) -> None:
        """Switch the x axis between epoch, step and time."""
        settings = self.settings
        settings.x_axis = X_AXES[(X_AXES.index(settings.x_axis) + 1) % len(X_AXES)]  # type: ignore[assignment]
        self._draw(at_once=True)

    def action_log_axis(self) -> None:
        """Switch between a logarithmic and a linear axis."""
        self.settings.log_axis = not self.settings.log_axis
        self._draw(at_once=True)

    def action_smoothing(self) -> None:
        """Next strength of smoothing."""
        settings = self.settings
        settings.smoothing = (settings.smoothing + 1) % len(SMOOTHING)  # type: ignore[assignment]
        self._draw(at_once=True)

    def action_zoom(self) -> None:
        """Maximise a chart, or restore it."""
        if self.maximized is not None:
            self.minimize()
        elif isinstance(tab := self._front_tab(), CurvesTab | SystemTab):
            self.maximize(tab.query_one(ChartGrid).current(), container=False)

    def action_chart(self, by: int) -> None:
        """Bring another page of charts to the front."""
        tab = self._front_tab()
        if isinstance(tab, CurvesTab | SystemTab):
            tab.next_chart(by)
            self.call_after_refresh(self._draw, at_once=True)

    def action_sideways(self, by: int) -> None:
        """Move the cursor of the charts, show the samples of another epoch, or scroll the log."""
        if tab := self._front_tab():
            tab.sideways(by)

    def action_vertical(self, key: str) -> None:
        """Go to another image, or scroll the tab in front."""
        if tab := self._front_tab():
            tab.vertical(key)

    def action_toward(self, direction: str) -> None:
        """Go to the nearest point in a direction."""
        if isinstance(tab := self._front_tab(), ProjectionTab):
            tab.toward(direction)

    def action_open_image(self) -> None:
        """Show the image under the cursor with its rotations, its attention maps and its neighbours."""
        tab = self._front_tab()
        if not isinstance(tab, SamplesTab | ProjectionTab):
            return
        found, events = tab.opened(), self.history.events["projection"]
        back = next((n for n, e in enumerate(reversed(events)) if found and e["step"] == found[0]), None)
        if found is None or back is None:
            why = "This image cannot be opened: its file is missing." if events else missing_projection(self.history)
            self.notify(why, markup=False)
            return
        self.app.push_screen(ImageScreen(self.settings, self.history, self._poll, back, found[1]))

    async def _poll(self) -> bool:
        """Read what is new while another screen shows this run."""
        if self._catching_up:
            return False
        await asyncio.to_thread(self.history.fetch)
        found = self.history.poll()
        if found:
            self._stale |= set(TABS)
        return found

    @work
    async def action_arrange(self) -> None:
        """Choose the metrics of the charts and their grid."""
        tab = await self._opened("curves")
        assert isinstance(tab, CurvesTab)
        names = list(metrics_of(self.history))
        answer = await self.app.push_screen_wait(ChartsDialog(self.settings.grid, self.settings.charts, names))
        if answer:
            self.settings.grid, self.settings.charts = answer
            tab.next_chart(0)
            self.call_after_refresh(self._draw, at_once=True)

    def _front_tab(self) -> RunTab | None:
        """The tab in front, None as long as it is not built."""
        tab = self._tabs[self._tab]
        return tab if tab.built else None

    def action_worst(self) -> None:
        """Switch between the hardest images and the same images every epoch."""
        self.settings.worst = not self.settings.worst
        self._draw(at_once=True)

    def action_percent(self) -> None:
        """Switch between percent and counts."""
        self.settings.percent = not self.settings.percent
        self._draw(at_once=True)

    def action_log(self, change: str) -> None:
        """Change what the log shows, by a method of its tab."""
        if isinstance(tab := self._front_tab(), LogTab):
            getattr(tab, change)()

    @work
    async def action_search(self) -> None:
        """Search the log."""
        tab = await self._opened("log")
        assert isinstance(tab, LogTab)
        tab.search()

    def run_deleted(self, run: RunFolder) -> None:
        """Close the screen: there is nothing left to show."""
        self.dismiss()
