"""The application: it opens screens, runs the clock, and carries out what screens ask for."""

import asyncio
import importlib
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from textual import on, work
from textual.app import App, ScreenStackError, SuspendNotSupported, SystemCommand
from textual.binding import Binding
from textual.css.query import NoMatches
from textual.screen import Screen

from rotnet_keras.runs.folder import RunFolder
from rotnet_tui.commands import Commands
from rotnet_tui.messages import CompareRuns, EditFile, NewRun, OpenRun, Perform, Refresh
from rotnet_tui.screens.base import ActionScreen
from rotnet_tui.screens.home import HomeScreen
from rotnet_tui.screens.opening import OpeningScreen
from rotnet_tui.settings import keep_traceback, load_keymap, load_settings, save_settings
from rotnet_tui.state.index import RunIndex
from rotnet_tui.state.known_run import KnownRun
from rotnet_tui.state.reading import PATIENCE_SECONDS, OneAtATime
from rotnet_tui.state.words import screen_text
from rotnet_tui.themes import THEMES

TICK_SECONDS = 1.0


class RotnetApp(App[None]):
    """A viewer of run folders and a remote control for runs. It never trains anything itself."""

    TITLE = "rotnet-tui"
    CSS_PATH = "rotnet.tcss"
    BINDINGS = [
        Binding("q", "quit", "Quit", id="quit"),
        Binding("question_mark", "help", "Help", id="help", key_display="?"),
        Binding("full_stop", "pause", "Pause the display", id="pause", show=False),
        Binding("t", "change_theme", "Theme", id="theme", show=False),
        Binding("S", "save_picture", "Screenshot", id="screenshot", show=False),
    ]

    def __init__(self, runs_dir: Path, open_run: RunFolder | None = None) -> None:
        super().__init__()
        self.settings = load_settings()
        self.commands = Commands(runs_dir)
        self.index = RunIndex(runs_dir)
        self.crash_report: Path | None = None
        self._first_run = open_run
        self._paused = False
        self._parent_pid = os.getppid()
        self._ticking: dict[Screen, OneAtATime] = {}

    async def on_mount(self) -> None:
        """Open the first screen and start the clock."""
        for theme in THEMES:
            self.register_theme(theme)
        if self.settings.theme in self.available_themes:
            self.theme = self.settings.theme
        await self.push_screen(HomeScreen(self.settings, self.commands, self.index))
        if self._first_run:
            self.post_message(OpenRun(self._first_run))
        keys, problem = load_keymap(_binding_names)
        self.set_keymap(keys)
        if problem:
            self.notify(problem, severity="warning", timeout=10, markup=False)
        self.set_interval(TICK_SECONDS, self._clock_ticks)
        self.call_after_refresh(self.tick)

    def _clock_ticks(self) -> None:
        # What a screen reads may take it longer than this on a slow disk.
        if self.screen_stack and self.screen not in self._ticking:
            self.tick()

    @on(Refresh)
    @work(group="tick")
    async def tick(self) -> None:
        """Let the current screen show what is new."""
        if self.is_web and os.getppid() != self._parent_pid:
            # The web server has ended: without this its child process would live on.
            self.exit()
        try:
            screen: Any = self.screen
            # A screen that is still being built would show a part of what it reads, and lose keys for the rest.
            if not self._paused and hasattr(screen, "tick") and screen.is_mounted:
                ticks = self._ticking.setdefault(screen, OneAtATime(lambda: _tick(screen)))
                try:
                    await ticks.again()
                finally:
                    if not ticks.busy:
                        self._ticking.pop(screen, None)
        except ScreenStackError:
            # An app that ends loses its screens.
            return

    # What screens ask for

    # Their charts need NumPy, and the form all of recipes, which the first screen does without.

    @on(OpenRun)
    def _open_run(self, message: OpenRun) -> None:
        def read() -> tuple[str, Callable[[Any], Screen]]:
            run = KnownRun.of(message.run)
            study = not message.tabs and run.recipe_values().get("kind") == "study"

            def make(module: Any) -> Screen:
                made = module.StudyScreen if study else module.RunScreen
                return made(message.run if study else run, self.settings, self.commands)

            return f"rotnet_tui.screens.{'study' if study else 'run'}", make

        self._open(read, message.run.name)

    @on(CompareRuns)
    def _compare_runs(self, message: CompareRuns) -> None:
        def make(module: Any) -> Screen:
            return module.CompareScreen(message.runs, self.settings)

        self._open(lambda: ("rotnet_tui.screens.compare", make), "the comparison")

    @on(NewRun)
    def _new_run(self, message: NewRun) -> None:
        def make(module: Any) -> Screen:
            return module.NewRunScreen(message.recipe, self.commands, self.index)

        self._open(lambda: ("rotnet_tui.screens.new_run", make), "the form")

    @work(exclusive=True, group="open")
    async def _open(self, read: Callable[[], tuple[str, Callable[[Any], Screen]]], what: str) -> None:
        """Open a screen; while files are read for it and its module is imported, a line says so, and keys are answered.

        Args:
            read: called in a thread, says the module and how to make the screen.
            what: is opened, in words.
        """

        def prepare() -> tuple[Callable[[Any], Screen], Any]:
            name, make = read()
            return make, importlib.import_module(name)

        preparing = asyncio.ensure_future(asyncio.to_thread(prepare))
        opening = None
        if not (await asyncio.wait([preparing], timeout=PATIENCE_SECONDS))[0]:
            opening = OpeningScreen(screen_text(what))
            self.push_screen(opening)
        make, module = await preparing
        if opening is None:
            await self.push_screen(make(module))
        elif self.screen is opening:
            await self.switch_screen(make(module))
        self.tick()

    @on(Perform)
    @work
    async def _perform(self, message: Perform) -> None:
        """Run the command and show what it printed, together with the command line."""
        succeeded, output = await self.commands.run(message.arguments)
        self.notify(
            f"{output or 'Done.'}\n$ {self.commands.as_typed(message.arguments)}",
            severity="information" if succeeded else "error",
            timeout=6 if succeeded else 12,
            markup=False,
        )
        if not message.succeeded.done():  # The screen that asked may be closed by now.
            message.succeeded.set_result(succeeded)

    @on(EditFile)
    def _edit_file(self, message: EditFile) -> None:
        """Hand the terminal to the editor until it is closed."""
        editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
        path = message.path
        try:
            with self.suspend():
                code = _edit(editor, path)
        except SuspendNotSupported:
            self.notify(
                f"An editor cannot be opened here. Edit {path} in a terminal.", severity="warning", markup=False
            )
        else:
            if code:
                self.notify(f"{editor} ended with exit code {code}: {path}", severity="warning", markup=False)
            self.refresh()
        if not message.closed.done():
            message.closed.set_result(None)

    # What keys do on every screen

    def action_help(self) -> None:
        """Show the keys and the help of the focused widget, or hide them."""
        from textual.widgets import HelpPanel

        if self.screen.query(HelpPanel):
            self.action_hide_help_panel()
        else:
            self.action_show_help_panel()

    def action_pause(self) -> None:
        """Stop updating the screen, or go on with it; training is not affected."""
        self._paused = not self._paused
        self.notify("Display paused. Press . to resume; training goes on." if self._paused else "Display resumed.")
        self.tick()

    def action_save_picture(self) -> None:
        """Save the screen as an SVG file in the current folder."""
        name = time.strftime("rotnet-tui-%Y%m%d-%H%M%S.svg")
        try:
            self.notify(f"Saved {self.save_screenshot(name, str(Path.cwd()))}", markup=False)
        except OSError as error:
            self.notify(f"{name} cannot be saved: {error.strerror}", severity="error", markup=False)

    async def action_quit(self) -> None:
        """Leave; runs and the queue continue in the background."""
        self.settings.theme = self.theme
        problem = save_settings(self.settings)
        count = self.index.active_count()
        lines = [_still_running(count)] if count else []
        self.exit(message="\n".join([*lines, *([problem] if problem else [])]) or None)

    def get_system_commands(self, screen: Screen) -> Iterable[SystemCommand]:
        """The command palette: Textual's own commands and the key bindings of the current screen."""
        yield from super().get_system_commands(screen)
        for _, binding, enabled, _ in screen.active_bindings.values():
            if enabled and binding.id and binding.description:
                yield SystemCommand(
                    binding.description, f"key {binding.key}", lambda name=binding.action: self._run_binding(name)
                )

    @work
    async def _run_binding(self, action: str) -> None:
        await self.run_action(action, self.screen)

    def _handle_exception(self, error: Exception) -> None:
        """Keep the traceback in a file; Textual restores the terminal."""
        self.crash_report = keep_traceback(error)
        super()._handle_exception(error)


async def _tick(screen: Any) -> None:
    with suppress(NoMatches, ScreenStackError):  # A screen that is being removed loses its widgets one by one.
        await screen.tick()


def _edit(editor: str, path: Path) -> int:
    """Run an editor, which may have options of its own ("code --wait"), and return its exit code."""
    try:
        return subprocess.call([*shlex.split(editor), str(path)])
    except OSError:
        return 127


def _still_running(count: int) -> str:
    if count == 1:
        return "1 run continues in the background. Start rotnet-tui again to watch it."
    return f"{count} runs continue in the background. Start rotnet-tui again to watch them."


def _binding_names() -> set[str]:
    """The names of all bindings to which users may assign other keys."""
    from rotnet_tui.screens.compare import CompareScreen
    from rotnet_tui.screens.new_run import NewRunScreen
    from rotnet_tui.screens.run import RunScreen
    from rotnet_tui.screens.study import StudyScreen

    classes = (RotnetApp, ActionScreen, HomeScreen, RunScreen, StudyScreen, CompareScreen, NewRunScreen)
    return {b.id for c in classes for b in c.BINDINGS if isinstance(b, Binding) and b.id}
