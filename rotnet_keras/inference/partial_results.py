"""Results of many image files, written as they come, so that a killed command goes on where it was."""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BufferedRandom
from pathlib import Path
from types import TracebackType
from typing import Any

from rotnet_keras.errors import DataError, RecipeError
from rotnet_keras.files import has_file
from rotnet_keras.text import first_few

SUFFIX = ".partial"
# What a file has that nobody has changed: its size in bytes, and its times of modification and of status change in
# nanoseconds. Earlier versions wrote the first two.
Stamp = tuple[int, ...]


class PartialResults:
    """A file of JSON lines beside the file that a command will write: what is done so far, an image a line.

    The first line says what the results belong to. A line that was not written to its end is done again. Only one
    process writes at a time. Use it as a context manager.

    Args:
        target: the file that the command will write in the end.
        about: what the results depend on, such as the model and the options.

    Raises:
        RecipeError: the file holds results of another model or of other options, or another process writes it.
        DataError: the file is something else.
        OSError: it cannot be written.

    Attributes:
        path: the file, `<target>.partial`.
        done: how many results an earlier process left.
    """

    def __init__(self, target: Path, about: Mapping[str, Any]) -> None:
        self.path = target.with_name(target.name + SUFFIX)
        self._about = json.loads(json.dumps(about))
        self._wanted: set[str] = set()
        self._stamps: dict[str, Stamp] = {}
        self._file = _open_locked(self.path)
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise
        self.done = len(self._stamps)

    def _read(self) -> None:
        """Read what is there, and cut off what was not written to its end."""
        first = self._file.readline()
        if first.endswith(b"\n"):
            self._check_first_line(_parsed(first))
        else:
            self._file.seek(0)
            self._file.truncate()
            self._file.write(json.dumps(self._about).encode() + b"\n")
            self._file.flush()
        end = self._file.tell()
        for line in self._file:
            record = _parsed(line) if line.endswith(b"\n") else None
            if record is None or not isinstance(record.get("file"), str):
                break
            self._stamps[record["file"]] = tuple(record.get("stamp") or (0, 0))
            end += len(line)
        self._file.seek(end)
        self._file.truncate()

    def _check_first_line(self, found: dict[str, Any] | None) -> None:
        """Check that the results belong to the same model and options."""
        if found is None or "command" not in found:
            raise DataError(f"{self.path}: not the partial results of this command: remove it, or write another file")
        # A key that is not there stands for what the command does by default.
        before, now = ({**dict.fromkeys([*self._about, *found], "none"), **each} for each in (found, self._about))
        changed = [key for key in now if before[key] != now[key]]
        if changed:
            values = [f"{key} {before[key]!r} instead of {now[key]!r}" for key in changed]
            raise RecipeError(
                f"{self.path} has the results of a command that was stopped, with {first_few(values)}: repeat that "
                "command to finish it, or remove the file to begin anew"
            )

    def remaining(self, files: Sequence[Path]) -> list[Path]:
        """The files that have no result yet.

        Raises:
            DataError: a file was changed after its result was computed.
        """
        self._wanted = {str(file) for file in files}
        known = [file for file in files if str(file) in self._stamps]
        changed = [str(file) for file in known if not _is_unchanged(file, self._stamps[str(file)])]
        if changed:
            raise DataError(
                f"{len(changed):,} images have changed since {self.path} was written: {first_few(changed)}. Remove "
                "that file to begin anew"
            )
        return [file for file in files if str(file) not in self._stamps]

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append results; each has the name of its image under "file"."""
        lines = [json.dumps({**record, "stamp": _stamp(Path(record["file"]))}) + "\n" for record in records]
        self._file.write("".join(lines).encode())
        self._file.flush()

    def records(self) -> Iterator[dict[str, Any]]:
        """The results of the files that `remaining` was asked for, in the order in which they were computed."""
        self._file.flush()
        with self.path.open("rb") as lines:
            next(lines)
            for line in lines:
                record = _parsed(line)
                assert record is not None
                if record["file"] in self._wanted:
                    yield record

    def remove(self) -> None:
        """Delete the file, after the command has written its own."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> "PartialResults":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if error is not None and not isinstance(error, KeyboardInterrupt) and self._is_empty():
            self.remove()

    def _is_empty(self) -> bool:
        """Return whether the file is there and has no result."""
        if not self.path.exists():
            return False
        with self.path.open("rb") as lines:
            return sum(1 for _ in zip(lines, range(2), strict=False)) < 2


def _open_locked(path: Path) -> BufferedRandom:
    """Open a file for reading and appending, and make sure that no other process does.

    Raises:
        RecipeError: another process has it open.
        DataError: it is no regular file, but for example a pipe or a link.
    """
    while True:
        # The file is this command's own. Reading a device may never end.
        if os.path.lexists(path) and not has_file(path):
            raise DataError(f"{path}: a link, a pipe or a folder, where a regular file is expected: remove it")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        file = os.fdopen(os.open(path, flags, 0o666), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise RecipeError(f"another process is writing {path}: wait for its end, or write another file") from None
        # The process that held it may have finished, and removed the file, in between.
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
        file.close()


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _stamp(file: Path) -> Stamp:
    """Return what changes if somebody changes a file; zeros for one that is not there."""
    try:
        found = file.stat()
    except OSError:
        return 0, 0, 0
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _is_unchanged(file: Path, stamp: Stamp) -> bool:
    return _stamp(file)[: len(stamp)] == stamp
