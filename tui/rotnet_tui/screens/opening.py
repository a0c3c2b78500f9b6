"""What is shown while a screen or a question is being prepared."""

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen, Screen
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


class ReadingDialog(ModalScreen[None]):
    """Says that files are being read. Keys do nothing meanwhile but escape, after which the question does not come."""

    BINDINGS = [Binding("escape", "app.pop_screen", "Cancel")]

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def compose(self) -> ComposeResult:
        """The text."""
        with Vertical(classes="dialog"):
            yield Static(f"Reading {self._what} …   esc cancels.", markup=False)
