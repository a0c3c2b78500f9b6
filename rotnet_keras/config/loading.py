"""Recipes as files: finding them, reading them with overrides, saying what is wrong, writing them back."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from rotnet_keras.config.finder import did_you_mean, find_recipe
from rotnet_keras.config.kinds import KINDS, TASKS
from rotnet_keras.config.schema import Recipe, Source
from rotnet_keras.config.validation import Location, cross_errors
from rotnet_keras.errors import RecipeError

# So many of the names that are allowed a message spells out.
MOST_NAMES = 5
# What is larger, in bytes, or has keys of more parts, is no recipe; the parser would take minutes to say so.
LARGEST, MOST_PARTS = 2**20, 100
# Sections that say where a backbone comes from.
SOURCES = ("backbone", "pretrained")


def load_recipe(name: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        name: a path, or the name of a shipped recipe.
        overrides: values that replace the file's; keys are dotted ("train.batch") or nested mappings.

    Raises:
        RecipeError: everything that is wrong with it, each with file, line and key.
    """
    path = find_recipe(str(name))
    try:
        if path.stat().st_size > LARGEST:
            raise RecipeError(f"{path}: no recipe: it has more than {LARGEST:,} bytes")
        text = path.read_text(encoding="utf-8")
        if any(line.partition("=")[0].count(".") >= MOST_PARTS for line in text.splitlines() if "=" in line):
            raise RecursionError
        values = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError(f"{path}: not valid TOML: {error or 'too deeply nested'}") from None
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}") from None
    return _validate(values, flattened(overrides or {}), _Source(path, text))


def parse_override(text: str) -> tuple[str, Any]:
    """Split "key=value", with a TOML value; a bare word counts as a string.

    Raises:
        RecipeError: it is not of that form.
    """
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", key.strip()):
        raise RecipeError(f"command line: expected key=value, got {text!r}")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        if re.search(r"""["'\[\]{}=\n]""", value):
            raise RecipeError(f"command line: {key}: not a TOML value: {value}") from None
        return key.strip(), value


def to_toml(recipe: Recipe) -> str:
    """The recipe with every default written out, as TOML that loads to an equal recipe."""
    return tomlkit.dumps(recipe.model_dump(exclude_none=True))


def json_schema() -> dict[str, Any]:
    """JSON schema of all kinds of recipe."""
    kinds: Any = tuple(kind.schema for kind in KINDS.values())
    union: Any = kinds[0]
    for schema in kinds[1:]:
        union = union | schema
    return TypeAdapter(union).json_schema()


