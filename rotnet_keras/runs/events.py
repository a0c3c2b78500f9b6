"""The events of a run, one JSON object a line: who reads them follows the file, one process appends."""

import fcntl
import json
import math
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from rotnet_keras.errors import RunError

Event = dict[str, Any]

# How much of a file's end is read where the newest events are enough.
TAIL_BYTES = 65536
# How a step's line begins, so that millions of them can be passed over, and how many a verdict needs.
STEP_START = b'{"kind":"step"'
NEWEST_STEPS = 20


@dataclass
class EventReader:
    """Follows an events file: each call of `lines` or `new` gives what has come since the one before.

    An unterminated last line is left for the next call; a line that is no event is counted and skipped.

    Attributes:
        offset: bytes read so far.
        unreadable: lines that were no events.
        restarted: how often the file was found shorter than what had been read of it, and was begun again.
    """

    path: Path
    offset: int = 0
    unreadable: int = field(default=0, init=False)
    restarted: int = field(default=0, init=False)

    def lines(self) -> Iterator[bytes]:
        """Complete lines that have not been given yet; none where the file is not there.

        The offset moves line by line, so a consumer may stop anywhere and go on with a later call.
        """
        try:
            with self.path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self.offset:
                    self.offset = 0
                    self.restarted += 1
                file.seek(max(0, self.offset - 1))
                partial = self.offset > 0 and file.read(1) != b"\n"
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    self.offset += len(line)
                    if partial:
                        partial = False
                    else:
                        yield line
        except OSError:
            return

    def new(self) -> Iterator[Event]:
        """Events that have not been given yet."""
        for line in self.lines():
            event = parse_event(line)
            if event is None:
                self.unreadable += 1
            else:
                yield event


class EventWriter:
    """Appends events, one flushed line each, and holds the lock that keeps a second writer out."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise RunError(f"{path.parent.name} is running already: only one process can write a run folder") from None
        self._drop_torn_line(path)

    def write(self, kind: str, **values: Any) -> None:
        """Append one event. Numbers that JSON has no word for become null."""
        event = {"kind": kind, "time": round(time.time(), 3), **values}
        line = json.dumps(_finite(event), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        self._file.write(line.encode("utf-8", "replace") + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Give up the lock."""
        self._file.close()

    def _drop_torn_line(self, path: Path) -> None:
        """Cut off what a killed process left of its last line, so that the next event starts a new one."""
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - TAIL_BYTES)
            file.seek(start)
            tail = file.read()
        if tail and not tail.endswith(b"\n"):
            os.truncate(path, start + tail.rfind(b"\n") + 1)


def parse_event(line: bytes) -> Event | None:
    """The event of a line; None if it holds none."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
        return None
    return event if isinstance(event.get("time"), (int, float)) else None


def usual_pause(events: list[Event]) -> float:
    """Median seconds between step events, 0 where there are too few to tell."""
    times = [e["time"] for e in events if e["kind"] == "step"]
    pauses = [b - a for a, b in pairwise(times)]
    return statistics.median(pauses) if len(pauses) >= 3 else 0.0


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def probe_images(event: Event, recipe: dict[str, Any]) -> str:
    """What a probe was trained on: "all labels", "20 labels per class, augmented images"."""
    probes = recipe.get("probe", [])
    labels = "all labels" if event["labels_per_class"] is None else f"{event['labels_per_class']} labels per class"
    augmented = event["probe"] < len(probes) and probes[event["probe"]].get("augment")
    return f"{labels}, augmented images" if augmented else labels
