"""Actions on runs, shared by all screens that show some."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from textual import work
from textual.binding import Binding
from textual.screen import Screen

from rotnet_keras.runs.diagnosis import diagnose
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.next_steps import run_argument
from rotnet_keras.runs.processes import Process
from rotnet_keras.runs.tags import read_labels
from rotnet_tui.commands import Commands
from rotnet_tui.messages import NewRun, Perform, Refresh
from rotnet_tui.screens.dialogs import ConfirmDialog, DiagnosisDialog, TextDialog
from rotnet_tui.screens.opening import ReadingDialog
from rotnet_tui.settings import Settings, keep_traceback
from rotnet_tui.state.reading import PATIENCE_SECONDS
from rotnet_tui.state.words import LIVE, screen_text

T = TypeVar("T")


class ActionScreen(Screen[None]):
    """A screen with runs that the keys act on. Every action is a command of `rotnet-keras`."""

    HORIZONTAL_BREAKPOINTS = [(0, "-thin"), (60, "-narrow"), (100, "-wide"), (150, "-vast")]
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (16, "-low"), (30, "-high")]
    BINDINGS = [
        Binding("n", "new_run", "New run", id="new"),
        Binding("s", "stop", "Stop", id="stop"),
        Binding("r", "resume", "Resume", id="resume"),
        Binding("K", "kill", "Kill", id="kill", show=False),
        Binding("d", "delete", "Delete", id="delete", show=False),
        Binding("w", "report", "Write report", id="report", show=False),
        Binding("a", "ask", "Ask why it failed", id="ask", show=False),
        Binding("T", "tag", "Tags", id="tag", show=False),
        Binding("N", "note", "Note", id="note", show=False),
        Binding("Y", "copy", "Copy path", id="copy", show=False),
    ]

    def __init__(self, settings: Settings, commands: Commands) -> None:
        super().__init__()
        self.settings = settings
        self.commands = commands

    def targets(self) -> list[RunFolder]:
        """The runs that an action applies to."""
        raise NotImplementedError

    async def tick(self) -> None:
        """Show what is new. Called about once a second while the screen is in front."""
        raise NotImplementedError

    def run_deleted(self, run: RunFolder) -> None:
        """Called after a run has been deleted."""

    async def perform(self, *arguments: str) -> bool:
        """Have the application run a command of `rotnet-keras`; returns whether it succeeded."""
        message = Perform(*arguments)
        self.app.post_message(message)
        return await message.succeeded

    def refresh_soon(self) -> None:
        """Have the application show what is new now."""
        self.app.post_message(Refresh())

    def action_new_run(self) -> None:
        """Open the form of a new run."""
        self.app.post_message(NewRun())

    @work
    async def action_stop(self) -> None:
        """Stop after the current step, with a checkpoint."""
        for run in self.targets():
            await self.perform("stop", run_argument(run))
        self.refresh_soon()

    @work
    async def action_resume(self) -> None:
        """Continue from the last checkpoint."""
        for run in self.targets():
            await self.perform("resume", run_argument(run), "--detach")
        self.refresh_soon()

    @work
    async def action_report(self) -> None:
        """Write report.html and report.md."""
        for run in self.targets():
            await self.perform("report", run_argument(run))

    @work
    async def action_kill(self) -> None:
        """Kill the run's process, after a confirmation."""
        for run in self.targets():
            process, state, since, _ = await self._ask(_what_would_be_lost, run)
            if process is not Process.RUNNING:
                where = "no process on this machine" if process is Process.ELSEWHERE else "no process"
                self.notify(f"{run.name} has {where} to kill: it is {state}.", severity="warning", markup=False)
                continue
            loss = f"All work since the last checkpoint is lost{since}. Stopping (s) loses nothing."
            await self._confirm_and_perform(f"Kill {run.name}?", loss, "kill", run_argument(run), "--yes")
        self.refresh_soon()

    @work
    async def action_delete(self) -> None:
        """Delete the run folder, after a confirmation."""
        for run in self.targets():
            process, state, _, has_backbone = await self._ask(_what_would_be_lost, run)
            if process is Process.RUNNING and state in LIVE:
                self.notify(f"{run.name} is still running. Stop it first (s).", severity="warning", markup=False)
                continue
            export = ", exported backbone" if has_backbone else ""
            loss = f"This deletes {run.path} with its events, checkpoints{export} and report."
            name = run_argument(run)
            command = ("queue", "remove", name) if state == "queued" else ("delete", name, "--yes")
            if await self._confirm_and_perform(f"Delete {run.name}?", loss, *command):
                self.run_deleted(run)
        self.refresh_soon()

    @work
    async def action_ask(self) -> None:
        """Say why the run failed, and which commands mend it."""
        for run in self.targets()[:1]:
            try:
                found = await self._ask(diagnose, run)
            except Exception as error:
                self.notify(mistake("This run cannot be judged", error), severity="error", markup=False)
                return
            command = self.commands.as_typed(["why", run_argument(run)])
            if await self.app.push_screen_wait(DiagnosisDialog(run.name, found, command)) and found.commands:
                self.app.copy_to_clipboard(found.commands[0])
                self.notify(f"Copied: {found.commands[0]}", markup=False)

    @work
    async def action_tag(self) -> None:
        """Change the tags of the run, or of each marked run."""
        for run in self.targets():
            before = (await self._ask(read_labels, run)).tags
            name = run_argument(run)
            dialog = TextDialog(f"Tags of {run.name}", " ".join(before), "Separate tags by spaces.", f"tag {name} ...")
            typed = await self.app.push_screen_wait(dialog)
            if typed is None:
                continue
            now = typed.split()
            gone, new = [tag for tag in before if tag not in now], [tag for tag in now if tag not in before]
            if new and not await self.perform("tag", name, *new):
                continue
            if gone:
                await self.perform("tag", name, *gone, "--remove")
        self.refresh_soon()

    @work
    async def action_note(self) -> None:
        """Write the note of the run, or of each marked run."""
        for run in self.targets():
            name, before = run_argument(run), (await self._ask(read_labels, run)).note
            dialog = TextDialog(f"Note on {run.name}", before, "An empty note removes it.", f"note {name} ...")
            typed = await self.app.push_screen_wait(dialog)
            if typed is not None and typed != before:
                # A blank before a hyphen: it begins no option.
                await self.perform("note", name, f" {typed}" if typed.startswith("-") else typed)
        self.refresh_soon()

    def action_copy(self) -> None:
        """Copy the paths of the runs to the clipboard."""
        paths = "\n".join(str(run.path) for run in self.targets())
        if paths:
            self.app.copy_to_clipboard(paths)
            self.notify(f"Copied: {paths}", markup=False)

    async def _ask(self, read: Callable[[RunFolder], T], run: RunFolder) -> T:
        """Read something of a run in a thread. Where that takes a while a dialog says so, and takes the keys.

        Raises:
            asyncio.CancelledError: the user closed the dialog.
        """
        reading = asyncio.ensure_future(asyncio.to_thread(read, run))
        if (await asyncio.wait([reading], timeout=PATIENCE_SECONDS))[0]:
            return reading.result()
        dialog = ReadingDialog(screen_text(run.name))
        self.app.push_screen(dialog)
        await asyncio.wait([reading])
        if self.app.screen is not dialog:
            raise asyncio.CancelledError
        self.app.pop_screen()
        return reading.result()

    async def _confirm_and_perform(self, question: str, loss: str, *command: str) -> bool:
        dialog = ConfirmDialog(question, loss, self.commands.as_typed(command))
        answer = await self.app.push_screen_wait(dialog)
        return bool(answer) and await self.perform(*command)


def _what_would_be_lost(run: RunFolder) -> tuple[Process, str, str, bool]:
    """The run's process and state, the steps since its last checkpoint, and whether it has exported a backbone."""
    return run.process(), run.state(), _since_checkpoint(run), run.backbone.is_file()


def _since_checkpoint(run: RunFolder) -> str:
    tail: list[dict[str, Any]] = run.last_events()
    step = max((e["step"] for e in tail if e["kind"] == "step"), default=0)
    saved = max((e["step"] for e in tail if e["kind"] == "checkpoint"), default=0)
    return f": {step - saved} steps" if step > saved else ""


def mistake(what: str, error: Exception) -> str:
    """Say in a line that the program has made a mistake, and where its traceback is.

    Args:
        what: what does not work because of it.
        error: whose traceback is kept.
    """
    file = keep_traceback(error)
    where = f"; the traceback is in {file}" if file else ""
    return f"{what}, by a mistake of rotnet-tui: {type(error).__name__}: {error}{where}"
