"""A row of the form of a new run."""

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input, Select, Static

from rotnet_tui.widgets.form_fields import FormField


class Choice(Select):
    """A list to choose from that may be removed while it is still being mounted, as when a form is closed at once.

    Textual's own would fill its parts when they are gone already, which ends the application.
    """

    def on_mount(self, event: events.Mount) -> None:
        """Leave out what Textual's list does here if its parts were removed before it was done."""
        parts = self.query("SelectCurrent #label"), self.query("SelectOverlay")
        if not all(parts):
            event.prevent_default()


class FieldRow(Horizontal):
    """One key of the recipe: its name and its value. An error is shown below the row.

    A form may have 200 rows, so a row has as few widgets as possible; that of the error is made when needed.
    """

    def __init__(self, field: FormField) -> None:
        super().__init__(classes="field")
        self.field = field
        self._control = _select(field) if field.choices else _input(field)
        self._error: Static | None = None

    def compose(self) -> ComposeResult:
        """The label and the control."""
        yield Static(self.field.label, classes="label", markup=False)
        yield self._control

    def value(self) -> str:
        """The value in the control; empty if none is set."""
        if isinstance(self._control, Select):
            chosen = self._control.value
            return "" if chosen is Select.NULL else str(chosen)
        return self._control.value.strip()

    def set_field(self, field: FormField) -> None:
        """Take over the value of another recipe for the same key."""
        self.field = field
        if isinstance(self._control, Select):
            self._control.value = field.value or Select.NULL
        else:
            self._control.value = field.value

    def show_error(self, message: str) -> None:
        """Show an error below the row; an empty message removes it."""
        self.set_class(bool(message), "-wrong")
        if message and self._error is None and isinstance(self.parent, Widget):
            self._error = Static(classes="error field-error", markup=False)
            self.parent.mount(self._error, after=self)
        if self._error is not None:
            self._error.update(message)
            self._error.display = bool(message)

    @property
    def error(self) -> str:
        """The error that is shown; empty if there is none."""
        return str(self._error.content) if self._error is not None else ""


def _select(field: FormField) -> Choice:
    options = [(choice, choice) for choice in field.choices or ()]
    value = field.value or Select.NULL
    return Choice(options, value=value, allow_blank=not field.value, prompt="not set", compact=True)


def _input(field: FormField) -> Input:
    return Input(field.value, placeholder="not set", compact=True, select_on_focus=False)
