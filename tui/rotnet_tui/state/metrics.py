"""Every metric of a run as a series over its steps, by name, and how people choose some by patterns."""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from rotnet_keras.runs.events import Event
from rotnet_keras.runs.task_labels import per_class_recall
from rotnet_tui.state.history import History

# Of more classes than this, the accuracy of each is not offered.
MAX_CLASSES = 12
PERCENT = "%"
# Metrics of step events that are shown in percent.
SHARES = ("accuracy", "data_wait")
SYSTEM_UNITS = {"memory": "GB", "free": "GB", "cpu": PERCENT, "load": PERCENT, "power": "W", "temperature": "°C"}
# How a chart without a wildcard is called, and its curves.
NAMED = {
    "loss+validation_loss": ("loss", ("train", "validation")),
    "accuracy+validation_accuracy": ("accuracy", ("train", "validation")),
}


@dataclass(frozen=True)
class Series:
    """A metric by step.

    Attributes:
        smooth: whether it is noisy enough to be smoothed.
        chance: its value at chance level; None if it has none.
        format: of its values.
        unit: of its values, empty if they have none.
        seconds: of training before each value; None where they follow from the steps.
    """

    steps: Sequence[float]
    values: Sequence[float]
    smooth: bool = False
    chance: float | None = None
    format: str = ".3g"
    unit: str = ""
    seconds: Sequence[float] | None = None


Metrics = dict[str, Callable[[], Series]]


def metrics_of(history: History) -> Metrics:
    """The metrics that a run has, by name; each is made when it is called."""
    classes = history.task.num_classes
    chances = {"loss": math.log(classes), "accuracy": 100 / classes}
    found: Metrics = {}
    columns = history.columns
    for name in columns:
        if name not in ("step", "epoch", "seconds") and any(value == value for value in columns[name]):
            found[name] = lambda name=name: _of_steps(history, name, chances.get(name))  # type: ignore[misc]
    validated = [e for e in history.epochs if "validation" in e]
    for key in ("loss", "accuracy", "score"):
        if any(e["validation"].get(key) is not None for e in validated):
            found[f"validation_{key}"] = lambda key=key: _of_validation(validated, key, chances.get(key))  # type: ignore[misc]
    names = [name.removesuffix("°") for name in history.task.classes]
    with_matrix = [e for e in validated if len(e["validation"].get("confusion") or ()) == len(names)]
    if with_matrix and len(names) <= MAX_CLASSES:
        for number, name in enumerate(names):
            found[f"accuracy_{'_'.join(name.split())}"] = lambda number=number: _of_class(  # type: ignore[misc]
                with_matrix, number, chances["accuracy"]
            )
    for probe in history.events["probe"]:
        if probe["weights"] == "rotnet" and not probe["labels_per_class"]:
            what = (probe["tap"], probe["head"])
            found["_".join(("probe", *what))] = lambda what=what: _of_probe(history.events["probe"], what)  # type: ignore[misc]
    for event in history.events["features"]:
        for tap in event["taps"]:
            name = tap["tap"]
            found[f"rank_{name}"] = lambda name=name: _of_features(history.events["features"], name)  # type: ignore[misc]
    for name, values in history.system_figures().items():
        if any(value == value for value in values):
            found[name] = lambda name=name, values=values: _of_system(history, name, values)  # type: ignore[misc]
    return found


