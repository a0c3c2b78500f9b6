"""The form that starts a run: every key of a recipe, checked while one types."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import Screen
from textual.widgets import Button, Footer, Input, Select, Static

from rotnet_keras.config.loading import load_recipe, parse_override
from rotnet_keras.config.schema import ClassifyRecipe, PretrainRecipe, ProbeRecipe, Recipe, RunRecipe
from rotnet_keras.config.sections import Data
from rotnet_keras.config.study import StudyRecipe
from rotnet_keras.data.sizes import training_images
from rotnet_keras.errors import RecipeError, RotnetError
from rotnet_keras.runs.launch import find_backbone
from rotnet_tui.state.recipes import list_recipes
from rotnet_tui.widgets.form_fields import FormField, form_fields

if TYPE_CHECKING:
    from rotnet_tui.app import RotnetApp

PAUSE = 0.15


class Row(Vertical):
    """One key: its name, its value, and what is wrong with it."""

    def __init__(self, field: FormField) -> None:
        super().__init__(classes="field")
        self.field = field

    def compose(self) -> ComposeResult:
        """Label and widget, and the error below."""
        with Horizontal():
            yield Static(self.field.label, classes="label", markup=False)
            if self.field.choices:
                options = [(choice, choice) for choice in self.field.choices]
                blank = not self.field.value
                value = Select.NULL if blank else self.field.value
                yield Select(options, value=value, allow_blank=blank, prompt="not set", compact=True)
            else:
                yield Input(self.field.value, placeholder="not set", compact=True, select_on_focus=False)
        yield Static(classes="error", markup=False)

    def value(self) -> str:
        """What stands in the widget."""
        if self.field.choices:
            chosen = self.query_one(Select).value
            return "" if chosen is Select.NULL else str(chosen)
        return self.query_one(Input).value.strip()

    def complain(self, message: str) -> None:
        """Show what is wrong, or that nothing is."""
        error = self.query_one(".error", Static)
        error.update(message)
        error.display = bool(message)
        self.set_class(bool(message), "-wrong")


class NewRun(Screen[None]):
    """Fields on top, what would be run below."""

    app: "RotnetApp"

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]
    BINDINGS = [
        Binding("f2", "start", "Start now", id="start"),
        Binding("f3", "queue", "Queue", id="queue"),
        Binding("f4", "copy", "Copy command", id="copy_command"),
        Binding("escape", "app.pop_screen", "Cancel"),
    ]
    HELP = """\
