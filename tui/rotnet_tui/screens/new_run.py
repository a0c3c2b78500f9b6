"""The form of a new run: every key of a recipe, validated while the user types."""

import asyncio
import json
from contextlib import suppress
from typing import Any

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.widgets import Button, Footer, Input, Select, Static

from rotnet_keras.config.loading import load_recipe, parse_override
from rotnet_keras.config.schema import ClassifyRecipe, PretrainRecipe, ProbeRecipe, Recipe, RunRecipe
from rotnet_keras.config.sections import AnnotatedData, Data
from rotnet_keras.config.study import StudyRecipe
from rotnet_keras.config.transfer import SegmentationRecipe, TransferRecipe
from rotnet_keras.data.sizes import count_annotated_images, count_training_images
from rotnet_keras.errors import RecipeError, RotnetError
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.launch import find_backbone
from rotnet_tui.commands import Commands
from rotnet_tui.messages import OpenRun, Perform
from rotnet_tui.state.index import RunIndex
from rotnet_tui.state.recipes import list_recipes
from rotnet_tui.state.words import screen_text, thousands
from rotnet_tui.widgets.field_row import Choice, FieldRow
from rotnet_tui.widgets.form_fields import form_sections
from rotnet_tui.widgets.form_section import FormSection, SectionHeader, section_shape

# Validation begins so long after the last key.
TYPING_PAUSE_SECONDS = 0.15
READING = "Reading the recipe …"


class NewRunScreen(Screen[None]):
    """The fields of a recipe on top, a summary of the run below."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]
    BINDINGS = [
        Binding("f2", "start", "Start now", id="start"),
        Binding("f3", "queue", "Add to queue", id="queue"),
        Binding("f4", "copy", "Copy command", id="copy_command"),
        Binding("escape", "app.pop_screen", "Cancel"),
    ]
    HELP = """\
