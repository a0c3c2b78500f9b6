"""What trackers get of a run: parameters from its recipe, metrics from its events."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from rotnet_keras.runs.events import Event

# By the kind of an event: what begins the names of its numbers.
PREFIXES = {
    **{"step": "train", "epoch": "epoch", "test": "test"},
    **{"suitability": "suitability", "novelty": "novelty", "system": "system"},
}
# What every event has, and what is no measurement.
LEFT_OUT = {"kind", "time", "step", "steps", "tile", "images"}
# Characters that not every tracker takes in a name.
UNUSUAL = re.compile(r"[^\w./ -]")


def parameters(recipe: Mapping[str, Any]) -> dict[str, str]:
    """Flatten a recipe: `train.batch`, `probe.0.head`; lists of values become JSON.

    Args:
        recipe: its values, as they are in the file.
    """
    return dict(_flat("", recipe))


def _flat(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _flat(f"{key}.{name}" if key else str(name), each)
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        for number, each in enumerate(value):
            yield from _flat(f"{key}.{number}", each)
    elif isinstance(value, list):
        yield UNUSUAL.sub("_", key), json.dumps(value, default=str)
    else:
        yield UNUSUAL.sub("_", key), str(value)


def metrics(event: Event) -> dict[str, float]:
    """The numbers of an event, by names such as `train/loss` and `probe/0/pretrained/conv2/top1`.

    Lists, such as a confusion matrix, are left out: the report has them.
    """
    return {UNUSUAL.sub("_", name): value for name, value in _named(event)}


def _named(event: Event) -> Iterator[tuple[str, float]]:
    kind = event["kind"]
    if kind in PREFIXES:
        yield from _numbers(PREFIXES[kind], event)
        yield from _numbers("validation", event.get("validation"))
        for gpu in _tables(event.get("gpus")):
            yield from _numbers(f"system/gpu{gpu.get('index')}", {**gpu, "index": None})
    elif kind == "features":
        for tap in _tables(event.get("taps")):
            yield from _numbers(f"features/{tap.get('tap')}", tap)
    elif kind == "probe":
        labels = event.get("labels_per_class")
        name = f"probe/{event.get('probe')}/{event.get('weights')}/{event.get('tap')}"
        scores = {key: value for key, value in event.items() if key.startswith(("top1", "validation_top1"))}
        yield from _numbers(name if labels is None else f"{name}/{labels} labels per class", scores)


def _numbers(prefix: str, values: Any) -> Iterator[tuple[str, float]]:
    if isinstance(values, Mapping):
        for key, value in values.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool) and key not in LEFT_OUT:
                yield f"{prefix}/{key}", float(value)


def _tables(values: Any) -> list[Mapping[str, Any]]:
    return [each for each in values if isinstance(each, Mapping)] if isinstance(values, list) else []
