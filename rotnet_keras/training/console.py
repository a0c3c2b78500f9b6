"""What a run prints: progress bars and tables on a terminal, plain lines in `log.txt`."""

import io
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from rotnet_keras.files import open_to_append
from rotnet_keras.text import duration, printable

# Seconds between two lines of the same progress in the log.
LOG_INTERVAL = 15.0
# A width in characters that no table reaches.
UNLIMITED_WIDTH = 10_000


class _ClosableStream:
    """A text stream that drops what is written after its terminal was closed, instead of raising."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return

    def isatty(self) -> bool:
        try:
            return self._stream.isatty()
        except ValueError:
            return False

    def fileno(self) -> int:
        return self._stream.fileno()


class Console:
    """Prints to the log, and to the terminal that the run was started from, if there is one.

    While it exists, standard output and error of this process go to the log, so that the messages of TensorFlow and
    Python's warnings are kept but do not break the progress bar.

    Args:
        log: the file, to which lines are appended.
    """

    def __init__(self, log: Path) -> None:
        self._log = io.TextIOWrapper(open_to_append(log, log.parent), encoding="utf-8", line_buffering=True)
        detached = os.path.sameopenfile(1, self._log.fileno()) if _is_open(1) else True
        self._terminal: RichConsole | None = None
        if not detached:
            outer = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace", buffering=1)
            self._terminal = RichConsole(file=_ClosableStream(outer), highlight=False)  # type: ignore[arg-type]
        self._before = {descriptor: os.dup(descriptor) for descriptor in (1, 2) if _is_open(descriptor)}
        for descriptor in (1, 2):
            os.dup2(self._log.fileno(), descriptor)
        self._bar: Progress | None = None
        self._label = ""
        self._started = self._last_logged = 0.0

    def line(self, text: str) -> None:
        """Print a line, above the progress bar if there is one, and log it with the time of day."""
        text = printable(text)
        self._write(text)
        if self._terminal:
            self._terminal.print(text, markup=False, soft_wrap=True)

    def progress(self, label: str, done: float, total: int, text: str = "", count: int | None = None) -> None:
        """Update a progress bar on the terminal; in the log, write a line every 15 seconds and one at the end.

        Args:
            label: the name of the bar; a new label starts a new bar.
            done: of `total`; may have a fraction where a single item takes long, which improves the ETA.
            total: where the bar ends.
            text: shown beside the bar, for example the present loss.
            count: the number that is shown as done; by default the whole part of `done`.
        """
        count = int(done) if count is None else count
        now = time.monotonic()
        if label != self._label:
            self._close_bar()
            self._label, self._started, self._last_logged = label, now, now
            self._first = done
        if self._terminal and self._terminal.is_terminal:
            self._draw(label, done, total, text, count)
        if done >= total:
            self._close_bar()
        elif now - self._last_logged < LOG_INTERVAL:
            return
        self._last_logged = now
        self._plain(label, done, total, text, count, now - self._started)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; transposed where it is too wide and has fewer rows than columns."""
        self._close_bar()
        log = RichConsole(file=self._log, width=100, highlight=False)
        for console in filter(None, (log, self._terminal)):
            table = _as_table(columns, rows)
            width = console.measure(table, options=console.options.update(max_width=UNLIMITED_WIDTH)).maximum
            if width > console.width and len(columns) > len(rows) + 1:
                first, *others = zip(columns, *rows, strict=True)
                table = _as_table(first, others)
            console.print(title, style="bold", markup=False, soft_wrap=True)
            console.print(table)

    def close(self) -> None:
        """Remove the progress bar and flush the log."""
        self._close_bar()
        with suppress(OSError):
            self._log.flush()

    def give_back(self) -> None:
        """Let standard output and error go where they went before."""
        for descriptor, before in self._before.items():
            os.dup2(before, descriptor)

    def _write(self, text: str) -> None:
        """Log a line. On a full disk it is dropped, so that it can still be printed."""
        with suppress(OSError):
            self._log.write(f"{time.strftime('%H:%M:%S')} {text}\n")

    def _draw(self, label: str, done: float, total: int, text: str, count: int) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("[progress.download]{task.fields[count]}/{task.total}"),
                TextColumn("[cyan]{task.fields[text]}"),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                console=self._terminal,
                speed_estimate_period=120,
            )
            self._bar.start()
            self._task = self._bar.add_task(label, total=total, completed=int(done), text=text, count=count)
        self._bar.update(self._task, completed=done, total=total, text=text, count=count)

    def _plain(self, label: str, done: float, total: int, text: str, count: int, seconds: float) -> None:
        timing = []
        if done >= total:
            timing = [f"took {duration(seconds)}"]
        elif done > self._first:
            timing = [f"ETA {duration(seconds / (done - self._first) * (total - done))}"]
        line = ", ".join([f"{label}: {count}/{total}", *([text] if text else []), *timing])
        self._write(line)
        if self._terminal and not self._terminal.is_terminal:
            self._terminal.print(line, markup=False, soft_wrap=True)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._label = ""


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _as_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose columns are aligned to the right, except the first."""
    table = Table()
    for i, column in enumerate(columns):
        table.add_column(Text(printable(column)), justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table
