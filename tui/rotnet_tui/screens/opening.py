"""What is shown while a screen is being prepared."""

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Static


class OpeningScreen(Screen[None]):
    """A line of text. Escape goes back, and then the screen that was being prepared does not come."""

    BINDINGS = [Binding("escape", "app.pop_screen", "Back")]

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def compose(self) -> ComposeResult:
        """The text."""
        yield Static(f"Opening {self._what} …", id="opening", markup=False)
