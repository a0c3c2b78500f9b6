"""The events of a run: `events.jsonl` has one JSON object a line. One process appends, any number of readers follow."""

import fcntl
import json
import math
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from rotnet_keras.errors import RunError
from rotnet_keras.files import open_file, open_to_append, parse_json

Event = dict[str, Any]

# How many bytes of a file's end are read at first, and where the last events are enough.
TAIL_BYTES = 65536
# The most bytes that are read at once.
MAX_BLOCK_BYTES = 1 << 22
# A longer line is no event of ours: that of a run with results for a thousand classes has a hundredth of it.
MAX_LINE_BYTES = 1 << 23
# What is read at once for a screen, if it holds a whole line.
FETCHED_BYTES = 1 << 20
# How the line of an event begins that this package wrote.
KIND_PREFIX = re.compile(rb'\{"kind":"(\w+)"')
# How the line of a step event begins. Millions of them can be skipped without parsing their JSON.
STEP_PREFIX = b'{"kind":"step"'
# Events that say nothing about how far a run has come; they go on while it hangs.
SIDE_KIND = "system"
SIDE_PREFIX = b'{"kind":"system"'
# For so long a lock is tried, so many times: whoever only looks at it is done by then.
LOCK_SECONDS, LOCK_TRIES = 0.1, 5
# How many step events a verdict needs.
NEWEST_STEPS = 20


@dataclass(frozen=True)
class _Fetched:
    """A piece of a file, where it starts, and the size of the whole file, in bytes."""

    start: int
    content: bytes
    size: int


class _Window(BytesIO):
    """A file of which only a piece is there; places count in the whole file."""

    def __init__(self, fetched: _Fetched) -> None:
        super().__init__(fetched.content)
        self._piece = fetched

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            return self._piece.size
        return super().seek(max(0, place - self._piece.start))


