"""Runs commands of `rotnet-keras`: each action of the UI is one, shown to the user as it is run."""

import asyncio
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from rotnet_keras.host import python_command
from rotnet_keras.runs.folder import default_runs_dir


class Commands:
    """Commands of `rotnet-keras` on the runs in one folder."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir

    def as_typed(self, arguments: Sequence[str]) -> str:
        """The command as a user would type it in a shell."""
        words = [*arguments, *self._runs_dir_option()]
        return shlex.join(["rotnet-keras", *(word for word in words if word != "--yes")])

    async def run(self, arguments: Sequence[str]) -> tuple[bool, str]:
        """Run a command in a process of its own; returns whether it succeeded, and its output."""
        # In a thread: leaving the UI meanwhile waits for the command instead of abandoning it.
        done = await asyncio.to_thread(
            subprocess.run,
            python_command("-m", "rotnet_keras", *arguments, *self._runs_dir_option()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            check=False,
        )
        return done.returncode == 0, done.stdout.decode("utf-8", "replace").strip()

    def _runs_dir_option(self) -> list[str]:
        return [] if self.runs_dir == default_runs_dir() else ["--runs-dir", str(self.runs_dir)]
