"""Questions: before something is lost, and which charts to show."""

from collections.abc import Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static
from textual.widgets.input import Selection

from rotnet_keras.runs.diagnosis import Diagnosis
from rotnet_tui.state.metrics import layout_problem
from rotnet_tui.state.words import screen_text


class ConfirmDialog(ModalScreen[bool]):
    """Asks before an action; the result is true only after an explicit yes."""

    BINDINGS = [("y", "answer(True)", "Yes"), ("n,escape", "answer(False)", "No")]
    AUTO_FOCUS = "#no"

    def __init__(self, question: str, loss: str, command: str) -> None:
        super().__init__()
        self._question, self._loss, self._command = question, loss, command

    def compose(self) -> ComposeResult:
        """Question, what would be lost, command line, and two buttons."""
        with Vertical(classes="dialog"):
            yield Static(self._question, classes="question", markup=False)
            yield Static(self._loss, classes="loss", markup=False)
            yield Static(f"Same as: {self._command}", classes="command", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Yes (y)", variant="error", id="yes")
                yield Button("No (n)", id="no")

    def action_answer(self, answer: bool) -> None:
        """Close with an answer."""
        self.dismiss(answer)

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")


class TextDialog(ModalScreen[str | None]):
    """Asks for a text; the result is None if nothing shall change."""

    BINDINGS = [("escape", "dismiss(None)", "Cancel")]

    def __init__(self, title: str, value: str, explanation: str, command: str) -> None:
        super().__init__()
        self._title, self._value, self._explanation, self._command = title, value, explanation, command

    def compose(self) -> ComposeResult:
        """Title, field, explanation and command line."""
        with Vertical(classes="dialog"):
            yield Static(self._title, classes="question", markup=False)
            yield Input(self._value, id="dialog-text", select_on_focus=False, compact=True)
            yield Static(f"{self._explanation} enter accepts, esc cancels.", classes="help", markup=False)
            yield Static(f"Same as: rotnet-keras {self._command}", classes="command", markup=False)

    @on(Input.Submitted)
    def _accept(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip())


class DiagnosisDialog(ModalScreen[bool]):
    """Says why a run failed; the result is whether to copy the first command."""

    BINDINGS = [("escape,enter", "dismiss(False)", "Close"), ("y", "dismiss(True)", "Copy the command")]

    def __init__(self, name: str, found: Diagnosis, command: str) -> None:
        super().__init__()
        self._name, self._found, self._command = name, found, command

    def compose(self) -> ComposeResult:
        """The cause, the paragraph, the commands, and the command line that says the same."""
        with VerticalScroll(classes="dialog", id="diagnosis"):
            yield Static(screen_text(f"{self._name}: {self._found.cause}"), classes="question", markup=False)
            yield Static(screen_text(self._found.text), id="diagnosis-text", markup=False)
            for command in self._found.commands:
                yield Static(screen_text(command), classes="command", markup=False)
            keys = "y copies the first command, esc closes." if self._found.commands else "esc closes."
            yield Static(f"{keys} Same as: {self._command}", classes="help", markup=False)


class ChartsDialog(ModalScreen[tuple[str, list[str]] | None]):
    """Asks for a grid and the metrics of its charts; the result is both, or None if nothing shall change.

    Args:
        grid: columns and rows, such as "2x2".
        charts: the patterns of the charts.
        names: the metrics that there are.
    """

    BINDINGS = [("escape", "dismiss(None)", "Cancel")]
    AUTO_FOCUS = "#charts-patterns"

    def __init__(self, grid: str, charts: Sequence[str], names: Sequence[str]) -> None:
        super().__init__()
        self._grid, self._charts, self._names = grid, charts, names

    def compose(self) -> ComposeResult:
        """Two fields, what is wrong with them, and the metrics to choose from."""
        with Vertical(classes="dialog", id="charts-dialog"):
            yield Static("Arrange the charts", classes="question")
            with Horizontal(classes="field"):
                yield Static("charts", classes="label")
                yield Input(", ".join(self._charts), id="charts-patterns", compact=True, select_on_focus=False)
            with Horizontal(classes="field"):
                yield Static("grid", classes="label")
                yield Input(self._grid, id="charts-grid", compact=True)
            yield Static(
                "A comma separates charts, + the metrics of one chart; * stands for any letters. The grid is columns x "
                "rows, 1x1 to 3x3; more charts than cells make pages. enter accepts, esc cancels.",
                classes="help",
            )
            yield Static(id="charts-problem", classes="error", markup=False)
            with VerticalScroll(can_focus=False):
                yield Static(f"metrics: {', '.join(self._names) or 'none yet'}", markup=False)

    def on_mount(self) -> None:
        """Select all charts, so that typing replaces them, from the end on, so that the first ones are seen."""
        field = self.query_one("#charts-patterns", Input)
        field.selection = Selection(len(field.value), 0)

    def _values(self) -> tuple[str, list[str]]:
        patterns = self.query_one("#charts-patterns", Input).value.split(",")
        return self.query_one("#charts-grid", Input).value.strip(), [p.strip() for p in patterns if p.strip()]

    @on(Input.Changed)
    def _check(self) -> None:
        problem = layout_problem(*self._values(), self._names)
        self.query_one("#charts-problem", Static).update(problem)

    @on(Input.Submitted)
    def _accept(self) -> None:
        if not layout_problem(*self._values(), self._names):
            self.dismiss(self._values())
