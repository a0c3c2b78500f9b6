"""The command line's twin of everything that the UI does: shown to the user, and run as shown."""

import asyncio
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rotnet_keras.runs import default_runs_dir


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
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "rotnet_keras", *arguments, *self._where()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        output, _ = await process.communicate()
        return process.returncode == 0, output.decode("utf-8", "replace").strip()

    def _where(self) -> list[str]:
        return [] if self.runs_dir == default_runs_dir() else ["--runs-dir", str(self.runs_dir)]
