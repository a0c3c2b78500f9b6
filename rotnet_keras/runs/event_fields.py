"""The fields of events that readers rely on: a run folder is written by its run, but may have come from anywhere."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rotnet_keras.errors import RunError
from rotnet_keras.runs.events import Event, EventReader, parse_event

# Larger numbers are none of ours, and cannot be computed with.
MAX_NUMBER = 1e300
# Characters of a wrong value that an error shows.
SHOWN = 60

# What is expected, and whether a value is that.
Field = tuple[str, Callable[[Any], bool]]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) <= MAX_NUMBER


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


def _is_matrix(value: Any) -> bool:
    """Return whether a value is a square of numbers; it may be empty."""
    return _is_list(value, lambda row: _is_list(row, _is_number) and len(row) == len(value))


def _is_list(value: Any, item: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(item, value))


def _is_table(value: Any, fields: Mapping[str, Field]) -> bool:
    return isinstance(value, dict) and _problem(value, fields) is None


def _optional(field: Field) -> Field:
    return f"{field[0]}, if it is there", lambda value: value is MISSING or field[1](value)


def _or_null(field: Field) -> Field:
    return f"{field[0]} or null", lambda value: value is None or field[1](value)


MISSING = object()
NUMBER: Field = ("a number", _is_number)
TEXT: Field = ("a text", lambda value: isinstance(value, str))
FILE: Field = (
    "the name of a file, without folders",
    lambda value: isinstance(value, str) and value not in ("", ".", "..") and not {"/", "\0"} & set(value),
)
INDEX: Field = ("a whole number from 0 on", _is_index)
NUMBERS: Field = ("a list of numbers", lambda value: _is_list(value, _is_number))
SCORES: Field = (
    "a list of numbers or nulls",
    lambda value: _is_list(value, lambda each: each is None or _is_number(each)),
)
MATRIX: Field = ("a square of numbers", _is_matrix)
ANGLES: Field = ("a list of two angles or more", lambda value: _is_list(value, _is_number) and len(value) > 1)
# Of a loss that is no finite number, null is written.
LOSS = _or_null(NUMBER)
# An evaluation of a split.
EVALUATION: Mapping[str, Field] = {
    "accuracy": NUMBER,
    "loss": LOSS,
    **dict.fromkeys(
        (
            *("score", "score_area", "score_eleven_points", "score_area_one_crop", "score_one_crop"),
            "score_coco",
        ),
        _optional(NUMBER),
    ),
    "per_class": _optional(SCORES),
    "confusion": _optional(MATRIX),
}
TILES: Field = (
    "a list of images with angle, predicted and probability",
    lambda value: _is_list(
        value,
        lambda tile: _is_table(
            tile,
            {**dict.fromkeys(("angle", "predicted", "probability"), NUMBER), "image": _optional(INDEX)},
        ),
    ),
)
TURNS: Field = (
    "a list of images with turns, pairs of an angle and a probability",
    lambda value: _is_list(
        value,
        lambda tile: (
            isinstance(tile, dict)
            and _is_list(tile.get("turns"), lambda pair: _is_list(pair, _is_number) and len(pair) == 2)
        ),
    ),
)
GPUS: Field = (
    "a list of GPUs with an index and numbers",
    lambda value: _is_list(
        value,
        lambda gpu: _is_table(
            gpu, {"index": INDEX, **dict.fromkeys(("load", "memory", "temperature", "power"), _optional(LOSS))}
        ),
    ),
)
MEASURES: Field = (
    "a list of measures with a value",
    lambda value: _is_list(value, lambda each: _is_table(each, {"value": NUMBER, "weights": _optional(TEXT)})),
)
MEASURED_TAPS: Field = (
    "a list of taps with channels, rank and dead",
    lambda value: _is_list(
        value,
        lambda each: _is_table(
            each, {"tap": TEXT, "channels": NUMBER, "rank": LOSS, "dead": NUMBER, "knn": _optional(LOSS)}
        ),
    ),
)
# By the check of a `suitability` event: what was measured.
CHECKED: Mapping[str, Mapping[str, Field]] = {
    "bars": {"share": NUMBER},
    "marks": {"accuracy": NUMBER, "axis": _optional(NUMBER)},
    "grid": {"accuracy": NUMBER, "axis": _optional(NUMBER)},
    "sharpness": {"axis": NUMBER},
    "finest": {"accuracy": NUMBER},
    "rim": {"part": NUMBER, "rest": NUMBER},
    "alike": {"part": NUMBER, "rest": NUMBER},
}
CHECKS: Field = (
    "a table of checks with what they measured",
    lambda value: (
        isinstance(value, dict)
        and all(_is_table(found, CHECKED[key]) for key, found in value.items() if key in CHECKED)
    ),
)

# By the kind of an event: the fields that are read. Others may be there; other kinds may have any.
FIELDS: Mapping[str, Mapping[str, Field]] = {
    "step": {
        **dict.fromkeys(("step", "epoch", "accuracy", "learning_rate", "images_per_s"), NUMBER),
        "loss": LOSS,
        **dict.fromkeys(("data_wait", "gradient_norm", "weight_norm"), _optional(LOSS)),
    },
    "epoch": {
        **dict.fromkeys(("step", "epoch", "accuracy"), NUMBER),
        "loss": LOSS,
        "validation": (
            "an evaluation with accuracy, loss and what else there is",
            lambda value: value is MISSING or _is_table(value, EVALUATION),
        ),
    },
    "test": {"step": NUMBER, **EVALUATION},
    "checkpoint": {"step": NUMBER},
    "probe": {
        **dict.fromkeys(("weights", "tap", "head"), TEXT),
        "step": NUMBER,
        "probe": INDEX,
        "labels_per_class": _or_null(NUMBER),
        "top1": NUMBER,
        "top1_std": _optional(NUMBER),
        **dict.fromkeys(("validation_top1", "validation_images"), _optional(NUMBER)),
        "per_class": NUMBERS,
        "confusion": _optional(MATRIX),
    },
    "features": {"step": NUMBER, "images": NUMBER, "taps": MEASURED_TAPS, "seconds": _optional(NUMBER)},
    "samples": {"step": NUMBER, "file": FILE, "tile": NUMBER, "tiles": TILES},
    "projection": {
        "step": NUMBER,
        "tap": TEXT,
        **dict.fromkeys(("file", "images"), FILE),
        "attention": _optional(FILE),
        "seconds": _optional(NUMBER),
    },
    "suitability": {
        "angles": ANGLES,
        "right": ("a list of counts", lambda value: _is_list(value, _is_number) and len(value) > 1),
        **dict.fromkeys(("images", "undecided"), NUMBER),
        "split": TEXT,
        "file": _optional(TEXT),
        "tile": _optional(NUMBER),
        "half_turns": _or_null(NUMBER),
        "tiles": _optional(TURNS),
        "giveaways": CHECKS,
        "reliance": CHECKS,
    },
    "novelty": {
        **dict.fromkeys(("step", "images", "known", "auroc", "auroc_log"), NUMBER),
        "classes": ("a list of names", lambda value: _is_list(value, lambda each: isinstance(each, str))),
    },
    "run": {
        "step": NUMBER,
        "name": TEXT,
        "seed": NUMBER,
        "folder": TEXT,
        "seconds": _optional(NUMBER),
        "measures": MEASURES,
    },
    "picture": {
        "number": NUMBER,
        "file": TEXT,
        "title": TEXT,
        "scores": (
            "a table of numbers",
            lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
        ),
    },
    "system": {
        **dict.fromkeys(
            ("cpu", "memory", "machine_cpu", "machine_memory", "machine_total", "disk_free"), _optional(LOSS)
        ),
        "gpus": _optional(GPUS),
    },
    "warning": {"message": TEXT},
    "end": {"message": TEXT},
}


def event_problem(event: Event) -> str | None:
    """Say which field of an event is missing or of a wrong type: "accuracy: expected a number, got None"; else None."""
    fields = FIELDS.get(event["kind"])
    return None if fields is None else _problem(event, fields)


def check_events(file: Path, events: Iterable[Event]) -> None:
    """Check that events have the fields that are read.

    Args:
        file: that they were read from, for the error.
        events: all of its events, or some.

    Raises:
        RunError: one has not; the message names the first such line of the file.
    """
    found = next((problem for problem in map(event_problem, events) if problem), None)
    if found is None:
        return
    reader = EventReader(file)
    where = str(file)
    for number, line in enumerate(reader.new_lines(), 1):
        event = parse_event(line)
        if event is not None and (problem := event_problem(event)):
            # Lines that are too long are counted, but not yielded.
            where, found = f"{file}, line {number + reader.unreadable}", f"{event['kind']}: {problem}"
            break
    raise RunError(
        f"{where}: {found}. The file is damaged, or another program or version of rotnet-keras wrote it; delete the "
        "line to read the rest"
    )


def _problem(values: Mapping[str, Any], fields: Mapping[str, Field]) -> str | None:
    for key, (expected, holds) in fields.items():
        value = values.get(key, MISSING)
        if not holds(value):
            shown = "nothing" if value is MISSING else _short(repr(value))
            return f"{key}: expected {expected}, got {shown}"
    return None


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
