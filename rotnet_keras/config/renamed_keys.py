"""Keys of recipes that have a new name: the old one is accepted wherever a recipe or an override may say it."""

from typing import Any

Location = tuple[str | int, ...]

# The end of an old key, "*" for a position in a list, and its new last part.
RENAMED: dict[tuple[str, ...], str] = {("probe", "*", "controls"): "baselines"}


def current_location(location: Location) -> Location:
    """Return the location of a key under its present name."""
    for old, new in RENAMED.items():
        parts = ["*" if str(part).isdigit() else str(part) for part in location[-len(old) :]]
        if tuple(parts) == old:
            return (*location[:-1], new)
    return location


# No key of a recipe lies in so many tables and lists; what does is refused by the recipe's check.
DEEPEST = 20


def with_current_keys(values: Any, location: Location = ()) -> tuple[Any, list[str]]:
    """Return recipe values or overrides with their keys under the present names, and the old keys that were found.

    Keys may be dotted. An old key stays where the new one is given too: the recipe's check then refuses it.
    """
    found: list[str] = []
    if len(location) > DEEPEST:
        return values, found
    if isinstance(values, list):
        items = [with_current_keys(item, (*location, position)) for position, item in enumerate(values)]
        return [item for item, _ in items], [key for _, keys in items for key in keys]
    if not isinstance(values, dict):
        return values, found
    renamed: dict[str, Any] = {}
    for key, value in values.items():
        here = (*location, *key.split("."))
        current = current_location(here)
        head, dot, _ = key.rpartition(".")
        renamed_key = f"{head}{dot}{current[-1]}"
        if current != here and renamed_key not in values:
            found.append(".".join(map(str, here)))
            renamed[renamed_key] = value
            continue
        renamed[key], keys = with_current_keys(value, here)
        found += keys
    return renamed, found


def renaming_note(keys: list[str]) -> str:
    """Return one line that says which keys have old names, and what they are called now."""
    pairs = dict.fromkeys((key.rpartition(".")[2], str(current_location(tuple(key.split(".")))[-1])) for key in keys)
    words = ", ".join(f"{old!r} is now called {new!r}" for old, new in pairs)
    return f"{', '.join(keys)}: {words}; the old name still works"
