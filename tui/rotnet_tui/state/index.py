"""All runs of a folder at a glance, read again only where something changed."""

import asyncio
import time
from pathlib import Path
from typing import Any

from rotnet_keras.runs.folder import RunFolder, list_runs
from rotnet_keras.runs.status import WORDS, summary
from rotnet_tui.state.words import LIVE, printable

SLICE_SECONDS = 0.02


class RunIndex:
    """Summaries of the runs, by name."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self.summaries: dict[str, dict[str, Any]] = {}
        self.ready = False
        self._signatures: dict[str, tuple] = {}
        self._refreshing = asyncio.Lock()

    async def refresh(self) -> None:
        """Read what is new, in slices, so that keys are answered in between."""
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
                    self.summaries[name] = shown_summary(run)
                    self._signatures[name] = signature
                if time.perf_counter() - started > SLICE_SECONDS:
                    await asyncio.sleep(0)
                    started = time.perf_counter()
            self.ready = True

    def newest_first(self) -> list[dict[str, Any]]:
        """The summaries, the newest run first."""
        return sorted(self.summaries.values(), key=lambda found: -(found["created"] or 0))

    def going(self) -> int:
        """How many runs are at work."""
        return sum(
            found["state"] in ("starting", "running", "stopping", "stalled") for found in self.summaries.values()
        )


def shown_summary(run: RunFolder) -> dict[str, Any]:
    """A summary whose words are fit for the screen."""
    found = summary(run)
    return {**found, **{key: printable(found[key] or "") for key in WORDS}, "step": found["step"] or 0}


def _signature(run: RunFolder) -> tuple:
    """Changes when the run's events or facts do."""
    signature: list[int] = []
    for path in (run.events_file, run.facts_file, run.stop_file):
        try:
            status = path.stat()
            signature += [status.st_mtime_ns, status.st_size]
        except OSError:
            signature.append(0)
    return tuple(signature)
