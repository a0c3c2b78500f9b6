"""A table of the recipe in the form of a new run."""

import asyncio

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.widgets import Static

from rotnet_tui.state.words import screen_text
from rotnet_tui.widgets.field_row import FieldRow
from rotnet_tui.widgets.form_fields import FormField

# Fields that are mounted without looking at keys in between.
MOUNTED_AT_ONCE = 8


class SectionHeader(Static, can_focus=False):
    """The name of a table. One whose fields can be hidden is reached by `tab`, and opened and closed by `enter`."""

    BINDINGS = [Binding("enter", "fold", "Open or close", show=False)]

    class FoldAsked(Message):
        """The fields below are to be shown or hidden."""

    def action_fold(self) -> None:
        """Ask for the fields to be shown or hidden."""
        self.post_message(self.FoldAsked())

    def on_click(self, event: Click) -> None:
        """Do the same where the header can be focused."""
        event.stop()
        if self.can_focus:
            self.action_fold()


class FormSection(Vertical):
    """The name of a table, a line for an error of the whole table, and its fields.

    A form may have 200 fields, and each takes time to be made. Tables in which the recipe sets nothing, and those of a
    list, such as the probes, are closed at first. Their fields are made when they are opened.

    Args:
        fields: those of the table, at least one.
    """

    def __init__(self, fields: list[FormField]) -> None:
        super().__init__(classes="form-section")
        self.fields = fields
        self.key = fields[0].section
        in_list = self.key.rpartition(".")[2].isdigit()
        # The keys outside of any table come first, and are always shown.
        self.foldable = bool(self.key) and (in_list or not any(field.is_set for field in fields))
        self._header = SectionHeader(classes="section", markup=False)
        self._header.can_focus = self.foldable
        self._error = Static(classes="error section-error", markup=False)
        self._error.display = False
        self._rows = Vertical(classes="rows")
        self._rows.display = False

    def compose(self) -> ComposeResult:
        """The header, the line for an error, and the fields that are open."""
        yield self._header
        yield self._error
        yield self._rows

    async def on_mount(self) -> None:
        """Show the fields that are not closed at first."""
        self._title()
        if not self.foldable:
            await self.open()

    async def open(self) -> None:
        """Show the fields; they are made the first time."""
        self._rows.display = True
        self._title()
        if self._rows.children:
            return
        for first in range(0, len(self.fields), MOUNTED_AT_ONCE):
            if not self.is_attached:
                return
            await self._rows.mount_all(map(FieldRow, self.fields[first : first + MOUNTED_AT_ONCE]))
            await asyncio.sleep(0)

    def close(self) -> None:
        """Hide the fields; what was typed into them stays."""
        self._rows.display = False
        self._title()

    async def on_section_header_fold_asked(self) -> None:
        """Open or close the section."""
        if self.is_open:
            self.close()
        else:
            await self.open()

    @property
    def is_open(self) -> bool:
        """Whether the fields are shown."""
        return self._rows.display

    def rows(self) -> list[FieldRow]:
        """The rows that have been made; none as long as the section has not been opened."""
        return [row for row in self._rows.children if isinstance(row, FieldRow)]

    def shape(self) -> tuple:
        """What the section depends on besides values; see `section_shape`."""
        return section_shape(self.fields)

    def set_fields(self, fields: list[FormField]) -> None:
        """Take over the values of another recipe for the same keys."""
        self.fields = fields
        for row, field in zip(self.rows(), fields, strict=False):
            row.set_field(field)
        self._title()

    def show_error(self, message: str) -> None:
        """Show an error of the whole table; an empty message removes it."""
        self._error.update(message)
        self._error.display = bool(message)

    @property
    def help(self) -> str:
        """What `enter` does on the header."""
        return f"{self.key}: enter {'hides' if self.is_open else 'shows'} the {len(self.fields)} settings of this table"

    def _title(self) -> None:
        """Name the table; of a closed one, say what the recipe sets there, or what was typed instead."""
        title, known = self.key or "recipe", ""
        if self.foldable:
            title = f"{'▾' if self.is_open else '▸'} {title}"
        if not self.is_open:
            typed = {row.field.key: row.value() for row in self.rows()}
            pairs = [(field, typed.get(field.key, field.value)) for field in self.fields]
            values = [f"{field.label} = {value}" for field, value in pairs if field.is_set or value != field.value]
            known = f"   {', '.join(values) or 'all defaults'}"
        self._header.update(Content.assemble((screen_text(title), "bold"), (screen_text(known), "not bold dim")))


def section_shape(fields: list[FormField]) -> tuple:
    """What the widgets of a table depend on besides values. They are reused for a recipe with tables of equal shape."""
    is_set = any(field.is_set for field in fields)
    return is_set, *((field.key, field.choices, bool(field.choices and not field.value)) for field in fields)
