"""What can be done to runs, from any screen that shows some."""

from typing import TYPE_CHECKING, Any

from textual import work
from textual.binding import Binding
from textual.screen import Screen

from rotnet_keras.runs.folder import RunFolder
from rotnet_tui.screens.dialogs import Confirm
from rotnet_tui.state.words import LIVE

if TYPE_CHECKING:
    from rotnet_tui.app import RotnetApp


class ControlScreen(Screen[None]):
    """A screen with runs that the keys act on; every action is a command of `rotnet-keras`."""

    app: "RotnetApp"

    HORIZONTAL_BREAKPOINTS = [(0, "-thin"), (60, "-narrow"), (100, "-wide"), (150, "-vast")]
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (16, "-low"), (30, "-high")]
    BINDINGS = [
        Binding("n", "new_run", "New run", id="new"),
        Binding("s", "stop", "Stop", id="stop"),
        Binding("r", "resume", "Resume", id="resume"),
        Binding("K", "kill", "Kill", id="kill", show=False),
        Binding("d", "delete", "Delete", id="delete", show=False),
        Binding("w", "report", "Write report", id="report", show=False),
        Binding("Y", "copy", "Copy path", id="copy", show=False),
    ]

    def targets(self) -> list[RunFolder]:
        """The runs that an action is about."""
        raise NotImplementedError

    async def tick(self) -> None:
        """Show what is new; called about once a second while the screen is in front."""
        raise NotImplementedError

    def gone(self, run: RunFolder) -> None:
        """A run was deleted."""

    def action_new_run(self) -> None:
        """Open the form."""
        self.app.new_run()

    @work
    async def action_stop(self) -> None:
        """Ask for a stop after the step at hand, with a checkpoint."""
        for run in self.targets():
            await self.app.perform("stop", run.name)
        self.app.tick()

    @work
    async def action_resume(self) -> None:
        """Go on from the last checkpoint."""
        for run in self.targets():
            await self.app.perform("resume", run.name, "--detach")
        self.app.tick()

    @work
    async def action_report(self) -> None:
        """Write report.html and report.md."""
        for run in self.targets():
            await self.app.perform("report", run.name)

    @work
    async def action_kill(self) -> None:
        """End the process at once, after asking."""
        for run in self.targets():
            if not run.alive():
                self.notify(f"{run.name} has no process to kill: it is {run.state()}.", severity="warning")
                continue
            lost = f"What it did since its last checkpoint is lost{_since_checkpoint(run)}. Stopping (s) loses nothing."
            await self._confirmed(f"Kill {run.name}?", lost, "kill", run.name, "--yes")
        self.app.tick()

    @work
    async def action_delete(self) -> None:
        """Delete the run folder, after asking."""
        for run in self.targets():
            if run.alive() and run.state() in LIVE:
                self.notify(f"{run.name} is at work: stop it first.", severity="warning")
                continue
            export = ", its exported backbone" if run.backbone.is_file() else ""
            what = f"{run.path} goes, with its events, checkpoints{export} and report."
            command = ("queue", "remove", run.name) if run.state() == "queued" else ("delete", run.name, "--yes")
            if await self._confirmed(f"Delete {run.name}?", what, *command):
                self.gone(run)
        self.app.tick()

    def action_copy(self) -> None:
        """Copy the paths of the runs."""
        paths = "\n".join(str(run.path) for run in self.targets())
        if paths:
            self.app.copy_to_clipboard(paths)
            self.notify(f"Copied: {paths}", markup=False)

    async def _confirmed(self, question: str, consequences: str, *command: str) -> bool:
        shown = self.app.commands.shown(command)
        answer = await self.app.push_screen_wait(Confirm(question, consequences, shown))
        return bool(answer) and await self.app.perform(*command)


def _since_checkpoint(run: RunFolder) -> str:
    tail: list[dict[str, Any]] = run.tail()
    step = max((e["step"] for e in tail if e["kind"] == "step"), default=0)
    saved = max((e["step"] for e in tail if e["kind"] == "checkpoint"), default=0)
    return f": {step - saved} steps" if step > saved else ""
