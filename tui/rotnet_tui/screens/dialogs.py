"""Questions before something is lost, each with the command line that does the same."""

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static


class Confirm(ModalScreen[bool]):
    """Asks before an action; the answer is yes only when yes was said."""

    BINDINGS = [("y", "answer(True)", "Yes"), ("n,escape", "answer(False)", "No")]
    AUTO_FOCUS = "#no"

    def __init__(self, question: str, consequences: str, command: str) -> None:
        super().__init__()
        self._texts = question, consequences, command

    def compose(self) -> ComposeResult:
        """Question, consequences, command, and two buttons."""
        question, consequences, command = self._texts
        with Vertical(classes="dialog"):
            yield Static(question, classes="question", markup=False)
            yield Static(consequences, markup=False)
            yield Static(f"Same as: {command}", classes="command", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Yes (y)", variant="error", id="yes")
                yield Button("No (n)", id="no")

    def action_answer(self, answer: bool) -> None:
        """Close with an answer."""
        self.dismiss(answer)

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")
