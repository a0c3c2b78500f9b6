"""The command line's twin of everything that the UI does: shown to the user, and run as shown."""

import asyncio
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rotnet_keras.runs.folder import default_runs_dir


class Commands:
    """Commands of `rotnet-keras` on the runs in one folder."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir

    def shown(self, arguments: Sequence[str]) -> str:
        """The command as a user would type it in a shell."""
        words = [*arguments, *self._where()]
        return shlex.join(["rotnet-keras", *(word for word in words if word != "--yes")])

    async def run(self, arguments: Sequence[str]) -> tuple[bool, str]:
        """Run a command in a process of its own; whether it succeeded, and what it said."""
        # In a thread: leaving the UI meanwhile waits for the command instead of giving it up.
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "rotnet_keras", *arguments, *self._where()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            check=False,
        )
        return done.returncode == 0, done.stdout.decode("utf-8", "replace").strip()

    def _where(self) -> list[str]:
        return [] if self.runs_dir == default_runs_dir() else ["--runs-dir", str(self.runs_dir)]
