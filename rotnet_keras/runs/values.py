"""What readers of run folders rely on: a folder is written by its run, but may have come from anywhere."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rotnet_keras.files import has_file
from rotnet_keras.runs.events import Event

# A larger `run.json` is not one of ours: that of a run with 20,000 classes has half a megabyte.
MAX_FACTS_BYTES = 1 << 23
# How a run may be called, and everything else that becomes the name of a file.
PLAIN_NAME = re.compile(r"\w[\w.+-]{0,99}")
# How a run may have ended, as its end event says.
OUTCOMES = ("finished", "stopped", "failed")

Types = Mapping[str, type | tuple[type, ...]]
FACT_TYPES: Types = {
    **dict.fromkeys(("data", "overrides", "versions", "model_file", "submission", "run_seconds"), dict),
    **dict.fromkeys(("steps", "steps_per_epoch", "inputs_per_step", "parameters", "created", "queued"), (int, float)),
    **dict.fromkeys(("recipe", "host", "device", "processor", "python", "scale"), str),
}
RECIPE_TYPES: Types = {
    **dict.fromkeys(("kind", "task", "title", "paper", "scale"), str),
    **dict.fromkeys(("data", "train", "rotation", "backbone", "pretrained", "scales", "set"), dict),
    **dict.fromkeys(("probe", "table", "finding", "run", "picture"), list),
}

# The same of entries of their tables.
Entries = Mapping[str, Types]
FACT_ENTRIES: Entries = {"data": {"classes": list, "name": str}, "backbone": {"name": str, "taps": (dict, list)}}
RECIPE_ENTRIES: Entries = {
    "train": {"batch": int},
    "rotation": {"angles": list, "translation": int},
    "backbone": {"name": str, "blocks": int, "file": str},
    "pretrained": {"file": str},
    "data": {"name": str},
}


def known_facts(facts: Any) -> dict[str, Any]:
    """Return what `run.json` says, without values of a wrong type."""
    return _without_wrong(_of_types(facts, FACT_TYPES), FACT_ENTRIES)


def known_recipe_values(values: Any) -> dict[str, Any]:
    """Return what a recipe says, without values of a wrong type."""
    return _without_wrong(_of_types(values, RECIPE_TYPES), RECIPE_ENTRIES)


def outcome_of(end: Event) -> str:
    """Return how a run ended, in one of our words; "unknown" where its end event has another."""
    return end["outcome"] if end.get("outcome") in OUTCOMES else "unknown"


def file_named(folder: Path, name: Any) -> Path | None:
    """Return the file in a folder that an event names; None if it is no plain name, or there is no such file."""
    if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name) or not has_file(folder / name):
        return None
    return folder / name


def _of_types(values: Any, types: Types) -> dict[str, Any]:
    known = values if isinstance(values, dict) else {}
    return {key: value for key, value in known.items() if key not in types or _is_of(value, types[key])}


def _without_wrong(values: dict[str, Any], entries: Entries) -> dict[str, Any]:
    """Return values without entries of tables that are of a wrong type; what may not be a table stays as it is."""
    tables = {key: values[key] for key in entries if isinstance(values.get(key), dict)}
    return values | {
        key: {name: value for name, value in table.items() if isinstance(value, entries[key].get(name, object))}
        for key, table in tables.items()
    }


def _is_of(value: Any, expected: type | tuple[type, ...]) -> bool:
    """Return whether a value has a type; a list holds tables, and a number is small enough for a count or a time."""
    if not isinstance(value, expected):
        return False
    if isinstance(value, list):
        return all(isinstance(item, dict) for item in value)
    return not isinstance(value, (int, float)) or abs(value) < 1e15