class _Source:
    """Where in a TOML file a key stands; the parsers at hand do not say."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self._lines: dict[Location, int] = {}
        self._text = text.splitlines()
        table: Location = ()
        counts: dict[Location, int] = {}
        for number, line in enumerate(self._text, 1):
            header = re.match(r"\s*(\[\[?)\s*([^\]]+?)\s*\]", line)
            key = re.match(r"""\s*([\w."'-]+?)\s*=""", line)
            if header and not key:
                table = _keys(header[2])
                if header[1] == "[[":
                    counts[table] = counts.get(table, -1) + 1
                    table = (*table, counts[table])
                self._lines.setdefault(table, number)
            elif key:
                self._lines.setdefault((*table, *_keys(key[1])), number)

    def place(self, location: Location) -> tuple[str, str]:
        """("file:line", the line's text) of the key, or of the nearest table that holds it."""
        for end in range(len(location), 0, -1):
            line = self._lines.get(location[:end])
            if line:
                return f"{self.path}:{line}", self._text[line - 1].strip()
        return str(self.path), ""


def _keys(dotted: str) -> Location:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def flattened(overrides: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Overrides with dotted keys only: {"train": {"batch": 8}} becomes {"train.batch": 8}."""
    flat: dict[str, Any] = {}
    for key, value in overrides.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _validate(values: dict[str, Any], overrides: dict[str, Any], source: _Source) -> Recipe:
    _make_room(values, overrides)
    complaints = [error for key, value in overrides.items() for error in _override(values, key, value)]
    kind = _one_of("kind", values, list(dict.fromkeys(name.split()[0] for name in KINDS)), source)
    if kind == "transfer":
        kind += " " + _one_of("task", values, list(TASKS), source)
    schema = KINDS[kind].schema
    recipe = None
    found: list[tuple[Location, str]] = []
    try:
        recipe = schema.model_validate(values)
    except ValidationError as error:
        found += [(tuple(e["loc"]), _explain(schema, e)) for e in error.errors()]
    found += cross_errors(values)
    complaints += _with_places(found, overrides, source)
    if complaints or recipe is None:
        count = f"{len(complaints)} error{'s' if len(complaints) > 1 else ''} in {source.path}"
        raise RecipeError("\n".join([*complaints, f"{count}. Nothing was started."]), found)
    return recipe


def _one_of(key: str, values: Mapping[str, Any], known: list[str], source: _Source) -> str:
    """What a recipe says it is."""
    given = values.get(key)
    if not isinstance(given, str) or given not in known:
        place, _ = source.place((key,))
        expected = ", ".join(map(repr, known))
        raise RecipeError(f"{place}: {key}: expected one of {expected}, got {given!r}{did_you_mean(str(given), known)}")
    return given


def _make_room(values: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Take out where a recipe has its backbone from, if that is overridden: another way replaces the recipe's.

    In recipes that train from scratch or go on from a backbone, to name either takes the place of the other.
    """
    if values.get("kind") in ("classify", "transfer"):
        if "backbone.name" in overrides:
            values.pop("pretrained", None)
        elif any(f"pretrained.{way}" in overrides for way in Source.WAYS):
            values.pop("backbone", None)
    for name in SOURCES:
        section = values.get(name)
        if isinstance(section, dict) and any(f"{name}.{way}" in overrides for way in Source.WAYS):
            values[name] = {key: value for key, value in section.items() if key not in Source.WAYS}


def _override(values: dict[str, Any], key: str, value: Any) -> Iterator[str]:
    """Put an override in its place; yield a complaint where there is no such place."""
    *tables, last = key.split(".")
    target: Any = values
    for name in tables:
        if isinstance(target, list) and name.isdigit() and int(name) < len(target):
            target = target[int(name)]
        elif isinstance(target, dict):
            target = target.setdefault(name, {})
        else:
            target = None
    if isinstance(target, dict):
        target[last] = value
    elif isinstance(target, list) and last.isdigit() and int(last) < len(target):
        target[int(last)] = value
    else:
        yield f"command line: {key}: there is nothing of this name to set"


def _with_places(found: Sequence[tuple[Location, str]], overrides: Mapping[str, Any], source: _Source) -> Iterator[str]:
    typed = [tuple(int(k) if k.isdigit() else k for k in key.split(".")) for key in overrides]
    for location, message in found:
        if any(location[: len(key)] == key[: len(location)] for key in typed):
            yield f"command line: {message}"
            continue
        place, line = source.place(location)
        yield f"{place}: {message}" + (f"\n    {line}" if line else "")


def _explain(schema: type[BaseModel], error: ErrorDetails) -> str:
    """One pydantic error in words: key, what was expected, what was there, the nearest spelling."""
    location = tuple(error["loc"])
    key = ".".join(str(part) for part in location)
    given, context = error["input"], error.get("ctx", {})
    if error["type"] == "extra_forbidden":
        known = _fields(schema, location[:-1])
        return f"unknown key {key!r}{did_you_mean(str(location[-1]), known)}; known: {', '.join(known)}"
    if error["type"] == "missing":
        return f"{key}: missing"
    if error["type"] == "literal_error":
        names = re.findall(r"'([^']+)'", context["expected"])
        expected = context["expected"]
        if len(names) > MOST_NAMES:
            expected = f"{', '.join(map(repr, names[:MOST_NAMES]))} ... ({len(names)} in all)"
        return f"{key}: expected {expected}, got {given!r}{did_you_mean(str(given), names)}"
    if error["type"] == "value_error":
        return f"{key}: {context['error']}"
    expected = error["msg"].replace("Input should be ", "expected ").replace("a valid ", "a ")
    expected = expected.replace("a integer", "an integer")
    return f"{key}: {expected}, got {given!r}"


def _fields(schema: type[BaseModel], location: Location) -> list[str]:
    """Names of the keys that the table at `location` may hold."""
    model: Any = schema
    named = False
    for part in location:
        if isinstance(part, int) or named:
            # An item of a list, or of a table whose keys are names that people give.
            named = False
            continue
        annotation = model.model_fields[part].annotation
        named = getattr(annotation, "__origin__", None) is dict
        inner = [a for a in getattr(annotation, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)]
        model = inner[0] if inner else annotation
    return list(model.model_fields)
