"""Loading recipes: TOML files and overrides become checked recipes, or one error that lists every problem."""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import tomlkit
from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from rotnet_keras.config.finder import did_you_mean, find_recipe
from rotnet_keras.config.kinds import KINDS, TRANSFER_TASKS
from rotnet_keras.config.renamed_keys import Location, current_location, renaming_note, with_current_keys
from rotnet_keras.config.schema import BackboneSource, Recipe
from rotnet_keras.config.validation import cross_section_errors
from rotnet_keras.errors import RecipeError
from rotnet_keras.files import MAX_TOML_BYTES, parse_toml, read_file

# How many of the allowed names a message lists.
MAX_LISTED_NAMES = 5
# Sections that say where a backbone comes from.
BACKBONE_SECTIONS = ("backbone", "pretrained")
# Kinds of recipe with one of these sections: a backbone from scratch, or a pretrained one.
TRAINING_KINDS = ("pretrain", "classify", "transfer")


def load_recipe(
    name: str | Path, overrides: Mapping[str, Any] | None = None, warn: Callable[[str], None] = lambda note: None
) -> Recipe:
    """Load and check a recipe.

    Args:
        name: the path of a TOML file, or the name of a shipped recipe.
        overrides: values that replace the file's; keys are dotted ("train.batch") or nested mappings.
        warn: called with a line about keys whose names are old but still accepted.

    Returns:
        The recipe with every default filled in.

    Raises:
        RecipeError: lists every problem of the recipe with its file, line and key.
    """
    path = find_recipe(str(name))
    try:
        # Editors of Windows begin a file with a byte order mark.
        text = read_file(path, MAX_TOML_BYTES).decode("utf-8-sig")
        values = parse_toml(text)
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8 in your editor"
        ) from None
    except ValueError as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}") from None
    values, old_keys = with_current_keys(values)
    if old_keys:
        warn(f"{path}: {renaming_note(old_keys)}")
    flat, old_keys = with_current_keys(flatten_overrides(overrides or {}))
    if old_keys:
        warn(f"command line: {renaming_note(old_keys)}")
    return _validate(values, flat, _SourceLines(path, text))


def parse_override(text: str) -> tuple[str, Any]:
    """Split "key=value" into the key and its value, of the type that the recipe's key has.

    The value is TOML: 3, true, [1, 2], "text". Where the key takes a text, anything else is the text as it was typed,
    such as 2024 or a=b, and quotation marks can be left out.

    Raises:
        RecipeError: the text is not of that form.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", key):
        raise RecipeError(f"command line: expected KEY=VALUE, such as train.epochs=3, got {text!r}")
    takes_text = _takes(key, value)
    try:
        document = tomllib.loads(f"value = {value}")
    except (tomllib.TOMLDecodeError, RecursionError):
        if not takes_text and re.search(r"""["'\[\]{}=\n]""", value):
            raise RecipeError(f"command line: {key}: not a TOML value: {value}") from None
        return key, value
    # A line break could begin another key, which would be lost.
    if list(document) == ["value"] and (not takes_text or _takes(key, document["value"])):
        return key, document["value"]
    return key, value


def _takes(key: str, value: Any) -> bool:
    """Return whether a key of some kind of recipe takes values of this type, whatever their range."""
    path = tuple(int(part) if part.isdigit() else part for part in map(str, current_location(tuple(key.split(".")))))
    for kind in KINDS.values():
        for annotation in _types_at(kind.schema, path):
            try:
                TypeAdapter(annotation, config=ConfigDict(strict=True)).validate_python(value)
            except (ValidationError, PydanticUserError):  # The latter for a whole section, which takes no value.
                continue
            return True
    return False


