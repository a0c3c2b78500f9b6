"""Follows the events of one run, in memory of bounded size."""

import time
from array import array
from typing import Any

from rotnet_keras.runs.event_fields import event_problem
from rotnet_keras.runs.events import NEWEST_STEPS, STEP_PREFIX, Event, EventReader, parse_event
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.task_labels import Task, task_of

COLUMNS = (
    *("step", "epoch", "seconds", "loss", "accuracy", "learning_rate", "images_per_s", "data_wait"),
    *("gradient_norm", "weight_norm"),
)
# The most step events that are kept. When there are more, every second one is dropped, now and from then on.
MAX_STEPS = 8000
# The most `system` events that are kept; the run itself writes fewer and fewer.
MAX_SYSTEM = 4000
SYSTEM_FIGURES = (
    *(("run_cpu", "cpu", 1), ("run_memory", "memory", 2**30), ("machine_cpu", "machine_cpu", 1)),
    *(("machine_memory", "machine_memory", 2**30), ("disk_free", "disk_free", 2**30)),
)
GPU_FIGURES = (("load", 1), ("memory", 2**30), ("power", 1), ("temperature", 1))
# The usual size of a step event in the file.
STEP_BYTES = 200
KEPT_KINDS = (
    *("epoch", "samples", "projection", "probe", "features", "suitability", "warning", "resume", "run", "picture"),
)