`tab` moves to the next field. Values are written in TOML, as on the command line. A table in which the recipe sets
nothing is one line, and so is each probe: `enter` shows its fields. `f2` starts the run in the background, where it
continues even if you close this terminal. `f3` adds it to the queue. A form with errors cannot be started.
"""

    def __init__(self, recipe: str | None, commands: Commands, index: RunIndex) -> None:
        super().__init__()
        self.commands = commands
        self.index = index
        self._recipe = recipe or "quickstart"
        self._problem = ""
        self._timer: Any = None
        self._data: Data | AnnotatedData | None = None
        self._images: int | None = None
        # Whether all fields of the recipe are there.
        self._complete = False

    def compose(self) -> ComposeResult:
        """Recipe and name, the fields, the summary, and the buttons."""
        with Horizontal(id="form-head"):
            yield Static("recipe", classes="label")
            # Its options come once the recipes have been read.
            yield Choice(
                [(Content(screen_text(self._recipe)), self._recipe)],
                value=self._recipe,
                allow_blank=False,
                id="recipe-choice",
                compact=True,
            )
            yield Static("name", classes="label", id="name-label")
            yield Input(placeholder="recipe and time", id="run-name", compact=True)
        yield VerticalScroll(id="fields", can_focus=False)
        with Vertical(id="form-summary"):
            yield Static(id="form-help", markup=False)
            yield Static(id="form-steps", markup=False)
            yield Static(id="form-command", markup=False)
            yield Static(id="form-error", markup=False)
        with Horizontal(id="form-buttons"):
            yield Button("Start now (f2)", variant="success", id="start", compact=True)
            yield Button("Add to queue (f3)", variant="primary", id="queue", compact=True)
            yield Button("Cancel (esc)", id="cancel", compact=True)
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Set the titles."""
        self.query_one("#form-head").border_title = "new run"
        self.query_one("#form-summary").border_title = "summary"
        self.query_one("#form-steps", Static).update(READING)
        self.call_after_refresh(self._offer_recipes)

    @work
    async def _offer_recipes(self) -> None:
        """Read what recipes there are, and let people choose one."""
        entries = await asyncio.to_thread(list_recipes)
        if not self.is_current:
            return
        choice = self.query_one("#recipe-choice", Select)
        while not choice.is_mounted:  # Until then it has no list for its options.
            await asyncio.sleep(0.01)
        known = [entry.argument for entry in entries]
        if self._recipe not in known:
            self._recipe = known[0]
        with choice.prevent(Select.Changed):
            choice.set_options([(Content(screen_text(entry.name)), entry.argument) for entry in entries])
            choice.value = self._recipe
        self._show_recipe()

    @on(Select.Changed, "#recipe-choice")
    def _recipe_chosen(self, event: Select.Changed) -> None:
        """Show the fields of the chosen recipe."""
        if str(event.value) != self._recipe:
            self._recipe = str(event.value)
            self._complete = False
            self.query_one("#form-command", Static).update("")
            self.query_one("#form-steps", Static).update(READING)
            self.query_one("#form-steps").display = True
            self._show_recipe()

    @work(exclusive=True, group="recipe")
    async def _show_recipe(self) -> None:
        """Read the recipe in a thread, then show its fields, a few at a time, so that keys are answered meanwhile."""
        fields = self.query_one("#fields", VerticalScroll)
        self._complete = False
        try:
            recipe = await asyncio.to_thread(load_recipe, self._recipe)
        except RotnetError as error:
            self._problem = str(error)
            await fields.remove_children()
            await fields.mount(Static(self._problem, classes="error", markup=False))
            return
        if self not in self.app.screen_stack:
            return
        # An earlier recipe's fields may still be in the making.
        while not all(widget.is_mounted for widget in fields.query("*")):
            await asyncio.sleep(0.01)
        new = form_sections(recipe)
        sections = self._sections()
        if [section.shape() for section in sections] == [section_shape(part) for part in new]:
            async with fields.batch():
                for section, part in zip(sections, new, strict=True):
                    section.set_fields(part)
        else:
            await fields.remove_children()
            before: FormSection | None = None
            for part in new:
                if self not in self.app.screen_stack:
                    return
                section = FormSection(part)
                section.set_class(before is not None and before.foldable and not section.foldable, "-after-closed")
                await fields.mount(section)
                before = section
                await asyncio.sleep(0)
        self._complete = True
        await self._check()

    def on_descendant_focus(self) -> None:
        """Describe the focused field."""
        self._show_help()

    @on(SectionHeader.FoldAsked)
    def _show_help(self) -> None:
        """Describe the focused field or table."""
        row = table = None
        for node in self.focused.ancestors_with_self if self.focused else ():
            row = node if isinstance(node, FieldRow) else row
            table = node if isinstance(node, FormSection) else table
        words = "tab: next field   enter: open the list   f2: start   f3: add to queue"
        if row:
            words = f"{row.field.key}: {row.field.description}".removesuffix(": ")
        elif table:
            words = table.help
        self.query_one("#form-help", Static).update(words)

    @on(Input.Changed)
    @on(Select.Changed)
    def _changed(self) -> None:
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(TYPING_PAUSE_SECONDS, self._check)

    def _sections(self) -> list[FormSection]:
        return list(self.query(FormSection))

    def overrides(self) -> list[str]:
        """The values that differ from the recipe, as `key=value`."""
        words = []
        for row in self.query(FieldRow):
            value = row.value()
            if value == row.field.value:
                continue
            if row.field.is_string and not row.field.choices:
                try:
                    plain = parse_override(f"{row.field.key}={value}")[1] == value
                except RecipeError:
                    plain = False
                value = value if plain else json.dumps(value, ensure_ascii=False)
            words.append(f"{row.field.key}={value}")
        return words

    def _arguments(self) -> list[str]:
        name = self.query_one("#run-name", Input).value.strip()
        return [self._recipe, *self.overrides(), *(["--name", name] if name else [])]

    async def _check(self) -> None:
        """Validate the form; show errors at their fields, and a summary of the run."""
        if self._complete:
            with suppress(NoMatches):  # The screen may be closed while recipes and data are being read.
                await self._validate()

    async def _validate(self) -> None:
        shown = self._recipe
        problems: dict[tuple, str] = {}
        self._problem, size = "", ""
        overrides: dict[str, Any] = {}
        for word in self.overrides():
            try:
                key, value = parse_override(word)
                overrides[key] = value
            except RecipeError:
                key = word.partition("=")[0]
                problems[tuple(key.split("."))] = "not a valid TOML value"
        for row in self.query(FieldRow):
            if not row.value() and row.field.value:
                problems[tuple(row.field.key.split("."))] = f"a value is required; the recipe has {row.field.value}"
                overrides.pop(row.field.key, None)
        try:
            recipe = await asyncio.to_thread(load_recipe, self._recipe, overrides)
            if isinstance(recipe, RunRecipe) and recipe.data != self._data:
                # In a thread, since a folder may hold a million files.
                self._data, self._images = recipe.data, None
                self._images = await asyncio.to_thread(count_training_images, recipe.data)
            elif isinstance(recipe, TransferRecipe) and recipe.data != self._data:
                self._data, self._images = recipe.data, None
                masks = isinstance(recipe, SegmentationRecipe)
                self._images = await asyncio.to_thread(count_annotated_images, recipe.data, masks)
            source = recipe.backbone if isinstance(recipe, ProbeRecipe) else getattr(recipe, "pretrained", None)
            if source:
                await asyncio.to_thread(find_backbone, source, self.commands.runs_dir)
            size = _run_size(recipe, self._images)
        except RecipeError as error:
            problems |= {tuple(map(str, location)): message for location, message in error.problems}
            self._problem = "" if error.problems else str(error)
        except RotnetError as error:
            self._data = None
            self._problem = str(error)
        # Another recipe may have been chosen meanwhile; its own fields will be checked.
        if self._complete and self._recipe == shown:
            await self._show(problems, size)

    async def _show(self, problems: dict[tuple, str], size: str) -> None:
        unshown = dict(problems)
        for section in self._sections():
            if any(_is_below(place, field.key) for place in problems for field in section.fields):
                await section.open()
        for row in self.query(FieldRow):
            message = next((unshown.pop(place) for place in list(unshown) if _is_below(place, row.field.key)), "")
            row.show_error(message.removeprefix(f"{row.field.key}: "))
        for section in self._sections():
            key = tuple(section.key.split("."))
            section.show_error(next((unshown.pop(place) for place in list(unshown) if place == key), ""))
        self._problem = "\n".join([*unshown.values(), *([self._problem] if self._problem else [])])
        count = len(problems)
        if count and not self._problem:
            self._problem = f"{count} value{'s' if count > 1 else ''} must be corrected before the run can start."
        self.query_one("#form-error", Static).update(self._problem)
        self.query_one("#form-error").display = bool(self._problem)
        self.query_one("#form-steps", Static).update(size)
        self.query_one("#form-steps").display = bool(size)
        self.query_one("#form-command", Static).update(self.commands.as_typed(["run", *self._arguments()]))
        for name in ("start", "queue"):
            self.query_one(f"#{name}", Button).disabled = bool(self._problem)

    @work(exclusive=True)
    async def action_start(self) -> None:
        """Start the run as a process of its own, and open it."""
        await self._submit("run", "--detach")

    @work(exclusive=True)
    async def action_queue(self) -> None:
        """Add the run to the queue."""
        await self._submit("queue")

    async def _submit(self, how: str, *flags: str) -> None:
        await self._check()
        if not self._complete:
            self.notify("The recipe is still being read.")
            return
        if self._problem:
            self.notify("Correct the marked fields first. Nothing was started.", severity="warning")
            return
        before = set(self.index.summaries)
        words = ["queue", "add"] if how == "queue" else ["run"]
        message = Perform(*words, *self._arguments(), *flags)
        self.app.post_message(message)
        if not await message.succeeded:
            return
        await self.index.refresh(whole=True)
        self.app.pop_screen()
        new = [run["name"] for run in self.index.newest_first() if run["name"] not in before]
        if how == "run" and new:
            self.app.post_message(OpenRun(RunFolder(self.index.runs_dir / new[0])))

    def action_copy(self) -> None:
        """Copy the command line to the clipboard."""
        if not self._complete:
            self.notify("The recipe is still being read.")
            return
        self.app.copy_to_clipboard(self.commands.as_typed(["run", *self._arguments()]))
        self.notify("Command line copied.")

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "start":
            self.action_start()
        elif event.button.id == "queue":
            self.action_queue()
        else:
            self.app.pop_screen()


