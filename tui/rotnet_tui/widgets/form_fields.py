"""From a recipe's schema to the fields of a form: what can be set, what it may be, what it is."""

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import tomlkit
from pydantic import BaseModel

from rotnet_keras.config.schema import Recipe
from rotnet_keras.config.study import StudyRecipe


@dataclass(frozen=True)
class FormField:
    """One key of a recipe.

    Attributes:
        key: dotted, as on the command line.
        value: what the recipe has, as TOML; empty where it has nothing.
        choices: the values there are, None where any may be typed.
        text: whether what is typed is a string as it stands, and no TOML.
    """

    key: str
    section: str
    description: str
    value: str
    choices: tuple[str, ...] | None
    text: bool

    @property
    def label(self) -> str:
        """The key within its section."""
        return self.key.removeprefix(f"{self.section}.")


def form_fields(recipe: Recipe) -> Iterator[FormField]:
    """The fields of a recipe in the schema's order; `kind` and `expect` are no matter of choice.

    A study's runs and tables are written in its file; here its size and its data's place are chosen.
    """
    if isinstance(recipe, StudyRecipe):
        data_dir = recipe.set.get("data", {}).get("data_dir", "")
        where = "Where tfds looks, for all runs; TFDS_DATA_DIR when not given."
        yield FormField("title", "", "", recipe.title, None, True)
        yield FormField("scale", "", "How large the runs are.", recipe.scale, tuple(recipe.scales), True)
        yield FormField("set.data.data_dir", "set", where, str(data_dir), None, True)
        return
    for name, info in type(recipe).model_fields.items():
        if name not in ("kind", "expect"):
            yield from _fields(name, info.annotation, info.description, getattr(recipe, name), "")


def _fields(key: str, annotation: Any, description: str | None, value: Any, section: str) -> Iterator[FormField]:
    if isinstance(value, BaseModel):
        for name, info in type(value).model_fields.items():
            yield from _fields(f"{key}.{name}", info.annotation, info.description, getattr(value, name), key)
    elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
        for i, item in enumerate(value):
            yield from _fields(f"{key}.{i}", type(item), None, item, key)
    elif _is_table(annotation):
        # An empty list of tables has no fields: it is written in the recipe's file.
        return
    else:
        yield FormField(
            key, section, description or "", as_text(value, annotation), _choices(annotation), _is_str(annotation)
        )


def as_text(value: Any, annotation: Any) -> str:
    """How a value stands in its field."""
    if value is None:
        return ""
    return value if isinstance(value, str) and _is_str(annotation) else toml(value)


def toml(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else tomlkit.item(value).as_string()


def _parts(annotation: Any) -> list[Any]:
    """The members of a union without None, or the type itself."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [part for part in typing.get_args(annotation) if part is not type(None)]
    return [annotation]


def _choices(annotation: Any) -> tuple[str, ...] | None:
    parts = _parts(annotation)
    if parts == [bool]:
        return ("true", "false")
    if len(parts) == 1 and typing.get_origin(parts[0]) is Literal:
        return tuple(toml(value) for value in typing.get_args(parts[0]))
    return None


def _is_str(annotation: Any) -> bool:
    parts = _parts(annotation)
    literal = [v for p in parts if typing.get_origin(p) is Literal for v in typing.get_args(p)]
    return parts == [str] or (bool(literal) and all(isinstance(v, str) for v in literal))


def _is_table(annotation: Any) -> bool:
    parts = _parts(annotation)
    inner = [a for part in parts for a in (part, *typing.get_args(part))]
    return any(isinstance(a, type) and issubclass(a, BaseModel) for a in inner)
