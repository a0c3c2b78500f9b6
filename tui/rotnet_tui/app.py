"""The application: its screens, its clock, and what is the same on all of them."""

import os
import shlex
import subprocess
import time
import traceback
from collections.abc import Iterable
from pathlib import Path

import platformdirs
from textual import work
from textual.app import App, SuspendNotSupported, SystemCommand
from textual.binding import Binding
from textual.css.query import NoMatches
from textual.screen import Screen

from rotnet_keras.runs.folder import RunFolder
from rotnet_tui.commands import Commands
from rotnet_tui.screens.base import ControlScreen
from rotnet_tui.screens.home import Home
from rotnet_tui.settings import load_keymap, load_settings, save_settings
from rotnet_tui.state.index import RunIndex

TICK_SECONDS = 1.0


class RotnetApp(App[None]):
    """A viewer of run folders and a remote control for runs; it never works on a run itself."""

    TITLE = "rotnet-tui"
    CSS_PATH = "rotnet.tcss"
    BINDINGS = [
        Binding("q", "quit", "Quit", id="quit"),
        Binding("question_mark", "help", "Help", id="help", key_display="?"),
        Binding("full_stop", "pause", "Hold the screen", id="pause", show=False),
        Binding("t", "change_theme", "Theme", id="theme", show=False),
        Binding("S", "picture", "Screenshot", id="screenshot", show=False),
    ]

    def __init__(self, runs_dir: Path, open_run: RunFolder | None = None) -> None:
        super().__init__()
        self.settings = load_settings()
        self.commands = Commands(runs_dir)
        self.index = RunIndex(runs_dir)
        self.crash_report: Path | None = None
        self._open_run = open_run
        self._held = False
        self._started_by = os.getppid()

    def on_mount(self) -> None:
        """Open the first screen and start the clock."""
        if self.settings.theme in self.available_themes:
            self.theme = self.settings.theme
        home = Home()
        self.push_screen(home)
        if self._open_run:
            self.open_run(self._open_run)
        keys, wrong = load_keymap(_binding_names)
        self.set_keymap(keys)
        if wrong:
            self.notify(wrong, severity="warning", timeout=10, markup=False)
        self.set_interval(TICK_SECONDS, self.tick)
        self.call_after_refresh(self.tick)

    @work(exclusive=True, group="tick")
    async def tick(self) -> None:
        """Let the screen in front show what is new."""
        if self.is_web and os.getppid() != self._started_by:
            # The server is gone: without this the process would live on.
            self.exit()
        screen = self.screen
        if self._held or not hasattr(screen, "tick"):
            return
        try:
            await screen.tick()
        except NoMatches:
            # A screen that is taken down meanwhile loses its widgets one by one.
            return

    # Screens

    @work
    async def open_run(self, run: RunFolder) -> None:
        """Open a run."""
        from rotnet_tui.screens.run import RunScreen

        self.push_screen(RunScreen(run))
        self.tick()

    def open_by_name(self, name: str) -> None:
        """Open the run of this name."""
        self.open_run(RunFolder(self.index.runs_dir / name))

    def compare(self, runs: list[RunFolder]) -> None:
        """Set runs side by side."""
        from rotnet_tui.screens.compare import Compare

        self.push_screen(Compare(runs))

    def new_run(self, recipe: str | None = None) -> None:
        """Open the form."""
        from rotnet_tui.screens.new_run import NewRun

        self.push_screen(NewRun(recipe))

    # Actions

    async def perform(self, *arguments: str) -> bool:
        """Run a command of `rotnet-keras` and say what came of it; whether it succeeded."""
        succeeded, said = await self.commands.run(arguments)
        shown = self.commands.shown(arguments)
        self.notify(
            f"{said or 'done'}\n$ {shown}",
            severity="information" if succeeded else "error",
            timeout=6 if succeeded else 12,
            markup=False,
        )
        return succeeded

    def edit(self, path: Path) -> None:
        """Open a file in the user's editor, with the terminal to itself."""
        editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
        try:
            with self.suspend():
                code = _edit(editor, path)
        except SuspendNotSupported:
            self.notify(f"There is no editor here. Edit {path} elsewhere.", severity="warning", markup=False)
            return
        if code:
            self.notify(f"{editor} ended with {code}: {path}", severity="warning", markup=False)
        self.refresh()

    def action_help(self) -> None:
        """Show the keys and the help of what has the focus, or hide them."""
        from textual.widgets import HelpPanel

        if self.screen.query(HelpPanel):
            self.action_hide_help_panel()
        else:
            self.action_show_help_panel()

    def action_pause(self) -> None:
        """Hold the screen as it is; training goes on."""
        self._held = not self._held
        self.notify("Held: nothing is drawn until . is pressed again." if self._held else "Going on.")
        self.tick()

    def action_picture(self) -> None:
        """Save the screen as an SVG picture in the current folder."""
        name = time.strftime("rotnet-tui-%Y%m%d-%H%M%S.svg")
        try:
            self.notify(f"Saved {self.save_screenshot(name, str(Path.cwd()))}", markup=False)
        except OSError as error:
            self.notify(f"{name}: {error.strerror}", severity="error", markup=False)

    async def action_quit(self) -> None:
        """Leave; runs and the queue go on."""
        self.settings.theme = self.theme
        wrong = save_settings(self.settings)
        going = self.index.going()
        words = [
            f"{going} run{'s' if going > 1 else ''} keep{'' if going > 1 else 's'} going; rotnet-tui shows them again."
        ]
        self.exit(message="\n".join([*(words if going else []), *([wrong] if wrong else [])]) or None)

    def get_system_commands(self, screen: Screen) -> Iterable[SystemCommand]:
        """The palette: Textual's own commands, and what the keys of the screen in front do."""
        yield from super().get_system_commands(screen)
        for _, binding, enabled, _ in screen.active_bindings.values():
            if enabled and binding.id and binding.description:
                yield SystemCommand(
                    binding.description, f"key {binding.key}", lambda name=binding.action: self._do(name)
                )

    @work
    async def _do(self, action: str) -> None:
        await self.run_action(action, self.screen)

    def _handle_exception(self, error: Exception) -> None:
        """Keep the traceback in a file; Textual restores the terminal."""
        folder = platformdirs.user_state_path("rotnet-keras")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.crash_report = folder / time.strftime("tui-crash-%Y%m%d-%H%M%S.txt")
            self.crash_report.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        except OSError:
            self.crash_report = None
        super()._handle_exception(error)


def _edit(editor: str, path: Path) -> int:
    """Run an editor, which may bring options of its own ("code --wait"); its exit code."""
    try:
        return subprocess.call([*shlex.split(editor), str(path)])
    except OSError:
        return 127


def _binding_names() -> set[str]:
    """What users may give other keys."""
    from rotnet_tui.screens.compare import Compare
    from rotnet_tui.screens.new_run import NewRun
    from rotnet_tui.screens.run import RunScreen

    classes = (RotnetApp, ControlScreen, Home, RunScreen, Compare, NewRun)
    return {b.id for c in classes for b in c.BINDINGS if isinstance(b, Binding) and b.id}