def chosen(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that a pattern such as "loss+validation_*" stands for, in the order of its parts."""
    known = list(names)
    parts = [part.strip() for part in pattern.split("+")]
    return list(dict.fromkeys(name for part in parts for name in known if fnmatchcase(name, part)))


def chart_names(pattern: str, found: Sequence[str]) -> tuple[str, list[str]]:
    """The title of a chart, and a short name for each of its curves."""
    if pattern in NAMED:
        title, words = NAMED[pattern]
        return title, [words[pattern.split("+").index(name)] for name in found]
    wild = pattern.partition("*")[0] if "+" not in pattern and "*" in pattern else ""
    prefix = wild[: wild.rfind("_") + 1]
    short = [name.removeprefix(prefix) or name for name in found]
    endings = {name.rpartition("_")[2] for name in short if "_" in name}
    if wild and len(short) > 1 and len(endings) == 1 and all("_" in name for name in short):
        short = [name.rpartition("_")[0] for name in short]
    return pattern, short


def x_at(history: History, series: Series | None, axis: str) -> Sequence[float]:
    """The positions of a series on the x axis; those of all steps for None.

    Args:
        axis: "epoch", "step" or "time", in minutes.
    """
    columns = history.columns
    x = [second / 60 for second in columns["seconds"]] if axis == "time" else columns[axis]
    if series is None or series.steps is columns["step"]:
        return x
    if series.seconds is not None and axis == "time":
        return [second / 60 for second in series.seconds]
    return between(columns["step"], x, series.steps)


def between(xs: Sequence[float], ys: Sequence[float], at: Iterable[float]) -> list[float]:
    """Values between those of an ascending series, by linear interpolation; its ends beyond them."""
    if not len(xs):
        return []
    found = []
    for x in at:
        after = bisect_left(xs, x)
        if after in (0, len(xs)):
            found.append(ys[min(after, len(xs) - 1)])
            continue
        share = (x - xs[after - 1]) / (xs[after] - xs[after - 1])
        found.append(ys[after - 1] + share * (ys[after] - ys[after - 1]))
    return found


def grid_size(text: str) -> tuple[int, int] | None:
    """The columns and rows of a text such as "3x2", 1 to 3 each; None if it is none."""
    columns, by, rows = text.strip().lower().partition("x")
    if not by or columns not in "123" or rows not in "123" or not (columns and rows):
        return None
    return int(columns), int(rows)


def layout_problem(grid: str, charts: Sequence[str], names: Sequence[str]) -> str:
    """Say what is wrong with a layout of charts; empty if nothing is."""
    if grid_size(grid) is None:
        return f"grid: expected columns x rows, 1x1 to 3x3, such as 2x2; got {grid!r}"
    if not charts:
        return "charts: expected at least one metric"
    unknown = [pattern for pattern in charts if not chosen(pattern, names)]
    return f"charts: this run has no metric called {', '.join(unknown)}" if unknown and names else ""


def _of_steps(history: History, name: str, chance: float | None) -> Series:
    column = history.columns[name]
    values: Sequence[float] = [100 * value for value in column] if name in SHARES else column
    noisy = name not in ("learning_rate", "weight_norm")
    return Series(history.columns["step"], values, noisy, chance, _format(name), PERCENT if name in SHARES else "")


def _of_validation(events: Sequence[Event], key: str, chance: float | None) -> Series:
    factor = 1 if key == "loss" else 100
    values = [factor * value if (value := e["validation"].get(key)) is not None else math.nan for e in events]
    return Series([e["step"] for e in events], values, False, chance, _format(key), "" if key == "loss" else PERCENT)


def _of_class(events: Sequence[Event], number: int, chance: float) -> Series:
    values = [100 * per_class_recall(e["validation"]["confusion"])[number] for e in events]
    return Series([e["step"] for e in events], values, False, chance, ".1f", PERCENT)


def _of_probe(events: Sequence[Event], key: tuple[str, str]) -> Series:
    """The newest result of each step: a probe that is repeated writes it again."""
    results = {
        e["step"]: 100 * e["top1"]
        for e in events
        if (e["tap"], e["head"]) == key and e["weights"] == "rotnet" and not e["labels_per_class"]
    }
    return Series(list(results), list(results.values()), False, None, ".1f", PERCENT)


def _of_features(events: Sequence[Event], name: str) -> Series:
    taps = [(e["step"], tap["rank"]) for e in events for tap in e["taps"] if tap["tap"] == name]
    known = [(step, rank) for step, rank in taps if rank is not None]
    return Series([step for step, _ in known], [rank for _, rank in known], False, None, ".1f")


def _of_system(history: History, name: str, values: Sequence[float]) -> Series:
    unit = next((unit for ending, unit in SYSTEM_UNITS.items() if name.endswith(ending)), "")
    steps, seconds = [e["step"] for e in history.system], [e["at"] for e in history.system]
    return Series(steps, values, False, None, ".1f", unit, seconds)


def _format(name: str) -> str:
    return {"loss": ".3f", "accuracy": ".1f", "score": ".1f", "data_wait": ".1f"}.get(name, ".3g")
