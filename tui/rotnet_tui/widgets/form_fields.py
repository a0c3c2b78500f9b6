"""The fields of a form, derived from the schema of a recipe."""

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
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
        section: the key of the table that the field belongs to; empty at the top level.
        value: the recipe's value as TOML; empty if it has none.
        choices: all allowed values; None if any value may be typed.
        is_string: whether what is typed is taken as a string without quotes, not as TOML.
        is_set: whether the file of the recipe sets it.
    """

    key: str
    section: str
    description: str
    value: str
    choices: tuple[str, ...] | None
    is_string: bool
    is_set: bool

    @property
    def label(self) -> str:
        """The key within its section."""
        return self.key.removeprefix(f"{self.section}.")


def form_fields(recipe: Recipe) -> Iterator[FormField]:
    """The fields of a recipe in the order of the schema, without `kind` and `expect`, which are not settings.

    For a study, only its scale and the folder of its data can be set: its runs and tables are edited in its file.
    """
    if isinstance(recipe, StudyRecipe):
        data_dir = recipe.set.get("data", {}).get("data_dir", "")
        description = "The folder of TensorFlow Datasets, for all runs; TFDS_DATA_DIR if not set."
        yield FormField("title", "", "", recipe.title, None, True, True)
        yield FormField("scale", "", "How large the runs are.", recipe.scale, tuple(recipe.scales), True, True)
        yield FormField("set.data.data_dir", "set", description, str(data_dir), None, True, True)
        return
    for name, info in type(recipe).model_fields.items():
        if name not in ("kind", "expect"):
            is_set = name in recipe.model_fields_set
            yield from _fields(name, info.annotation, info.description, getattr(recipe, name), "", is_set)


def _fields(
    key: str, annotation: Any, description: str | None, value: Any, section: str, is_set: bool
) -> Iterator[FormField]:
    if isinstance(value, BaseModel):
        for name, info in type(value).model_fields.items():
            set_here = is_set and name in value.model_fields_set
            yield from _fields(f"{key}.{name}", info.annotation, info.description, getattr(value, name), key, set_here)
    elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
        for i, item in enumerate(value):
            yield from _fields(f"{key}.{i}", type(item), None, item, key, is_set)
    elif _is_table(annotation):
        # An empty list of tables has no fields: tables are added in the file of the recipe.
        return
    else:
        text, choices = as_text(value, annotation), _choices(annotation)
        yield FormField(key, section, description or "", text, choices, _is_str(annotation), is_set)


def form_sections(recipe: Recipe) -> list[list[FormField]]:
    """The fields of a recipe, those of one table together, in the order of the schema."""
    return [list(fields) for _, fields in groupby(form_fields(recipe), lambda field: field.section)]


def as_text(value: Any, annotation: Any) -> str:
    """A value as it is shown in its field."""
    if value is None:
        return ""
    return value if isinstance(value, str) and _is_str(annotation) else toml(value)


def toml(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else tomlkit.item(value).as_string()


def _union_members(annotation: Any) -> list[Any]:
    """The members of a union without None, or the type itself."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [part for part in typing.get_args(annotation) if part is not type(None)]
    return [annotation]


def _choices(annotation: Any) -> tuple[str, ...] | None:
    members = _union_members(annotation)
    if members == [bool]:
        return ("true", "false")
    if len(members) == 1 and typing.get_origin(members[0]) is Literal:
        return tuple(toml(value) for value in typing.get_args(members[0]))
    return None


def _is_str(annotation: Any) -> bool:
    members = _union_members(annotation)
    literal = [v for p in members if typing.get_origin(p) is Literal for v in typing.get_args(p)]
    return members == [str] or (bool(literal) and all(isinstance(v, str) for v in literal))


def _is_table(annotation: Any) -> bool:
    members = _union_members(annotation)
    inner = [a for part in members for a in (part, *typing.get_args(part))]
    return any(isinstance(a, type) and issubclass(a, BaseModel) for a in inner)