@dataclass
class EventReader:
    """Follows an events file: each call of `new_lines` or `new_events` yields what was appended since the last call.

    An unterminated last line is left for the next call. A line that is not an event is counted and skipped, and so is
    one of more than `MAX_LINE_BYTES`, which is never held in memory.

    Attributes:
        offset: how many bytes have been read.
        unreadable: how many lines were not events.
        restarted: how often the file had become shorter than `offset` and was read again from its start.
    """

    path: Path
    offset: int = 0
    unreadable: int = field(default=0, init=False)
    restarted: int = field(default=0, init=False)
    _fetched: "_Fetched | None" = field(default=None, init=False)

    def fetch(self) -> None:
        """Read from the disk, for a thread: later calls of `new_lines` yield what is read here, and wait for nothing.

        At most a piece of the file is read; `fetched_all` says whether that was all.
        """
        try:
            with open_file(self.path, self.path.parent) as file:
                size = file.seek(0, os.SEEK_END)
                start = max(0, self.offset - 1) if size >= self.offset else 0
                file.seek(start)
                content = file.read(FETCHED_BYTES)
                if b"\n" not in content[1:]:
                    content += file.read(MAX_LINE_BYTES)
        except OSError:
            size, start, content = 0, max(0, self.offset - 1), b""
        self._fetched = _Fetched(start, content, size)

    def forget(self) -> None:
        """Let later calls of `new_lines` read from the disk themselves again."""
        self._fetched = None

    @property
    def fetched_all(self) -> bool:
        """Whether `fetch` has read the file to its end, or was not called."""
        return self._fetched is None or self._fetched.start + len(self._fetched.content) >= self._fetched.size

    def size(self) -> int:
        """Return the size of the file in bytes, as of the last `fetch`; 0 if it does not exist."""
        if self._fetched is not None:
            return self._fetched.size
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def new_lines(self) -> Iterator[bytes]:
        """Yield the complete lines that have not been read yet; none if the file does not exist.

        The offset moves line by line, so a caller may stop anywhere and continue with a later call.
        """
        try:
            with self._opened() as file:
                if file.seek(0, os.SEEK_END) < self.offset:
                    self.offset = 0
                    self.restarted += 1
                file.seek(max(0, self.offset - 1))
                partial = self.offset > 0 and file.read(1) != b"\n"
                while line := file.readline(MAX_LINE_BYTES):
                    if not line.endswith(b"\n"):
                        if len(line) < MAX_LINE_BYTES:
                            return
                        self.unreadable += not partial
                        partial = True
                        self.offset += len(line)
                        continue
                    self.offset += len(line)
                    if partial:
                        partial = False
                    else:
                        yield line
        except OSError:
            return

    def _opened(self) -> BinaryIO:
        return open_file(self.path, self.path.parent) if self._fetched is None else _Window(self._fetched)

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
        RunError: another process holds the lock, the file is not a file of the folder's own, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = open_to_append(path, path.parent)
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error.strerror}") from None
        try:
            lock(self._file, path)
        except BlockingIOError:
            self._file.close()
            raise RunError(
                f"{path.parent.name} is running already; only one process can write to a run folder"
            ) from None
        except RunError:
            self._file.close()
            raise
        self._drop_torn_line(path)
        self._writing = threading.Lock()

    def write(self, kind: str, **values: Any) -> None:
        """Append one event, from any thread. Infinite numbers and NaN, which JSON does not have, become null."""
        event = {"kind": kind, "time": round(time.time(), 3), **values}
        line = json.dumps(_finite(event), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        with self._writing:
            self._file.write(line.encode("utf-8", "replace") + b"\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file and release the lock."""
        self._file.close()

    def _drop_torn_line(self, path: Path) -> None:
        """Cut off an unfinished last line, left by a killed process, so that the next event starts a new line."""
        size, unfinished = os.fstat(self._file.fileno()).st_size, 0
        for block in _blocks_from_end(path):
            _, newline, after = block.rpartition(b"\n")
            unfinished += len(after)
            if newline:
                break
        if unfinished:
            self._file.truncate(size - unfinished)


def lock(file: BinaryIO, path: Path) -> None:
    """Lock an open file for this process, until it is closed; its path is for messages.

    Raises:
        BlockingIOError: another process holds the lock.
        RunError: the file system has no locks.
    """
    # Whoever looks whether the file is locked holds its lock for an instant.
    for seconds in (*[LOCK_SECONDS / LOCK_TRIES] * LOCK_TRIES, 0.0):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not seconds:
                raise
            time.sleep(seconds)
        except OSError as error:
            raise RunError(
                f"{path.parent} is on a disk without file locks ({error.strerror}), which keep two "
                "processes from writing to one run; choose another folder with --runs-dir"
            ) from None


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of a file."""
    try:
        with open_file(path, path.parent) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def lines_from_end(path: Path) -> Iterator[bytes]:
    """Yield the complete lines of an events file without their line breaks, newest first; none if it does not exist.

    Memory is needed for a part of the file only, however far back the caller reads.
    """
    # Whether the line whose end has been read last is one to skip: it is not complete, or too long.
    rest, skipped = b"", True
    try:
        for block in _blocks_from_end(path):
            rest, *lines = (block + rest).split(b"\n")
            if skipped and lines:
                lines.pop()
                skipped = False
            yield from reversed(lines)
            if skipped or len(rest) > MAX_LINE_BYTES:
                rest, skipped = b"", True
    except OSError:
        return
    if rest and not skipped:
        yield rest


def _blocks_from_end(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file in blocks, the last one first; each is twice as large as the one before."""
    with open_file(path, path.parent) as file:
        end, length = file.seek(0, os.SEEK_END), TAIL_BYTES
        while end:
            start = max(0, end - length)
            file.seek(start)
            yield file.read(end - start)
            end, length = start, min(2 * length, MAX_BLOCK_BYTES)


def parse_event(line: bytes) -> Event | None:
    """Parse a line; None if it is not an event: a JSON object with a `kind`, a `time`, and a number as its `step`."""
    try:
        event = parse_json(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
        return None
    return event if _is_number(event.get("time")) and _is_number(event.get("step", 0)) else None


def _is_number(value: Any) -> bool:
    """Return whether a value is a finite number, small enough for a time or a count of steps."""
    return isinstance(value, (int, float)) and abs(value) < 1e15


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
