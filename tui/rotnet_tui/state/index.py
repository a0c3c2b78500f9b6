"""Summaries of all runs in a folder. Only runs that have changed are read again."""

import asyncio
import time
from pathlib import Path
from typing import Any

from rotnet_keras.runs.folder import RunFolder, list_runs
from rotnet_keras.runs.cluster.jobs import ask_in_background
from rotnet_keras.runs.status import TEXT_KEYS, summary
from rotnet_tui.state.words import ACTIVE, LIVE, screen_text

SLICE_SECONDS = 0.02


class RunIndex:
    """Summaries of all runs in a folder, by the name of the run.

    Attributes:
        summaries: as `rotnet_keras.runs.status.summary` makes them, with printable text.
        ready: whether the folder has been read once.
    """

    def __init__(self, runs_dir: Path) -> None:
        ask_in_background()
        self.runs_dir = runs_dir
        self.summaries: dict[str, dict[str, Any]] = {}
        self.ready = False
        self._signatures: dict[str, tuple] = {}
        self._refreshing = asyncio.Lock()

    async def refresh(self) -> None:
        """Read what is new, in short slices, so that the UI stays responsive."""
        if self._refreshing.locked():
            return
        async with self._refreshing:
            runs = {run.name: run for run in list_runs(self.runs_dir) if run.name.isprintable()}
            for name in self.summaries.keys() - runs.keys():
                del self.summaries[name], self._signatures[name]
            started = time.perf_counter()
            for name, run in runs.items():
                signature = _signature(run)
                known = self.summaries.get(name)
                if known is None or signature != self._signatures[name] or known["state"] in LIVE:
                    self.summaries[name] = printable_summary(run)
                    self._signatures[name] = signature
                if time.perf_counter() - started > SLICE_SECONDS:
                    await asyncio.sleep(0)
                    started = time.perf_counter()
            self.ready = True

    def newest_first(self) -> list[dict[str, Any]]:
        """The summaries, the newest run first."""
        return sorted(self.summaries.values(), key=lambda summary: -(summary["created"] or 0))

    def active_count(self) -> int:
        """How many runs have a process."""
        return sum(summary["state"] in ACTIVE for summary in self.summaries.values())


def printable_summary(run: RunFolder) -> dict[str, Any]:
    """The summary of a run, its text made safe for the screen."""
    found = summary(run)
    return {**found, **{key: screen_text(found[key] or "") for key in (*TEXT_KEYS, "note")}, "step": found["step"] or 0}


def _signature(run: RunFolder) -> tuple:
    """A value that changes with the run's events or facts."""
    signature: list[int] = []
    for path in (run.events_file, run.facts_file, run.stop_file, run.tags_file, run.job_file):
        try:
            status = path.stat()
            signature += [status.st_mtime_ns, status.st_size]
        except OSError:
            signature.append(0)
    return tuple(signature)
