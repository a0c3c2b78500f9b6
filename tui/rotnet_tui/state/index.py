"""Summaries of all runs in a folder. Only runs that have changed are read again."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rotnet_keras.runs.cluster.jobs import ask_in_background
from rotnet_keras.runs.folder import RunFolder, list_runs
from rotnet_keras.runs.status import TEXT_KEYS, summary
from rotnet_tui.state.words import ACTIVE, LIVE, screen_text

SLICE_SECONDS = 0.02
# How often the runs read so far are shown while the folder is read for the first time.
PROGRESS_SECONDS = 0.5
# The share of the time that looking for changed runs may take.
SCAN_SHARE = 0.02
MAX_SCAN_SECONDS = 20.0


class RunIndex:
    """Summaries of all runs in a folder, by the name of the run.

    Attributes:
        summaries: as `rotnet_keras.runs.status.summary` makes them, with printable text.
        ready: whether the folder has been read once.
        version: changes with the summaries.
        count: the number of runs in the folder when it was last looked through.
    """

    def __init__(self, runs_dir: Path) -> None:
        ask_in_background()
        self.runs_dir = runs_dir
        self.summaries: dict[str, dict[str, Any]] = {}
        self.ready = False
        self.count = self.version = 0
        self._next_scan = 0.0
        self._signatures: dict[str, tuple] = {}
        self._refreshing: asyncio.Task[None] | None = None

    async def refresh(self, whole: bool = False, progress: Callable[[], None] = lambda: None) -> None:
        """Read what is new, in short slices, so that the UI stays responsive.

        A folder of thousands of runs is looked through so rarely that this takes a small share of the time. Runs with a
        process are read each time.

        Args:
            whole: whether to look through the whole folder now.
            progress: called now and then while the folder is read for the first time, the newest runs first.
        """
        # In a task of its own, which goes on if whoever waits for it gives up.
        if whole and self._refreshing is not None and not self._refreshing.done():
            await asyncio.shield(self._refreshing)
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh(whole, progress))
        await asyncio.shield(self._refreshing)

    async def _refresh(self, whole: bool, progress: Callable[[], None]) -> None:
        began = time.perf_counter()
        if not whole and self.ready and began < self._next_scan:
            runs = {name: RunFolder(self.runs_dir / name) for name, s in self.summaries.items() if s["state"] in LIVE}
        else:
            listed = await asyncio.to_thread(list_runs, self.runs_dir)
            runs = {run.name: run for run in reversed(listed) if run.name.isprintable()}
            self.count = len(runs)
            for name in self.summaries.keys() - runs.keys():
                del self.summaries[name], self._signatures[name]
                self.version += 1
        started = shown = time.perf_counter()
        spent = started - began
        for name, run in runs.items():
            signature = _signature(run)
            known = self.summaries.get(name)
            if known is None or signature != self._signatures[name] or known["state"] in LIVE:
                self.summaries[name] = printable_summary(run)
                self.version += 1
                self._signatures[name] = signature
            if (now := time.perf_counter()) - started > SLICE_SECONDS:
                spent += now - started
                if not self.ready and now - shown > PROGRESS_SECONDS:
                    progress()
                    shown = now
                await asyncio.sleep(0)
                started = time.perf_counter()
        spent += time.perf_counter() - started
        if self.ready and len(runs) == self.count:
            self._next_scan = time.perf_counter() + min(MAX_SCAN_SECONDS, spent / SCAN_SHARE)
        self.ready = True

    def expire(self) -> None:
        """Let the next refresh look through the whole folder: something has been done to a run."""
        self._next_scan = 0.0

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
