"""The recipes that the UI offers: the shipped ones, and the user's own in the current folder."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from rotnet_keras.config.finder import expected_minutes, kind_and_title, shipped_recipes
from rotnet_keras.files import written_at
from rotnet_keras.text import duration


@dataclass(frozen=True)
class RecipeEntry:
    """One recipe.

    Attributes:
        name: what it is called in the list.
        argument: what `rotnet-keras run` takes for it.
        time: the duration that the recipe states, as text; empty if it states none.
    """

    name: str
    argument: str
    path: Path
    kind: str
    title: str
    time: str


def list_recipes() -> list[RecipeEntry]:
    """The recipes in the current folder and in `recipes` below it, then the shipped ones."""
    own = [p for folder in (Path(), Path("recipes")) for p in sorted(folder.glob("*.toml"))]
    shipped = shipped_recipes()
    shipped_paths = {path.resolve() for path in shipped.values()}
    found = [_entry(str(p), str(p), p) for p in own if p.resolve() not in shipped_paths]
    return [e for e in found if e.kind != "?"] + [_entry(name, name, path) for name, path in shipped.items()]


def _entry(name: str, argument: str, path: Path) -> RecipeEntry:
    kind, title = kind_and_title(path)
    minutes, _ = expected_minutes(path)
    return RecipeEntry(name, argument, path, kind, title, _about(minutes) if minutes else "")


class RecipeDetails:
    """What `recipe_details` says of recipes, read again when their files change."""

    def __init__(self) -> None:
        self._chosen: tuple[RecipeEntry, dict[str, str]] | None = None
        self._found: dict[str, tuple[float | OSError, dict[str, str], Text]] = {}

    def choose(self, entry: RecipeEntry, colors: dict[str, str]) -> None:
        """Say which recipe `fetch` reads next, and the colours of the theme."""
        self._chosen = entry, colors

    def of(self, entry: RecipeEntry, colors: dict[str, str]) -> Text | None:
        """The details of a recipe in these colours; None as long as they have not been read."""
        found = self._found.get(entry.argument)
        return found[2] if found and found[1] == colors else None

    def fetch(self) -> None:
        """Read the chosen recipe, unless its file is as it was. This waits for the disk."""
        if self._chosen is None:
            return
        entry, colors = self._chosen
        written = written_at([entry.path])[0]
        known = self._found.get(entry.argument)
        if known is not None and known[:2] == (written, colors):
            return
        try:
            text = recipe_details(entry, colors)
        except OSError as error:
            text = Text(f"This recipe cannot be read: {error.strerror}")
        self._found[entry.argument] = written, colors, text


def recipe_details(entry: RecipeEntry, colors: dict[str, str]) -> Text:
    """The comment on top of the file, and the recipe with every default filled in; or what is wrong with it."""
    from rotnet_keras.config.loading import load_recipe, to_toml
    from rotnet_keras.errors import RotnetError

    minutes, hardware = expected_minutes(entry.path)
    text = Text()
    text.append(f"{entry.title}\n\n", style="bold")
    header = _header(entry.path)
    if header:
        text.append(f"{header}\n\n")
    if minutes:
        text.append(f"Takes about {_about(minutes)} on {hardware}.\n\n")
    try:
        checked = to_toml(load_recipe(entry.argument))
    except RotnetError as error:
        return text.append(str(error), style=colors["text-error"][:7])
    text.append("The recipe with all defaults:\n\n", style="dim")
    return text.append_text(toml_text(checked, colors))


def _about(minutes: float) -> str:
    """A planned duration, without seconds or minutes that are zero: "29 min"."""
    return duration(60 * minutes).removesuffix(" 00 s").removesuffix(" 00 min")


def _header(path: Path) -> str:
    """The comment at the beginning of the file, its lines joined to paragraphs."""
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].removeprefix(" "))
    paragraphs = "\n".join(lines).split("\n\n")
    return "\n\n".join(p if p.startswith(" ") else " ".join(p.split("\n")) for p in paragraphs)


def editable_copy(entry: RecipeEntry, folder: Path) -> Path:
    """The file to edit: the user's own recipe, or a copy in `folder` of a shipped one.

    Raises:
        OSError: the copy cannot be written.
    """
    if entry.argument != entry.name or entry.argument.endswith(".toml"):
        return entry.path
    copy = folder / f"{Path(entry.name).name}.toml"
    if not copy.exists():
        shutil.copyfile(entry.path, copy)
    return copy


def toml_text(toml: str, colors: dict[str, str], overridden: frozenset[str] = frozenset()) -> Text:
    """TOML with coloured headers and keys, and a mark beside every overridden key."""
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
