"""Queries that choose runs: words, fields and comparisons, such as `cifar state:running rot>90 -tag:old`."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from rotnet_keras.config.finder import did_you_mean
from rotnet_keras.errors import RecipeError

Summary = Mapping[str, Any]

# Fields of text, with the key of a summary.
TEXT_FIELDS = {"name": "name", "recipe": "recipe", "state": "state", "tag": "tags", "note": "note", "device": "device"}
# Fields of numbers, each with how it is read from a summary.
NUMBER_FIELDS: dict[str, Callable[[Summary], float | None]] = {
    "rot": lambda summary: _percent(summary["rotation_accuracy"]),
    "obj": lambda summary: _percent(summary["object_accuracy"]),
    "loss": lambda summary: summary["loss"],
    "epoch": lambda summary: summary["epoch"],
    "step": lambda summary: summary["step"],
    "lr": lambda summary: summary["learning_rate"],
    "speed": lambda summary: summary["images_per_s"],
    "age": lambda summary: None if summary["created"] is None else time.time() - summary["created"],
    "left": lambda summary: summary["seconds_left"],
}
FIELDS = (*TEXT_FIELDS, *NUMBER_FIELDS)
# Fields whose numbers are times, which may have a unit; without one they are hours.
TIMES = ("age", "left")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
COMPARED: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    "=": lambda a, b: a == b,
}
# A term: a minus sign, a field with its comparison, and a value that may stand in quotes.
TERM = re.compile(r'(-?)(?:([a-z]+)(:|>=|<=|>|<|=))?("[^"]*"?|\S*)')


@dataclass(frozen=True)
class Query:
    """A query; a run has to fulfil all its terms.

    Attributes:
        text: as it was typed.
    """

    text: str
    terms: Sequence[Callable[[Summary], bool]]

    def matches(self, summary: Summary) -> bool:
        """Return whether a run fulfils the query; its summary is as of `rotnet_keras.runs.status.summary`."""
        return all(term(summary) for term in self.terms)


def parse_query(text: str, strict: bool = True) -> Query:
    """Read a query.

    Args:
        text: as it was typed.
        strict: whether a term that makes no sense is an error; else it is left out.

    Raises:
        RecipeError: a field does not exist, or its value is missing or no number; the message says what there is.
    """
    terms: list[Callable[[Summary], bool]] = []
    for found in TERM.finditer(text):
        minus, field, compare, value = found.groups()
        if not found[0]:
            continue
        if not field and found[0] == "-":
            minus, value = "", "-"
        try:
            term = _term(field, compare, value.strip('"').lower(), found[0])
        except RecipeError:
            if strict:
                raise
            continue
        terms.append(_without(term) if minus else term)
    return Query(text, terms)


def _term(field: str | None, compare: str, value: str, typed: str) -> Callable[[Summary], bool]:
    if field is None:
        return lambda summary: any(value in words.lower() for key in TEXT_FIELDS for words in _texts(summary, key))
    if field not in FIELDS:
        raise RecipeError(f"no field called {field!r}{did_you_mean(field, FIELDS)}; there are: {', '.join(FIELDS)}")
    if not value:
        example = f"{field}>{'2h' if field in TIMES else '90'}" if field in NUMBER_FIELDS else f"{field}:cifar*"
        raise RecipeError(f"{typed}: expected a value, as in {example}")
    if field in TEXT_FIELDS:
        if compare not in (":", "="):
            raise RecipeError(f"{typed}: {field} is a text; expected {field}:{value}")
        pattern = f"*{value}*" if field in ("name", "note", "device") and "*" not in value else value
        return lambda summary: any(fnmatchcase(words.lower(), pattern) for words in _texts(summary, field))
    number, holds = _number(field, value, typed), COMPARED["=" if compare == ":" else compare]

    def compared(summary: Summary) -> bool:
        known = NUMBER_FIELDS[field](summary)
        return known is not None and holds(known, number)

    return compared


def _without(term: Callable[[Summary], bool]) -> Callable[[Summary], bool]:
    return lambda summary: not term(summary)


def _texts(summary: Summary, field: str) -> Sequence[str]:
    value = summary.get(TEXT_FIELDS[field])
    return list(value) if isinstance(value, (list, tuple)) else [str(value or "")]


def _number(field: str, value: str, typed: str) -> float:
    unit = UNITS.get(value[-1], 0) if field in TIMES else 0
    digits = value[:-1] if unit else value.removesuffix("%")
    try:
        return float(digits) * (unit or (UNITS["h"] if field in TIMES else 1))
    except ValueError:
        expected = "a time such as 30m, 2h or 3d" if field in TIMES else "a number"
        raise RecipeError(f"{typed}: expected {expected}, got {value!r}") from None


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def completion(text: str, summaries: Sequence[Summary]) -> str | None:
    """Return a query with its last term completed to a field, or to a value that a run has; None if there is none."""
    start, last = text[: len(text) - len(text.split(" ")[-1])], text.split(" ")[-1]
    minus, last = ("-", last[1:]) if last.startswith("-") else ("", last)
    field, colon, value = last.partition(":")
    if colon and field in TEXT_FIELDS:
        known = sorted({words for summary in summaries for words in _texts(summary, field) if " " not in words})
        found = next((words for words in known if words.lower().startswith(value.lower()) and words != value), None)
        return None if found is None or not found else f"{start}{minus}{field}:{found}"
    if not last or not last.isalpha():
        return None
    found = next((name for name in FIELDS if name.startswith(last) and name != last), None)
    return None if found is None else f"{start}{minus}{found}{':' if found in TEXT_FIELDS else '>'}"
