"""Summaries of all runs in a folder. Only runs that have changed are read again."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from rotnet_keras.runs.cluster.jobs import ask_in_background
from rotnet_keras.runs.folder import RunFolder, list_runs
from rotnet_keras.runs.queue import worker_pid
from rotnet_keras.runs.status import TEXT_KEYS, summary
from rotnet_tui.state.words import ACTIVE, LIVE, screen_text

# Threads that read run folders, so that a slow disk holds up no key, and the runs that one of them reads in turn. More
# threads would hold up the one that answers keys.
READERS, RUNS_IN_TURN = 4, 8
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
        # Runs with names that no list of runs shows, though they wait in the queue.
        self._unprintable: list[str] = []
        self._refreshing: asyncio.Task[None] | None = None
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="run folders")

    async def refresh(self, whole: bool = False, progress: Callable[[], None] = lambda: None) -> None:
        """Read what is new, in threads, so that the UI stays responsive however slow the disk is.

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
            of_all = False
        else:
            listed = await asyncio.to_thread(list_runs, self.runs_dir)
            runs = {run.name: run for run in reversed(listed) if run.name.isprintable()}
            self._unprintable = [run.name for run in listed if run.name not in runs]
            of_all = True
            self.count = len(runs)
            for name in self.summaries.keys() - runs.keys():
                del self.summaries[name], self._signatures[name]
                self.version += 1
        waiting, shown = iter(runs.values()), time.perf_counter()

        async def read() -> None:
            nonlocal shown
            while some := list(islice(waiting, RUNS_IN_TURN)):
                known = [(run, self._known(run)) for run in some]
                found = await asyncio.get_running_loop().run_in_executor(self._readers, _read_changed, known)
                for name, signature, read_now in found:
                    self.summaries[name], self._signatures[name] = read_now, signature
                    self.version += 1
                if not self.ready and time.perf_counter() - shown > PROGRESS_SECONDS:
                    progress()
                    shown = time.perf_counter()

        await asyncio.gather(*(read() for _ in range(READERS)))
        if self.ready and of_all:
            spent = time.perf_counter() - began
            self._next_scan = time.perf_counter() + min(MAX_SCAN_SECONDS, spent / SCAN_SHARE)
        self.ready = True

    def _known(self, run: RunFolder) -> tuple | None:
        """The signature of a run that need not be read again while it stays the same; None for one to read anyway."""
        known = self.summaries.get(run.name)
        return None if known is None or known["state"] in LIVE else self._signatures[run.name]

    def expire(self) -> None:
        """Let the next refresh look through the whole folder: something has been done to a run."""
        self._next_scan = 0.0

    def newest_first(self) -> list[dict[str, Any]]:
        """The summaries, the newest run first."""
        return sorted(self.summaries.values(), key=lambda summary: -(summary["created"] or 0))

    def waiting(self) -> tuple[list[tuple[float, str, str]], int | None]:
        """Read when each queued run was queued, its name and its recipe, the next one first, and the worker's process.

        This waits for the disk.
        """
        names = [name for name, known in list(self.summaries.items()) if known["state"] == "queued"]
        found = []
        for run in (RunFolder(self.runs_dir / name) for name in [*names, *self._unprintable]):
            if (since := run.queued_since()) is not None:
                found.append((since, run.name, str(run.facts().get("recipe") or "")))
        return sorted(found), worker_pid(self.runs_dir)

    def active_count(self) -> int:
        """How many runs have a process."""
        return sum(summary["state"] in ACTIVE for summary in self.summaries.values())


def _read_changed(runs: list[tuple[RunFolder, tuple | None]]) -> list[tuple[str, tuple, dict[str, Any]]]:
    """Return name, signature and summary of the runs that have another signature than is known of them."""
    found = []
    for run, known in runs:
        signature = _signature(run)
        if signature != known:
            found.append((run.name, signature, printable_summary(run)))
    return found


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