class History:
    """The events of a run so far.

    Attributes:
        columns: an array of floats for each of `COLUMNS`, with one row per kept step event; NaN where unknown.
            "seconds" is the time spent training, without the pauses between a stop and a resume.
        stride: one of this many step events is kept.
        latest: the newest step event.
        system: the `system` events, thinned, each with the "step" and the training "at" seconds at its time.
        events: lists of all events of each of `KEPT_KINDS`.
        checkpoint: the newest checkpoint event.
        end: the end event; None while the run continues.
        complete: whether the whole file has been read.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._task = task_of(run)
        self._reset()

    def _reset(self) -> None:
        self.reader = EventReader(self.run.events_file)
        self.columns = {name: array("d") for name in COLUMNS}
        self.stride = 1
        self._fetched, self._parsed = False, True
        self.complete = False
        self.latest: Event | None = None
        self.checkpoint: Event | None = None
        self.end: Event | None = None
        self.events: dict[str, list[Event]] = {kind: [] for kind in KEPT_KINDS}
        self.system: list[Event] = []
        self._step_count = 0
        self._training_seconds = 0.0
        self._last_time = 0.0

    @property
    def epochs(self) -> list[Event]:
        """The epoch events."""
        return self.events["epoch"]

    @property
    def is_study(self) -> bool:
        """Whether the run is a study, which trains nothing itself: its runs do."""
        return bool(self.run.recipe_values().get("kind") == "study")

    @property
    def task(self) -> Task:
        """What the model is trained to predict."""
        if not self._task.classes:
            self._task = task_of(self.run)
        return self._task

    @property
    def fraction_read(self) -> float:
        """The fraction of the file that has been read, 0 to 1."""
        size = self.reader.size()
        return min(1.0, self.reader.offset / size) if size else 1.0

    def fetch(self) -> None:
        """Read from the disk what the next calls of `poll` parse, for a thread: a slow disk then holds up no key."""
        if self._parsed:
            self.reader.fetch()
            self._fetched = True

    def poll(self, budget: float = 0.01) -> bool:
        """Parse events for at most `budget` seconds; returns whether there were any.

        They are those that `fetch` has read; without it, they are read here.
        """
        if not self._fetched:
            self.reader.forget()
        if not self.reader.offset:
            # For a long file, start with a large stride: most of its step events need not be parsed.
            steps = self.reader.size() // STEP_BYTES
            self.stride = 1 << max(0, (steps // MAX_STEPS).bit_length() - 1)
        restarts = self.reader.restarted
        deadline = time.perf_counter() + budget
        pending: bytes | None = None
        found = 0
        self._parsed = True
        for line in self.reader.new_lines():
            if self.reader.restarted != restarts:
                self._reset()
                return True
            found += 1
            if line.startswith(STEP_PREFIX):
                self._step_count += 1
                if self._step_count % self.stride:
                    pending = line
                else:
                    pending = None
                    self._add(line)
            else:
                if pending is not None:
                    self._set_latest(pending)
                    pending = None
                self._add(line)
            if found % 200 == 0 and time.perf_counter() > deadline:
                self._parsed = False
                break
        self.complete = self._parsed and self.reader.fetched_all
        self._fetched = self._fetched and not self._parsed
        if pending is not None:
            self._set_latest(pending)
        return found > 0

    def verdict_events(self) -> list[Event]:
        """The events that a verdict needs: all epochs, the newest steps, the end."""
        start = max(0, len(self.columns["step"]) - NEWEST_STEPS)
        steps: list[Event] = [
            {"kind": "step", **{name: self.columns[name][i] for name in ("step", "loss", "accuracy")}}
            for i in range(start, len(self.columns["step"]))
        ]
        if self.latest:
            steps.append(self.latest)
        return [*steps, *self.epochs, *([self.end] if self.end else [])]

    def _set_latest(self, line: bytes) -> None:
        event = parse_event(line)
        if event is not None and event_problem(event) is None:
            self.latest = event
            self._count_time(event)

    def _add(self, line: bytes) -> None:
        event = parse_event(line)
        problem = event and event_problem(event)
        # Of a step, a curve can do without what is missing.
        if event is None or (problem and (event["kind"] != "step" or "step" not in event)):
            self.reader.unreadable += 1
            return
        kind = event["kind"]
        if kind == "start":
            self.end = None
        self._count_time(event)
        if kind == "step":
            self.latest = self.latest if problem else event
            self._append(event)
        elif kind == "system":
            self._append_system(event)
        elif kind == "resume":
            self._rewind(event)
            self.events[kind].append(event)
        elif kind == "checkpoint":
            self.checkpoint = event
        elif kind == "end":
            self.end = event
        elif kind in self.events:
            self.events[kind].append(event)

    def _count_time(self, event: Event) -> None:
        passed = event["time"] - (self._last_time or event["time"])
        if event["kind"] != "start":
            self._training_seconds += max(0.0, passed)  # The clock may have been set back.
        self._last_time = event["time"]

    def _append(self, event: Event) -> None:
        for name, column in self.columns.items():
            column.append(self._training_seconds if name == "seconds" else _number(event.get(name)))
        if len(self.columns["step"]) > MAX_STEPS:
            self.columns = {name: column[1::2] for name, column in self.columns.items()}
            self.stride *= 2

    def _append_system(self, event: Event) -> None:
        step = self.latest["step"] if self.latest else 0
        self.system.append(event | {"step": step, "at": self._training_seconds})
        if len(self.system) > MAX_SYSTEM:
            self.system = self.system[1::2]

    def system_figures(self) -> dict[str, list[float]]:
        """The figures of the `system` events by name: "run_cpu" in percent, "run_memory" in GB, "gpu0_load"."""
        found = {name: [_number(e.get(key)) / unit for e in self.system] for name, key, unit in SYSTEM_FIGURES}
        for index in sorted({gpu["index"] for e in self.system for gpu in e.get("gpus", ())}):
            own: list[Event] = [next((g for g in e.get("gpus", ()) if g["index"] == index), {}) for e in self.system]
            for key, unit in GPU_FIGURES:
                found[f"gpu{index}_{key}"] = [_number(gpu.get(key)) / unit for gpu in own]
        return found

    def _rewind(self, event: Event) -> None:
        """Drop the events after the checkpoint from which the run was resumed."""
        step = event.get("step", 0)
        for kind in ("epoch", "samples", "projection", "probe", "features"):
            self.events[kind] = [e for e in self.events[kind] if e.get("step", 0) <= step]
        count = len(self.columns["step"])
        while count and self.columns["step"][count - 1] > step:
            count -= 1
        self.columns = {name: column[:count] for name, column in self.columns.items()}
        if self.latest and self.latest.get("step", 0) > step:
            self.latest = None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else float("nan")
