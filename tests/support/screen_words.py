"""What the terminal UI shows, in words, and waiting for it."""

import io
import time

from rich.console import Console
from textual.widgets import Static


def text_of(app, selector):
    """The text of a widget; empty as long as it is not there."""
    return "".join(str(widget.render()) for widget in app.screen.query(selector).results(Static))


def shown(app, selector):
    """What a widget draws, as plain text; empty as long as it is not there."""
    console = Console(width=100, file=io.StringIO())
    for widget in app.screen.query(selector).results(Static):
        console.print(widget.content)
    return console.file.getvalue()


def drawn(app):
    """All that is on the screen, as it would be sent to a terminal but for the colours."""
    return "".join(segment.text for line in app.screen._compositor.render_strips() for segment in line)


async def until(pilot, condition, seconds=15):
    """Wait until something holds; the clock of the app goes on meanwhile."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        await pilot.pause(0.05)
