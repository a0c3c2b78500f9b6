"""The resolved recipe of a run, with what was overridden."""

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from rotnet_tui.state.history import History
from rotnet_tui.state.recipes import toml_text
from rotnet_tui.state.words import printable
from rotnet_tui.tabs.base import Pane


class RecipeView(Pane):
    """The recipe as it runs: every default written out."""

    def __init__(self) -> None:
        super().__init__(id="recipe")

    def compose(self) -> ComposeResult:
        """The text."""
        with VerticalScroll():
            yield Static(id="recipe-text")

    def show(self, history: History, state: str) -> None:
        """Read the recipe; it never changes during a run."""
        run, colors = history.run, self.app.theme_variables
        try:
            toml = printable(run.recipe.read_text(encoding="utf-8", errors="replace"))
        except OSError as error:
            self.query_one("#recipe-text", Static).update(f"The recipe cannot be read: {error.strerror}")
            return
        facts = run.facts()
        overrides = facts.get("overrides") or {}
        origin = f"Run from {facts.get('recipe', '?')}"
        if overrides:
            origin += f", with {' '.join(f'{key}={value}' for key, value in overrides.items())}"
        head = Text(printable(origin), style="bold")
        body = toml_text(toml, colors, frozenset(overrides))
        self.query_one("#recipe-text", Static).update(Text.assemble(head, "\n\n", body))
