"""A run folder for a screen: what a screen asks for at any time is read before, in a thread."""

from pathlib import Path
from typing import Any

from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.processes import Process
from rotnet_tui.state.index import printable_summary


class KnownRun(RunFolder):
    """A run folder whose facts and recipe are those of the last `read`, so that no question waits for a slow disk.

    Attributes:
        summary: as `printable_summary` makes it, of the last `read`; None if the folder no longer exists.
        newer: whether a newer version of rotnet-keras wrote the folder, as of the last `read`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.summary: dict[str, Any] | None = None
        self.newer = False
        self._process = Process.GONE
        self._facts: dict[str, Any] = {}
        self._recipe: dict[str, Any] = {}

    @classmethod
    def of(cls, run: RunFolder) -> "KnownRun":
        """Return a run with what its folder says now. This waits for the disk."""
        known = cls(run.path)
        known.read()
        return known

    def read(self) -> None:
        """Read what the folder says. This waits for the disk."""
        now = RunFolder(self.path)
        if not now.path.is_dir():
            self.summary = None
            return
        self._facts, self._recipe = now.facts(), now.all_recipe_values()
        self.newer = now.has_newer_format()
        self._process = now.process()
        self.summary = printable_summary(now)

    def facts(self) -> dict[str, Any]:
        """Return what `run.json` said at the last `read`."""
        return self._facts

    def process(self) -> Process:
        """Return what could be seen of the run's process at the last `read`."""
        return self._process

    def all_recipe_values(self) -> dict[str, Any]:
        """Return what `recipe.toml` said at the last `read`."""
        return self._recipe