The form of a recipe. `tab` goes from field to field; values are TOML, as on the command line. `f2` starts the run as a
process of its own, which outlives this terminal; `f3` queues it. Nothing is started while something is wrong.
"""

    def __init__(self, recipe: str | None) -> None:
        super().__init__()
        self._recipe = recipe or "quickstart"
        self._problem = ""
        self._timer: Any = None
        self._data: Data | None = None
        self._images: int | None = None

    def compose(self) -> ComposeResult:
        """Recipe and name, the fields, the summary, the buttons."""
        entries = list_recipes()
        with Horizontal(id="form-head"):
            yield Static("recipe", classes="label")
            options = [(entry.name, entry.argument) for entry in entries]
            known = [argument for _, argument in options]
            yield Select(
                options,
                value=self._recipe if self._recipe in known else known[0],
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
            yield Button("Queue (f3)", variant="primary", id="queue", compact=True)
            yield Button("Cancel (esc)", id="cancel", compact=True)
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Say what this is."""
        self.query_one("#form-head").border_title = "new run"
        self.query_one("#form-summary").border_title = "what would run"

    @on(Select.Changed, "#recipe-choice")
    async def _chosen(self, event: Select.Changed) -> None:
        """Build the fields of the chosen recipe."""
        self._recipe = str(event.value)
        fields = self.query_one("#fields", VerticalScroll)
        await fields.remove_children()
        try:
            recipe = load_recipe(self._recipe)
        except RotnetError as error:
            self._problem = str(error)
            await fields.mount(Static(self._problem, classes="error", markup=False))
            return
        widgets: list[Any] = []
        section = None
        for field in form_fields(recipe):
            if field.section != section:
                section = field.section
                widgets.append(Static(section or "recipe", classes="section", markup=False))
                widgets.append(Static(classes="error section-error", name=section, markup=False))
            widgets.append(Row(field))
        await fields.mount_all(widgets)
        self.query(".error").set(display=False)
        await self._check()

    def on_descendant_focus(self, event: Any) -> None:
        """Explain the field that has the focus."""
        row = next((node for node in event.widget.ancestors_with_self if isinstance(node, Row)), None)
        words = "tab: next field   enter: choose   f2: start   f3: queue"
        if row:
            words = f"{row.field.key}: {row.field.description}".removesuffix(": ")
        self.query_one("#form-help", Static).update(words)

    @on(Input.Changed)
    @on(Select.Changed)
    def _changed(self) -> None:
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(PAUSE, self._check)

    def overrides(self) -> list[str]:
        """What differs from the recipe, as `key=value`."""
        words = []
        for row in self.query(Row):
            value = row.value()
            if value == row.field.value:
                continue
            if row.field.text and not row.field.choices:
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
        """Validate what stands there; show errors at their fields, and what would run."""
        problems: dict[tuple, str] = {}
        self._problem, steps = "", ""
        overrides: dict[str, Any] = {}
        for word in self.overrides():
            try:
                key, value = parse_override(word)
                overrides[key] = value
            except RecipeError:
                key = word.partition("=")[0]
                problems[tuple(key.split("."))] = "not a TOML value"
        for row in self.query(Row):
            if not row.value() and row.field.value:
                problems[tuple(row.field.key.split("."))] = f"a value is needed; the recipe has {row.field.value}"
                overrides.pop(row.field.key, None)
        try:
            recipe = load_recipe(self._recipe, overrides)
            if isinstance(recipe, RunRecipe) and recipe.data != self._data:
                # A folder may hold a million files.
                self._data, self._images = recipe.data, None
                self._images = await asyncio.to_thread(training_images, recipe.data)
            source = recipe.backbone if isinstance(recipe, ProbeRecipe) else getattr(recipe, "pretrained", None)
            if source:
                find_backbone(source, self.app.commands.runs_dir)
            steps = _steps(recipe, self._images)
        except RecipeError as error:
            problems |= {tuple(map(str, location)): message for location, message in error.problems}
            self._problem = "" if error.problems else str(error)
        except RotnetError as error:
            self._data = None
            self._problem = str(error)
        self._show(problems, steps)

    def _show(self, problems: dict[tuple, str], steps: str) -> None:
        unplaced = dict(problems)
        for row in self.query(Row):
            key = tuple(row.field.key.split("."))
            message = next((unplaced.pop(p) for p in list(unplaced) if p[: len(key)] == key), "")
            row.complain(message.removeprefix(f"{row.field.key}: "))
        for error in self.query(".section-error").results(Static):
            key = tuple((error.name or "").split("."))
            message = next((unplaced.pop(p) for p in list(unplaced) if p == key), "")
            error.update(message)
            error.display = bool(message)
        self._problem = "\n".join([*unplaced.values(), *([self._problem] if self._problem else [])])
        count = len(problems)
        if count and not self._problem:
            self._problem = f"{count} value{'s' if count > 1 else ''} to mend before it can start."
        self.query_one("#form-error", Static).update(self._problem)
        self.query_one("#form-error").display = bool(self._problem)
        self.query_one("#form-steps", Static).update(steps)
        self.query_one("#form-steps").display = bool(steps)
        self.query_one("#form-command", Static).update(self.app.commands.shown(["run", *self._arguments()]))
        for name in ("start", "queue"):
            self.query_one(f"#{name}", Button).disabled = bool(self._problem)

    @work(exclusive=True)
    async def action_start(self) -> None:
        """Start the run as a process of its own, and watch it."""
        await self._go("run", "--detach")

    @work(exclusive=True)
    async def action_queue(self) -> None:
        """Put the run into the queue."""
        await self._go("queue")

    async def _go(self, how: str, *flags: str) -> None:
        await self._check()
        if self._problem:
            self.notify("Mend what is marked first; nothing was started.", severity="warning")
            return
        before = set(self.app.index.summaries)
        words = ["queue", "add"] if how == "queue" else ["run"]
        if not await self.app.perform(*words, *self._arguments(), *flags):
            return
        await self.app.index.refresh()
        self.app.pop_screen()
        new = [found["name"] for found in self.app.index.newest_first() if found["name"] not in before]
        if how == "run" and new:
            self.app.open_by_name(new[0])

    def action_copy(self) -> None:
        """Copy the command line."""
        self.app.copy_to_clipboard(self.app.commands.shown(["run", *self._arguments()]))
        self.notify("Copied the command line.")

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "start":
            self.action_start()
        elif event.button.id == "queue":
            self.action_queue()
        else:
            self.app.pop_screen()


def _steps(recipe: Recipe, images: int | None) -> str:
    """How long the run would be."""
    if isinstance(recipe, ProbeRecipe):
        return f"{len(recipe.probe)} probe{'s' if len(recipe.probe) > 1 else ''} of a backbone that is there already."
    if isinstance(recipe, StudyRecipe):
        seeds = len(recipe.scales[recipe.scale].seeds)
        return f"{seeds * len(recipe.run)} runs; those that are finished already are not repeated."
    assert isinstance(recipe, PretrainRecipe | ClassifyRecipe)
    batch = recipe.train.batch
    inputs, then = f"{batch} images a step", ""
    if isinstance(recipe, PretrainRecipe):
        copies = len(recipe.rotation.angles) if recipe.rotation.copies == "all" else 1
        inputs = f"{batch} images × {copies} turn{'s' if copies > 1 else ''} = {copies * batch} inputs a step"
        then = f", then {len(recipe.probe)} probe{'' if len(recipe.probe) == 1 else 's'}"
    if images is None and recipe.train.steps is None:
        return f"{inputs}; the number of steps is known once the images have been read."
    steps = recipe.train.total_steps(images or 0)
    of = f" on {images} images" if images else ""
    return f"{steps} steps of {inputs}{of}{then}."