def _types_at(annotation: Any, path: Location) -> list[Any]:
    """Return the types that the value at a path below a type may have; none if there is no such key."""
    if not path:
        return [annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(path[0]))
        return _types_at(field.annotation, path[1:]) if field else []
    inner = get_args(annotation)
    if get_origin(annotation) is dict:
        return _types_at(inner[1], path[1:])
    if get_origin(annotation) is list:
        return _types_at(inner[0], path[1:]) if isinstance(path[0], int) else []
    return [found for each in inner for found in _types_at(each, path)]


def type_problem(values: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the type of a value in a recipe that may be of another version; None if nothing is.

    Keys that this version does not know, and words that it does not accept, are no problem here: a report shows them.
    """
    kind, task = values.get("kind"), values.get("task")
    schema = KINDS.get(f"{kind} {task}" if kind == "transfer" else str(kind))
    if schema is None:
        return f"kind: expected one of {', '.join(map(repr, KINDS))}, got {kind!r:.80}"
    try:
        schema.schema.model_validate(with_current_keys(values)[0])
    except ValidationError as error:
        for each in error.errors():
            missing = each["type"] == "missing" and len(each["loc"]) == 1
            word = each["type"] == "literal_error" and isinstance(each["input"], str)
            if not missing and not word and each["type"] not in ("extra_forbidden", "value_error"):
                return _message(schema.schema, each)
    return None


def to_toml(recipe: Recipe) -> str:
    """Return the recipe with every default written out, as TOML that loads to an equal recipe."""
    return tomlkit.dumps(recipe.model_dump(exclude_none=True))


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of all kinds of recipe."""
    kinds: Any = tuple(kind.schema for kind in KINDS.values())
    union: Any = kinds[0]
    for schema in kinds[1:]:
        union = union | schema
    return TypeAdapter(union).json_schema()


class _SourceLines:
    """The lines at which the keys of a TOML file stand, which the TOML parsers do not report."""

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
                table = _split_key(header[2])
                if header[1] == "[[":
                    counts[table] = counts.get(table, -1) + 1
                    table = (*table, counts[table])
                self._lines.setdefault(table, number)
            elif key:
                self._lines.setdefault(current_location((*table, *_split_key(key[1]))), number)

    def find(self, location: Location) -> tuple[str, str]:
        """Return "file:line" and the line's text for a key, or for the nearest table that holds it."""
        for end in range(len(location), 0, -1):
            line = self._lines.get(location[:end])
            if line:
                return f"{self.path}:{line}", self._text[line - 1].strip()
        return str(self.path), ""


def _split_key(dotted: str) -> Location:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def flatten_overrides(overrides: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return overrides with dotted keys only: {"train": {"batch": 8}} becomes {"train.batch": 8}."""
    flat: dict[str, Any] = {}
    for key, value in overrides.items():
        if isinstance(value, Mapping):
            flat |= flatten_overrides(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _validate(values: dict[str, Any], overrides: dict[str, Any], lines: _SourceLines) -> Recipe:
    _drop_replaced_backbone(values, overrides)
    complaints = [error for key, value in overrides.items() for error in _apply_override(values, key, value)]
    kind = _required_choice("kind", values, list(dict.fromkeys(name.split()[0] for name in KINDS)), lines)
    if kind == "transfer":
        kind += " " + _required_choice("task", values, list(TRANSFER_TASKS), lines)
    schema = KINDS[kind].schema
    recipe = None
    problems: list[tuple[Location, str]] = []
    try:
        recipe = schema.model_validate(values)
    except ValidationError as error:
        problems += [(tuple(e["loc"]), _message(schema, e)) for e in error.errors()]
    problems += cross_section_errors(values)
    complaints += _with_positions(problems, overrides, lines)
    if complaints or recipe is None:
        count = f"{len(complaints)} error{'s' if len(complaints) > 1 else ''} in {lines.path}"
        raise RecipeError("\n".join([*complaints, f"{count}. Nothing was started."]), problems)
    return recipe


def _required_choice(key: str, values: Mapping[str, Any], known: list[str], lines: _SourceLines) -> str:
    """Return the value of a key that decides which schema applies."""
    given = values.get(key)
    if not isinstance(given, str) or given not in known:
        position, _ = lines.find((key,))
        expected = ", ".join(map(repr, known))
        got = "but it is missing" if given is None else f"got {given!r}"
        raise RecipeError(f"{position}: {key}: expected one of {expected}, {got}{did_you_mean(str(given), known)}")
    return given


def _drop_replaced_backbone(values: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Remove what a recipe says about its backbone's origin where an override names another one.

    Recipes that train have either `backbone` or `pretrained`: an override of one removes the other.
    """
    if values.get("kind") in TRAINING_KINDS:
        if "backbone.name" in overrides:
            values.pop("pretrained", None)
        elif any(f"pretrained.{way}" in overrides for way in BackboneSource.WAYS):
            values.pop("backbone", None)
    for name in BACKBONE_SECTIONS:
        section = values.get(name)
        if isinstance(section, dict) and any(f"{name}.{way}" in overrides for way in BackboneSource.WAYS):
            values[name] = {key: value for key, value in section.items() if key not in BackboneSource.WAYS}


def _apply_override(values: dict[str, Any], key: str, value: Any) -> Iterator[str]:
    """Set an overridden value; yield a complaint if the recipe has no such table or list item."""
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
        yield f"command line: {key}: the recipe has no such key to override"


def _with_positions(
    problems: Sequence[tuple[Location, str]], overrides: Mapping[str, Any], lines: _SourceLines
) -> Iterator[str]:
    """Yield each problem with its file, line and the line's text, or with "command line" if an override caused it."""
    typed = [tuple(int(k) if k.isdigit() else k for k in key.split(".")) for key in overrides]
    for location, message in problems:
        if any(location[: len(key)] == key[: len(location)] for key in typed):
            yield f"command line: {message}"
            continue
        position, line = lines.find(location)
        yield f"{position}: {message}" + (f"\n    {line}" if line else "")


def _message(schema: type[BaseModel], error: ErrorDetails) -> str:
    """Return a pydantic error in words: the key, what was expected, what was given, the nearest spelling."""
    location = tuple(error["loc"])
    key = ".".join(str(part) for part in location)
    given, context = error["input"], error.get("ctx", {})
    if error["type"] == "extra_forbidden":
        current = current_location(location)
        if current != location:
            return f"{key}: the old name of {current[-1]!r}, which is given too: leave one of them out"
        known = _known_keys(schema, location[:-1])
        return f"unknown key {key!r}{did_you_mean(str(location[-1]), known)} (known keys: {', '.join(known)})"
    if error["type"] == "missing":
        return f"{key}: missing"
    if error["type"] == "literal_error":
        names = re.findall(r"'([^']+)'", context["expected"])
        expected = context["expected"]
        if len(names) > MAX_LISTED_NAMES:
            expected = f"{', '.join(map(repr, names[:MAX_LISTED_NAMES]))}, ... ({len(names)} in all)"
        return f"{key}: expected {expected}, got {given!r}{did_you_mean(str(given), names)}"
    if error["type"] == "value_error":
        return f"{key}: {context['error']}"
    expected = error["msg"].replace("Input should be ", "expected ").replace("a valid ", "a ")
    expected = expected.replace("a integer", "an integer")
    return f"{key}: {expected}, got {given!r}"


def _known_keys(schema: type[BaseModel], location: Location) -> list[str]:
    """Return the keys that the table at `location` may have."""
    model: Any = schema
    is_item = False
    for part in location:
        if isinstance(part, int) or is_item:
            # An item of a list, or of a table whose keys are names that the user chooses.
            is_item = False
            continue
        annotation = model.model_fields[part].annotation
        is_item = getattr(annotation, "__origin__", None) is dict
        inner = [a for a in getattr(annotation, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)]
        model = inner[0] if inner else annotation
    return list(model.model_fields)
