"""The resolved recipe of a run, with the overrides marked."""

from collections.abc import Iterable

from rich.text import Text
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from rotnet_keras.files import MAX_TOML_BYTES, read_file
from rotnet_tui.state.history import History
from rotnet_tui.state.recipes import toml_text
from rotnet_tui.state.words import screen_text
from rotnet_tui.tabs.base import RunTab


class RecipeTab(RunTab):
    """The recipe with every default written out."""

    def contents(self) -> Iterable[Widget]:
        """The text."""
        with VerticalScroll():
            yield Static(id="recipe-text")

    _content: bytes | OSError | None = None

    def fetch(self, history: History) -> None:
        """Read the recipe, which never changes during a run."""
        if isinstance(self._content, bytes):
            return
        try:
            self._content = read_file(history.run.recipe, MAX_TOML_BYTES, history.run.path)
        except OSError as error:
            self._content = error

    def show(self, history: History, state: str) -> None:
        """Show the recipe, and which of its keys were changed."""
        run, colors, content = history.run, self.app.theme_variables, self._content
        if not isinstance(content, bytes):
            why = f"The recipe cannot be read: {content.strerror}" if content else "Reading the recipe …"
            self.query_one("#recipe-text", Static).update(Content(why))
            return
        toml = screen_text(content.decode("utf-8", "replace"))
        facts = run.facts()
        overrides = facts.get("overrides") or {}
        heading = f"Recipe {facts.get('recipe', '?')}"
        if overrides:
            heading += f" with {' '.join(f'{key}={value}' for key, value in overrides.items())}"
        text = Text.assemble((screen_text(heading), "bold"), "\n\n", toml_text(toml, colors, frozenset(overrides)))
        self.query_one("#recipe-text", Static).update(text)
