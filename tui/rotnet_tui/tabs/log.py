"""The run's log: followed, searched, and filtered by level."""

import re
from collections import deque

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.widgets import Input, RichLog, Static

from rotnet_tui.state.history import History
from rotnet_tui.state.words import printable
from rotnet_tui.tabs.base import Pane

KEPT_LINES = 5000
FIRST_READ = 512 * 1024
LEVELS = ("all", "warnings", "errors")
WARNING = re.compile(r"warning|\bW\d{4}\b|^W0000|stopped", re.IGNORECASE)
ERROR = re.compile(r"error|exception|traceback|\bE\d{4}\b|killed", re.IGNORECASE)
TRACEBACK = "Traceback (most recent call last)"


class LogView(Pane):
    """The end of `log.txt`."""

    def __init__(self) -> None:
        super().__init__(id="log")
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._offset: int | None = None
        self._rest = b""
        self._level = 0
        self._folded = True
        self._history: History | None = None

    def compose(self) -> ComposeResult:
        """A headline, the lines, and a search field that comes when called."""
        yield Static(id="log-head")
        yield RichLog(id="log-lines", max_lines=KEPT_LINES, wrap=True, min_width=20)
        yield Input(placeholder="search; esc clears", id="log-search", compact=True)

    def on_mount(self) -> None:
        """The search field is hidden until it is called."""
        self.query_one("#log-search").display = False

    def show(self, history: History, state: str) -> None:
        """Add what has come since the last time."""
        self._history = history
        before = len(self._lines)
        if self._read(history):
            self._refill()
        elif before == 0:
            self.query_one("#log-head", Static).update(f"No log yet: the run is {state}.")

    def toggle_follow(self) -> None:
        """Keep the newest line in view, or stay where one reads."""
        self.settings.follow = not self.settings.follow
        self._refill()

    def next_level(self) -> None:
        """Show all lines, only warnings and errors, or only errors."""
        self._level = (self._level + 1) % len(LEVELS)
        self._refill()

    def toggle_fold(self) -> None:
        """Fold tracebacks to their last line, or unfold them."""
        self._folded = not self._folded
        self._refill()

    def search(self) -> None:
        """Open the search field."""
        field = self.query_one("#log-search", Input)
        field.display = True
        field.focus()

    def clear_search(self) -> bool:
        """Close the search field; whether it was open."""
        field = self.query_one("#log-search", Input)
        if not field.display:
            return False
        field.value = ""
        field.display = False
        self.query_one("#log-lines").focus()
        return True

    @on(Input.Changed, "#log-search")
    def _searched(self) -> None:
        self._refill()

    @on(Input.Submitted, "#log-search")
    def _submitted(self) -> None:
        self.query_one("#log-lines").focus()

    def _read(self, history: History) -> bool:
        """Read the file's new part; whether there was one."""
        try:
            size = history.run.log.stat().st_size
            if self._offset is None or size < self._offset:
                self._offset = max(0, size - FIRST_READ)
                self._lines.clear()
                self._rest = b""
            if size == self._offset:
                return False
            with history.run.log.open("rb") as file:
                file.seek(self._offset)
                content = self._rest + file.read(size - self._offset)
        except OSError:
            return False
        self._offset = size
        *lines, self._rest = content.split(b"\n")
        self._lines.extend(printable(line.decode("utf-8", "replace")) for line in lines)
        return bool(lines)

    def _refill(self) -> None:
        log = self.query_one("#log-lines", RichLog)
        wanted = self.query_one("#log-search", Input).value.lower()
        colors = self.app.theme_variables
        shown = [line for line in self._chosen() if wanted in line.lower()]
        log.auto_scroll = self.settings.follow
        top, width = log.scroll_offset.y, max(20, log.scrollable_content_region.width)
        log.clear()
        for line in shown:
            style = (
                colors["text-error"] if ERROR.search(line) else colors["text-warning"] if WARNING.search(line) else ""
            )
            text = Text(line, style=style)
            if wanted:
                text.highlight_regex(re.compile(re.escape(wanted), re.IGNORECASE), f"reverse {colors['text-accent']}")
            log.write(text, width=width, scroll_end=self.settings.follow)
        if not self.settings.follow:
            log.scroll_to(y=top, animate=False)
        words = [f"{len(shown)} of {len(self._lines)} lines", f"[b]l[/] {LEVELS[self._level]}"]
        words.append(f"[b]f[/] {'following' if self.settings.follow else 'standing still'}")
        words += ["[b]/[/] search", f"[b]u[/] tracebacks {'folded' if self._folded else 'unfolded'}"]
        unreadable = self._history.reader.unreadable if self._history else 0
        if unreadable:
            words.append(f"{unreadable} unreadable lines of events.jsonl passed over")
        self.query_one("#log-head", Static).update("   ".join(words), layout=False)

    def _chosen(self) -> list[str]:
        lines = _folded(self._lines) if self._folded else list(self._lines)
        if LEVELS[self._level] == "errors":
            return [line for line in lines if ERROR.search(line)]
        if LEVELS[self._level] == "warnings":
            return [line for line in lines if ERROR.search(line) or WARNING.search(line)]
        return lines


def _folded(lines: "deque[str]") -> list[str]:
    """The lines with every traceback as its last line alone."""
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
