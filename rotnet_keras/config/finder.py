"""Finding recipe files by name, and reading their title, kind and expected duration without checking them."""

from collections.abc import Iterable
from pathlib import Path

from rotnet_keras.errors import RecipeError
from rotnet_keras.files import read_toml

PACKAGE = Path(__file__).parents[1]


def recipes_dir() -> Path:
    """Return the folder of the shipped recipes: inside an installed package, beside the package in a checkout."""
    inside = PACKAGE / "recipes"
    return inside if inside.is_dir() else PACKAGE.parent / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """Return the shipped recipe files by name, which is the path below the recipes folder without `.toml`."""
    root = recipes_dir()
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.toml"))}


def find_recipe(name: str) -> Path:
    """Return the recipe file of a path or of a shipped recipe's name.

    Raises:
        RecipeError: there is no such file; the message names the nearest shipped recipe.
    """
    path = Path(name)
    shipped = shipped_recipes()
    if name in shipped:
        return shipped[name]
    try:
        if path.exists() and not path.is_dir():
            return path
    except OSError as error:  # A name that no file can have.
        raise RecipeError(f"{name}: no such recipe: {error.strerror}") from None
    hint = did_you_mean(name.removesuffix(".toml"), shipped) or did_you_mean(path.stem, shipped)
    raise RecipeError(
        f"{name}: no such file or shipped recipe{hint or '.'} `rotnet-keras recipes` lists the shipped ones"
    )


def kind_and_title(path: Path) -> tuple[str, str]:
    """Return a recipe file's kind and title; "?" and the reason if it cannot be read."""
    try:
        values = read_toml(path)
    except (OSError, ValueError) as error:
        return "?", str(error)
    return str(values.get("kind", "?")), str(values.get("title", ""))


def expected_minutes(path: Path) -> tuple[float | None, str]:
    """Return the minutes and the hardware of a recipe file's `[expect]`; (None, "") if it has none."""
    try:
        expect = read_toml(path).get("expect", {})
        return float(expect["minutes"]), str(expect["hardware"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a clause with the nearest known spelling, or nothing if none is near."""
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
