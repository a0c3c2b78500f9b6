"""The events of a run: `events.jsonl` has one JSON object a line. One process appends, any number of readers follow."""

import fcntl
import json
import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from rotnet_keras.errors import RunError

Event = dict[str, Any]

# How many bytes of a file's end are read at first, and where the last events are enough.
TAIL_BYTES = 65536
# The most bytes that are read at once.
MAX_BLOCK_BYTES = 1 << 22
# How the line of an event begins that this package wrote.
KIND_PREFIX = re.compile(rb'\{"kind":"(\w+)"')
# How the line of a step event begins. Millions of them can be skipped without parsing their JSON.
STEP_PREFIX = b'{"kind":"step"'
# How many step events a verdict needs.
NEWEST_STEPS = 20


@dataclass
class EventReader:
    """Follows an events file: each call of `new_lines` or `new_events` yields what was appended since the last call.

    An unterminated last line is left for the next call. A line that is not an event is counted and skipped.

    Attributes:
        offset: how many bytes have been read.
        unreadable: how many lines were not events.
        restarted: how often the file had become shorter than `offset` and was read again from its start.
    """

    path: Path
    offset: int = 0
    unreadable: int = field(default=0, init=False)
    restarted: int = field(default=0, init=False)

    def new_lines(self) -> Iterator[bytes]:
        """Yield the complete lines that have not been read yet; none if the file does not exist.

        The offset moves line by line, so a caller may stop anywhere and continue with a later call.
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

    def new_events(self) -> Iterator[Event]:
        """Yield the events that have not been read yet."""
        for line in self.new_lines():
            event = parse_event(line)
            if event is None:
                self.unreadable += 1
            else:
                yield event


class EventWriter:
    """Appends events, one flushed line each, and holds a lock that keeps a second writer out.

    Raises:
        RunError: another process holds the lock.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise RunError(
                f"{path.parent.name} is running already; only one process can write to a run folder"
            ) from None
        self._drop_torn_line(path)

    def write(self, kind: str, **values: Any) -> None:
        """Append one event. Infinite numbers and NaN, which JSON does not have, become null."""
        event = {"kind": kind, "time": round(time.time(), 3), **values}
        line = json.dumps(_finite(event), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        self._file.write(line.encode("utf-8", "replace") + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file and release the lock."""
        self._file.close()

    def _drop_torn_line(self, path: Path) -> None:
        """Cut off an unfinished last line, left by a killed process, so that the next event starts a new line."""
        size, unfinished = path.stat().st_size, b""
        for block in _blocks_from_end(path):
            _, newline, after = block.rpartition(b"\n")
            unfinished = after + unfinished
            if newline:
                break
        if unfinished:
            os.truncate(path, size - len(unfinished))


def lines_from_end(path: Path) -> Iterator[bytes]:
    """Yield the complete lines of an events file without their line breaks, newest first; none if it does not exist.

    Memory is needed for a part of the file only, however far back the caller reads.
    """
    rest, unfinished = b"", True
    try:
        for block in _blocks_from_end(path):
            rest, *lines = (block + rest).split(b"\n")
            if unfinished and lines:
                lines.pop()  # What follows the last line break is empty, or not complete.
                unfinished = False
            yield from reversed(lines)
    except OSError:
        return
    if rest and not unfinished:
        yield rest


def _blocks_from_end(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file in blocks, the last one first; each is twice as large as the one before."""
    with path.open("rb") as file:
        end, length = file.seek(0, os.SEEK_END), TAIL_BYTES
        while end:
            start = max(0, end - length)
            file.seek(start)
            yield file.read(end - start)
            end, length = start, min(2 * length, MAX_BLOCK_BYTES)


def parse_event(line: bytes) -> Event | None:
    """Parse a line; None if it is not an event, that is a JSON object with a `kind` and a `time`."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
        return None
    return event if isinstance(event.get("time"), (int, float)) else None


def newest_probes(events: Iterable[Event]) -> list[Event]:
    """Return the probe events of the step that was probed last: those of earlier steps describe other weights."""
    probes = [e for e in events if e["kind"] == "probe"]
    last = max((e["step"] for e in probes), default=0)
    return [e for e in probes if e["step"] == last]


def median_step_interval(events: list[Event]) -> float:
    """Return the median seconds between step events; 0 if there are fewer than four of them."""
    times = [e["time"] for e in events if e["kind"] == "step"]
    intervals = [b - a for a, b in pairwise(times)]
    if len(intervals) < 3:
        return 0.0
    import statistics

    return statistics.median(intervals)


def _finite(value: Any) -> Any:
    """Replace the infinite numbers and NaN in a JSON value by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def describe_probe_data(event: Event, recipe: dict[str, Any]) -> str:
    """Say what a probe was trained on: "all labels", "20 labels per class, augmented images"."""
    probes = recipe.get("probe", [])
    labels = "all labels" if event["labels_per_class"] is None else f"{event['labels_per_class']} labels per class"
    augmented = event["probe"] < len(probes) and probes[event["probe"]].get("augment")
    return f"{labels}, augmented images" if augmented else labels