def _is_below(place: tuple, key: str) -> bool:
    """Whether a problem's place in the recipe is that of a key, or within its value."""
    parts = tuple(key.split("."))
    return place[: len(parts)] == parts


def _run_size(recipe: Recipe, images: int | None) -> str:
    """The number of steps and inputs of a run, or of probes or runs, in one line."""
    if isinstance(recipe, ProbeRecipe):
        return f"{_count(len(recipe.probe), 'probe')} of an existing backbone."
    if isinstance(recipe, StudyRecipe):
        seeds = len(recipe.scales[recipe.scale].seeds)
        return f"{_count(seeds * len(recipe.run), 'run')}. Finished runs are not repeated."
    assert isinstance(recipe, PretrainRecipe | ClassifyRecipe | TransferRecipe)
    batch = recipe.train.batch
    inputs, then = f"{batch} images", ""
    if isinstance(recipe, PretrainRecipe):
        rotations = len(recipe.rotation.angles) if recipe.rotation.copies == "all" else 1
        inputs += f" × {_count(rotations, 'rotation')} = {rotations * batch} inputs"
        then = f", then {_count(len(recipe.probe), 'probe')}"
    if images is None and recipe.train.steps is None:
        return f"{inputs} per step. The number of steps is known once the images have been read."
    steps = recipe.train.total_steps(images or 0)
    source = f", from {thousands(images)} images" if images else ""
    return f"{steps} steps of {inputs}{source}{then}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
