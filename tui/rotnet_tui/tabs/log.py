"""The log of a run: followed, searched, and filtered by level."""

import os
import re
from collections import deque
from collections.abc import Iterable

from rich.text import Text
from textual import on
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, RichLog, Static

from rotnet_keras.files import open_file
from rotnet_tui.settings import Settings
from rotnet_tui.state.history import History
from rotnet_tui.state.words import screen_text
from rotnet_tui.tabs.base import RunTab

MAX_LINES = 5000
# Bytes from the end of the file that are read at first.
FIRST_READ = 512 * 1024
# When more has been added than this, only the end is read, as at first.
MAX_READ = 16 * FIRST_READ
# Bytes of a line that are shown.
MAX_LINE = 4096
# Columns that a key scrolls to the side.
SIDE_STEP = 20
LEVELS = ("all", "warnings", "errors")
WARNING = re.compile(r"warning|\bW\d{4}\b|^W0000|stopped", re.IGNORECASE)
ERROR = re.compile(r"error|exception|traceback|\bE\d{4}\b|killed", re.IGNORECASE)
TRACEBACK = "Traceback (most recent call last)"


class LogTab(RunTab):
    """The end of `log.txt`."""

    def __init__(self, settings: Settings, *, id: str) -> None:
        super().__init__(settings, id=id)
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        self._offset: int | None = None
        self._unfinished_line = b""
        # What was read and is not shown yet, and whether it follows what is shown.
        self._read: list[tuple[bytes, bool]] = []
        self._level = 0
        self._folded = True
        self._history: History | None = None
        self._unreadable = 0

    def contents(self) -> Iterable[Widget]:
        """A headline, the lines, and a search field that is hidden at first."""
        yield Static(id="log-head")
        yield RichLog(id="log-lines", max_lines=MAX_LINES, wrap=False, min_width=0)
        search = Input(placeholder="search; esc clears", id="log-search", compact=True)
        search.display = False
        yield search

    def show(self, history: History, state: str) -> None:
        """Add the lines that are new since the last call."""
        self._history = history
        before = len(self._lines)
        # The log may have been read before the events were.
        if self._take() or history.reader.unreadable != self._unreadable:
            self._refill()
        elif before == 0:
            self.query_one("#log-head", Static).update(Content(f"No log yet: the run is {state}."))

    def toggle_follow(self) -> None:
        """Keep the newest line in view, or keep the position."""
        self.settings.follow = not self.settings.follow
        self._refill()

    def next_level(self) -> None:
        """Switch between all lines, warnings and errors, and errors only."""
        self._level = (self._level + 1) % len(LEVELS)
        self._refill()

    def toggle_fold(self) -> None:
        """Fold tracebacks to their last line, or unfold them."""
        self._folded = not self._folded
        self._refill()

    def toggle_wrap(self) -> None:
        """Wrap long lines, or leave them on one row, where they can be scrolled and selected."""
        self.settings.wrap_log = not self.settings.wrap_log
        self._refill()

    def sideways(self, by: int) -> None:
        """Scroll long lines."""
        log = self.query_one("#log-lines", RichLog)
        log.scroll_relative(x=by * SIDE_STEP, animate=False)

    def search(self) -> None:
        """Open the search field."""
        field = self.query_one("#log-search", Input)
        field.display = True
        field.focus()

    def clear_search(self) -> bool:
        """Close the search field; returns whether it was open."""
        field = self.query_one("#log-search", Input)
        if not field.display:
            return False
        field.value = ""
        field.display = False
        self.query_one("#log-lines").focus()
        return True

    @on(Input.Changed, "#log-search")
    def _search_changed(self) -> None:
        self._refill()

    @on(Input.Submitted, "#log-search")
    def _search_submitted(self) -> None:
        self.query_one("#log-lines").focus()

    def fetch(self, history: History) -> None:
        """Read what was added to the file."""
        try:
            with open_file(history.run.log, history.run.path) as file:
                size = file.seek(0, os.SEEK_END)
                follows = self._offset is not None and 0 <= size - self._offset <= MAX_READ
                start = self._offset if self._offset is not None and follows else max(0, size - FIRST_READ)
                if size == start and follows:
                    return
                file.seek(start)
                content = file.read(size - start)
        except OSError:
            return
        self._offset = size
        self._read.append((content, follows))

    def _take(self) -> bool:
        """Take the lines of what was read; returns whether there are new ones."""
        found = False
        while self._read:
            content, follows = self._read.pop(0)
            if not follows:
                self._lines.clear()
                self._unfinished_line = b""
            *lines, rest = (self._unfinished_line + content).split(b"\n")
            self._unfinished_line = rest[-MAX_LINE:]
            self._lines.extend(screen_text(line[:MAX_LINE].decode("utf-8", "replace")) for line in lines)
            found |= bool(lines)
        return found

    def _refill(self) -> None:
        log = self.query_one("#log-lines", RichLog)
        wanted = self.query_one("#log-search", Input).value.lower()
        colors = self.app.theme_variables
        shown = [line for line in self._filtered_lines() if wanted in line.lower()]
        log.auto_scroll, log.wrap = self.settings.follow, self.settings.wrap_log
        left, top, width = log.scroll_offset.x, log.scroll_offset.y, max(20, log.scrollable_content_region.width)
        log.clear()
        for line in shown:
            style = (
                colors["text-error"] if ERROR.search(line) else colors["text-warning"] if WARNING.search(line) else ""
            )
            text = Text(line, style=style)
            if wanted:
                text.highlight_regex(re.compile(re.escape(wanted), re.IGNORECASE), f"reverse {colors['text-accent']}")
            log.write(text, width=width if log.wrap else None, scroll_end=self.settings.follow)
        log.scroll_to(x=left, y=None if self.settings.follow else top, animate=False)
        words = [f"{len(shown)} of {len(self._lines)} lines", f"[b]l[/] level: {LEVELS[self._level]}"]
        words.append(f"[b]f[/] {'following' if self.settings.follow else 'not following'}")
        words += ["[b]/[/] search", f"[b]u[/] tracebacks {'folded' if self._folded else 'unfolded'}"]
        words.append("[b]v[/] wrapped" if log.wrap else "[b]← →[/] scroll   [b]v[/] wrap")
        self._unreadable = self._history.reader.unreadable if self._history else 0
        if self._unreadable:
            words.append(f"{self._unreadable} unreadable lines in events.jsonl")
        self.query_one("#log-head", Static).update(Content.from_markup("   ".join(words)), layout=False)

    def _filtered_lines(self) -> list[str]:
        lines = _fold_tracebacks(self._lines) if self._folded else list(self._lines)
        if LEVELS[self._level] == "errors":
            return [line for line in lines if ERROR.search(line)]
        if LEVELS[self._level] == "warnings":
            return [line for line in lines if ERROR.search(line) or WARNING.search(line)]
        return lines


def _fold_tracebacks(lines: Iterable[str]) -> list[str]:
    """The lines, each traceback reduced to its last line."""
    folded: list[str] = []
    hidden: int | None = None
    for line in lines:
        if TRACEBACK in line:
            hidden = 0
        if hidden is None:
            folded.append(line)
        elif line.startswith((" ", "\t")) or TRACEBACK in line or not line:
            hidden += 1
        else:
            folded.append(f"{line}  ({hidden} lines of traceback folded)")
            hidden = None
    return folded
