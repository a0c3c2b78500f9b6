"""What a run says while it works: bars and tables on a terminal, plain lines in `log.txt`."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from rotnet_keras.text import printable

PLAIN_SECONDS = 15.0
# More columns of text than any table has.
WIDEST = 10_000


class _Tolerant:
    """A text stream that goes silent when its terminal is closed, instead of raising."""

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
    """Speaks to the log, and to the terminal the run was started from, if there is one.

    While it is open, this process's standard output and error go to the log, so that what TensorFlow
    and Python's warnings write is kept but does not tear the progress bar.
    """

    def __init__(self, log: Path) -> None:
        self._log = log.open("a", encoding="utf-8", buffering=1)
        detached = os.path.sameopenfile(1, self._log.fileno()) if _is_open(1) else True
        self._terminal: RichConsole | None = None
        if not detached:
            outer = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace", buffering=1)
            self._terminal = RichConsole(file=_Tolerant(outer), highlight=False)  # type: ignore[arg-type]
        for descriptor in (1, 2):
            os.dup2(self._log.fileno(), descriptor)
        self._bar: Progress | None = None
        self._what = ""
        self._started = self._spoke = 0.0

    def line(self, text: str) -> None:
        """Say one thing; a bar stays below it."""
        text = printable(text)
        self._log.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        if self._terminal:
            self._terminal.print(text, markup=False, soft_wrap=True)

    def progress(self, what: str, done: float, total: int, text: str = "") -> None:
        """Report that `done` of `total` are done; `text` says how it goes. A new `what` begins a new bar.

        Where one of them takes long, `done` may have a fraction; it counts for the time that is left.
        """
        now = time.monotonic()
        if what != self._what:
            self._close_bar()
            self._what, self._started, self._spoke = what, now, now
            self._first = done
        if self._terminal and self._terminal.is_terminal:
            self._draw(what, done, total, text)
        if done >= total:
            self._close_bar()
        elif now - self._spoke < PLAIN_SECONDS:
            return
        self._spoke = now
        self._plain(what, done, total, text, now - self._started)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show a table, on its side where it is too wide and not as high as that."""
        self._close_bar()
        log = RichConsole(file=self._log, width=100, highlight=False)
        for console in filter(None, (log, self._terminal)):
            table = _as_table(columns, rows)
            width = console.measure(table, options=console.options.update(max_width=WIDEST)).maximum
            if width > console.width and len(columns) > len(rows) + 1:
                first, *others = zip(columns, *rows, strict=True)
                table = _as_table(first, others)
            console.print(title, style="bold", markup=False, soft_wrap=True)
            console.print(table)

    def close(self) -> None:
        """Finish the bar."""
        self._close_bar()
        self._log.flush()

    def _draw(self, what: str, done: float, total: int, text: str) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("[cyan]{task.fields[text]}"),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                console=self._terminal,
                speed_estimate_period=120,
            )
            self._bar.start()
            self._task = self._bar.add_task(what, total=total, completed=int(done), text=text)
        self._bar.update(self._task, completed=done, total=total, text=text)

    def _plain(self, what: str, done: float, total: int, text: str, seconds: float) -> None:
        timing = []
        if done >= total:
            timing = [f"took {_clock(seconds)}"]
        elif done > self._first:
            timing = [f"ETA {_clock(seconds / (done - self._first) * (total - done))}"]
        line = ", ".join([f"{what}: {int(done)}/{total}", *([text] if text else []), *timing])
        self._log.write(f"{time.strftime('%H:%M:%S')} {line}\n")
        if self._terminal and not self._terminal.is_terminal:
            self._terminal.print(line, markup=False, soft_wrap=True)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._what = ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _as_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """All columns but the first are aligned to the right."""
    table = Table()
    for i, column in enumerate(columns):
        table.add_column(Text(printable(column)), justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table
