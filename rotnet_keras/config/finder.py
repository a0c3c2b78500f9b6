"""Finding recipe files by name, without reading them closely."""

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path

from rotnet_keras.errors import RecipeError

PACKAGE = Path(__file__).parents[1]


def recipes_dir() -> Path:
    """Where the shipped recipes are: inside an installed package, beside it in a checkout."""
    inside = PACKAGE / "recipes"
    return inside if inside.is_dir() else PACKAGE.parent / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """The shipped recipe files by name: their path below the recipes folder, without `.toml`."""
    root = recipes_dir()
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.toml"))}


def find_recipe(name: str) -> Path:
    """The file meant by a path or by the name of a shipped recipe, with or without `.toml`.

    Raises:
        RecipeError: there is none; the message holds the nearest name.
    """
    path = Path(name)
    shipped = shipped_recipes()
    if name in shipped:
        return shipped[name]
    try:
        if path.is_file():
            return path
    except OSError as error:  # A name that no file can have.
        raise RecipeError(f"{name}: no such recipe: {error.strerror}") from None
    known = ", ".join(shipped)
    raise RecipeError(f"{name}: no such recipe{did_you_mean(path.stem, shipped)} (shipped: {known})")


def describe(path: Path) -> tuple[str, str]:
    """(kind, title) of a recipe file, ("?", why not) where it cannot be read."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return "?", str(error)
    return str(values.get("kind", "?")), str(values.get("title", ""))


def expected_minutes(path: Path) -> tuple[float | None, str]:
    """(minutes, hardware) that a recipe file's `[expect]` states; (None, "") where it states none."""
    try:
        expect = tomllib.loads(path.read_text(encoding="utf-8")).get("expect", {})
        return float(expect["minutes"]), str(expect["hardware"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A clause with the nearest known spelling, empty where none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
