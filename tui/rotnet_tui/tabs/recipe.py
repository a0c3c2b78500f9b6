"""The resolved recipe of a run, with what was overridden."""

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from rotnet_tui.history import History
from rotnet_tui.pane import Pane
from rotnet_tui.words import printable


def toml_text(toml: str, colors: dict[str, str], overridden: frozenset[str] = frozenset()) -> Text:
    """TOML with headers and keys set apart, and a word beside every overridden key."""
    text = Text()
    table = ""
    counts: dict[str, int] = {}
    for line in toml.splitlines():
        stripped = line.strip()
        key, equals, value = line.partition(" = ")
        if stripped.startswith("[["):
            name = stripped.strip("[]")
            counts[name] = counts.get(name, -1) + 1
            table = f"{name}.{counts[name]}."
            text.append(line, style=f"bold {colors['text-primary']}")
        elif stripped.startswith("["):
            name = stripped.strip("[]")
            first, _, rest = name.partition(".")
            table = f"{first}.{counts[first]}.{rest}." if first in counts and rest else f"{name}."
            text.append(line, style=f"bold {colors['text-primary']}")
        elif stripped.startswith("#"):
            text.append(line, style="dim")
        elif equals:
            text.append(f"{key} = ", style=colors["text-secondary"])
            text.append(value)
            if _is_overridden(table + key.strip(), overridden):
                text.append("   ← command line", style=f"bold {colors['text-warning']}")
        else:
            text.append(line)
        text.append("\n")
    return text


def _is_overridden(key: str, overridden: frozenset[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in overridden)


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
