"""Follows one run's events and keeps them small, however long the run."""

import time
from array import array
from pathlib import Path
from typing import Any

from rotnet_keras.runs.events import NEWEST_STEPS, STEP_START, Event, EventReader, parse_event
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.task_labels import Task, task_of

COLUMNS = ("step", "epoch", "seconds", "loss", "accuracy", "learning_rate", "images_per_s", "data_wait")
# Step events kept; of more, every second is dropped, and every second of those that come.
KEPT = 8000
STEP_BYTES = 200
STEPPED = ("step", "epoch", "samples", "probe", "checkpoint", "resume")
KEPT_KINDS = ("epoch", "samples", "probe", "suitability", "warning", "resume", "run", "picture")


class History:
    """What a run's events say so far.

    Attributes:
        columns: one array of floats each of `COLUMNS`, a row for each step event that is kept; NaN where unknown.
            "seconds" counts the time at work, without the pauses between a stop and a resume.
        stride: one of so many step events is kept.
        latest: the newest step event.
        epochs, samples, probes, warnings, resumes: the events of these kinds, and `end` the last one's.
        checkpoint: the newest checkpoint event.
        complete: whether everything in the file has been read.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._task = task_of(run)
        self._begin()

    def _begin(self) -> None:
        self.reader = EventReader(self.run.events_file)
        self.columns = {name: array("d") for name in COLUMNS}
        # Of a long file, little is parsed only to be dropped again.
        self.stride = 1 << max(0, (_size(self.run.events_file) // (KEPT * STEP_BYTES)).bit_length() - 1)
        self.complete = False
        self.latest: Event | None = None
        self.checkpoint: Event | None = None
        self.end: Event | None = None
        self.kept: dict[str, list[Event]] = {kind: [] for kind in KEPT_KINDS}
        self._lines = self._count = 0
        self._worked = 0.0
        self._last_time = 0.0

    @property
    def epochs(self) -> list[Event]:
        """The epoch events."""
        return self.kept["epoch"]

    @property
    def is_study(self) -> bool:
        """Whether the run is a study: it trains nothing itself, its runs do."""
        return bool(self.run.settings().get("kind") == "study")

    @property
    def task(self) -> Task:
        """What the network learns to answer."""
        if not self._task.answers:
            self._task = task_of(self.run)
        return self._task

    @property
    def share_read(self) -> float:
        """How much of the file has been read, 0 to 1."""
        size = _size(self.run.events_file)
        return min(1.0, self.reader.offset / size) if size else 1.0

    def poll(self, budget: float = 0.01) -> bool:
        """Read on for at most `budget` seconds; whether anything new was found."""
        restarts = self.reader.restarted
        until = time.perf_counter() + budget
        pending: bytes | None = None
        found = 0
        self.complete = True
        for line in self.reader.lines():
            if self.reader.restarted != restarts:
                self._begin()
                return True
            found += 1
            if line.startswith(STEP_START):
                self._count += 1
                if self._count % self.stride:
                    pending = line
                else:
                    pending = None
                    self._take(line)
            else:
                if pending is not None:
                    self._note_step(pending)
                    pending = None
                self._take(line)
            if found % 200 == 0 and time.perf_counter() > until:
                self.complete = False
                break
        if pending is not None:
            self._note_step(pending)
        return found > 0

    def judged(self) -> list[Event]:
        """The events that a verdict needs: the epochs, the newest steps, the end."""
        start = max(0, len(self.columns["step"]) - NEWEST_STEPS)
        steps: list[Event] = [
            {"kind": "step", **{name: self.columns[name][i] for name in ("step", "loss", "accuracy")}}
            for i in range(start, len(self.columns["step"]))
        ]
        if self.latest:
            steps.append(self.latest)
        return [*steps, *self.epochs, *([self.end] if self.end else [])]

    def _note_step(self, line: bytes) -> None:
        event = parse_event(line)
        if event is not None and _understood(event):
            self.latest = event
            self._tell_time(event)

    def _take(self, line: bytes) -> None:
        event = parse_event(line)
        if event is None or not _understood(event):
            self.reader.unreadable += 1
            return
        kind = event["kind"]
        if kind == "start":
            self.end = None
        self._tell_time(event)
        if kind == "step":
            self.latest = event
            self._append(event)
        elif kind == "resume":
            self._go_back(event)
            self.kept[kind].append(event)
        elif kind == "checkpoint":
            self.checkpoint = event
        elif kind == "end":
            self.end = event
        elif kind in self.kept:
            self.kept[kind].append(event)

    def _tell_time(self, event: Event) -> None:
        passed = event["time"] - (self._last_time or event["time"])
        if event["kind"] != "start":
            self._worked += max(0.0, passed)  # A clock may be set back.
        self._last_time = event["time"]

    def _append(self, event: Event) -> None:
        for name, column in self.columns.items():
            column.append(self._worked if name == "seconds" else _number(event.get(name)))
        if len(self.columns["step"]) > KEPT:
            self.columns = {name: column[1::2] for name, column in self.columns.items()}
            self.stride *= 2

    def _go_back(self, event: Event) -> None:
        """Drop what came after the checkpoint that the run went back to."""
        step = event.get("step", 0)
        for kind in ("epoch", "samples", "probe"):
            self.kept[kind] = [e for e in self.kept[kind] if e.get("step", 0) <= step]
        count = len(self.columns["step"])
        while count and self.columns["step"][count - 1] > step:
            count -= 1
        self.columns = {name: column[:count] for name, column in self.columns.items()}
        if self.latest and self.latest.get("step", 0) > step:
            self.latest = None


def _understood(event: Event) -> bool:
    """Whether an event has what is drawn of it; one of another version may not."""
    validation = event.get("validation", {"accuracy": 0, "loss": 0, "confusion": []})
    if event["kind"] in STEPPED and not isinstance(event.get("step"), (int, float)):
        return False
    if event["kind"] == "epoch" and not isinstance(event.get("epoch"), (int, float)):
        return False
    if not isinstance(validation, dict) or not {"accuracy", "loss", "confusion"} <= validation.keys():
        return False
    return event["kind"] != "samples" or (isinstance(event.get("tiles"), list) and {"file", "tile"} <= event.keys())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else float("nan")
