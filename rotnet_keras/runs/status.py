"""Runs in a line, in a paragraph and side by side."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rotnet_keras.errors import RunError
from rotnet_keras.runs import suitability
from rotnet_keras.runs.events import Event, probe_images, usual_pause
from rotnet_keras.runs.folder import RunFolder, command_line
from rotnet_keras.runs.oom_advice import advice
from rotnet_keras.runs.task_labels import score_of, task_of
from rotnet_keras.runs.verdict import verdict

NUMBERS = (
    *("step", "steps", "epoch", "epochs", "loss", "rotation_accuracy", "object_accuracy", "images_per_s"),
    *("seconds_left", "data_wait", "learning_rate", "created"),
)
WORDS = ("recipe", "device", "message")
COLUMNS = ("run", "state", "recipe", "epoch", "rotation", "object", "left", "created")


@contextmanager
def understood(*runs: RunFolder) -> Iterator[None]:
    """Reading what another program, or a damaged disk, may have written in the place of a run's files.

    Raises:
        RunError: they say something that this version has no meaning for.
    """
    try:
        yield
    except (AttributeError, KeyError, IndexError, OverflowError, TypeError, ValueError) as error:
        names = " or ".join(run.name for run in runs)
        raise RunError(
            f"{names} cannot be understood by this version of rotnet-keras: its files are damaged, or not its own "
            f"({type(error).__name__}: {error})"
        ) from None


def summary(run: RunFolder) -> dict[str, Any]:
    """What is worth knowing of a run at a glance, from the end of its events; None where not known.

    The object accuracy is that of the tap and head that are best on validation; of a classifier in training it
    is that of the last validation, and after its end that on test. One folder that cannot be understood does not keep
    others from being listed: its state is "unknown".
    """
    known = {"name": run.name, "path": str(run.path)}
    try:
        with understood(run):
            found = _summary(run)
    except RunError as error:
        facts = run.facts()
        found = {"recipe": facts.get("recipe"), "created": facts.get("created"), "state": "unknown", "message": error}
    numbers = {key: found[key] if _is_number(found.get(key)) else None for key in NUMBERS}
    words = {key: None if found.get(key) is None else str(found[key]) for key in WORDS}
    return {**known, "state": str(found["state"]), **numbers, **words}


def _is_number(value: Any) -> bool:
    """Whether it is one that everybody can count with, and that is a time of day if need be."""
    return isinstance(value, (int, float)) and abs(value) < 1e11


def _summary(run: RunFolder) -> dict[str, Any]:
    tail, facts = run.tail(), run.facts()
    state = run.state(tail)
    steps = [e for e in tail if e["kind"] == "step"]
    epochs = [e for e in tail if e["kind"] == "epoch"]
    probes = [e for e in tail if e["kind"] == "probe" and e["weights"] == "rotnet" and not e["labels_per_class"]]
    done = [e for e in tail if e["kind"] == "run"]
    last_step = max((e["step"] for e in [*steps, *epochs, *done]), default=0)
    best = max(probes, key=lambda e: e.get("validation_top1", 0), default=None)
    trained = score_of(epochs[-1].get("validation") or epochs[-1]) if epochs else None
    classifies = run.settings().get("kind") in ("classify", "transfer")
    tested = [score_of(e) for e in tail if e["kind"] == "test"]
    objects = (tested[-1] if tested else trained) if classifies else best["top1"] if best else None
    per_epoch, total = facts.get("steps_per_epoch"), facts.get("steps")
    return {
        "state": state,
        "recipe": facts.get("recipe"),
        "step": last_step,
        "steps": total,
        "epoch": round(last_step / per_epoch, 2) if per_epoch else None,
        "epochs": round(total / per_epoch, 2) if per_epoch and total else None,
        "loss": steps[-1]["loss"] if steps else None,
        "rotation_accuracy": None if classifies else trained,
        "object_accuracy": objects,
        "images_per_s": steps[-1]["images_per_s"] if steps else None,
        "seconds_left": _seconds_left(steps, total) if state == "running" and last_step < (total or 0) else None,
        "data_wait": steps[-1].get("data_wait") if steps else None,
        "learning_rate": steps[-1]["learning_rate"] if steps else None,
        "device": facts.get("device"),
        "created": facts.get("created"),
        "message": explanation(run, state, tail),
    }


def explanation(run: RunFolder, state: str, tail: Sequence[Event]) -> str:
    """Why a run is not going on, and what to do about it; empty where there is nothing to explain."""
    last = tail[-1] if tail else None
    if last and last["kind"] == "end":
        return str(last["message"])
    if state == "killed":
        saved = [e["step"] for e in tail if e["kind"] == "checkpoint"]
        where = f"from step {saved[-1]}" if saved else "from its last checkpoint"
        told = (
            "Its process is gone without a goodbye: killed by somebody, by the kernel for want of memory, or with the "
            f"machine. Go on {where} with: {command_line('resume', run)}"
        )
        trained = any(e["kind"] in ("step", "epoch", "probe") for e in tail)
        return told if trained or not (smaller := advice(run)) else f"{told}. If it was for want of memory: {smaller}"
    if state == "stalled" and last:
        silence, pause = time.time() - last["time"], usual_pause(list(tail))
        return (
            f"Its process lives, but there was no step for {silence / 60:.0f} min, where {pause:.1f} s are usual. "
            f"See its log. To end it: {command_line('kill', run)}; to go on from its last checkpoint then, resume it."
        )
    return ""


def judgement(run: RunFolder) -> str | None:
    """Whether a pretraining learns, and should; from all of its events. None where none has made a step."""
    events = run.milestones()
    if not any(e["kind"] == "step" for e in events):
        return None
    text = verdict(events, task_of(run).count).text
    suits = suitability.suitability_of(events)
    return f"{text} {suitability.QUESTION} {suitability.summary(suits)}" if suits else text


def as_row(found: dict[str, Any]) -> list[str]:
    """A summary in the cells of `COLUMNS`."""
    epoch = "" if found["epoch"] is None else f"{found['epoch']:g}/{found['epochs']:g}"
    created = "" if found["created"] is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(found["created"]))
    left = "" if found["seconds_left"] is None else f"{found['seconds_left'] / 60:.0f} min"
    return [
        found["name"],
        found["state"],
        found["recipe"] or "",
        epoch,
        _percent(found["rotation_accuracy"]),
        _percent(found["object_accuracy"]),
        left,
        created,
    ]


def in_lines(found: dict[str, Any]) -> str:
    """A summary as "key: value" lines, without what is not known."""
    shown = {**found, "created": time.ctime(found["created"]) if found["created"] else None}
    return "\n".join(f"{key.replace('_', ' ')}: {value}" for key, value in shown.items() if value not in (None, ""))


def comparison(runs: Sequence[RunFolder]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: a line for each result and each recipe key in which the runs differ.

    A column is headed by the run's name, or by its path where another run has the same name.
    """
    flat = [_flat(run.settings()) for run in runs]
    keys = [key for key in dict.fromkeys(key for f in flat for key in f) if len({str(f.get(key)) for f in flat}) > 1]
    events = [run.events() for run in runs]
    rows = [["state", *(run.state() for run in runs)]]
    validated = [[e["validation"] for e in run if e["kind"] == "epoch" and "validation" in e] for run in events]
    accuracies = [[score_of(v) for v in run] for run in validated]
    names = list(dict.fromkeys(task_of(run).score or task_of(run).accuracy for run in runs))
    name = names[0] if len(names) == 1 else "accuracy"
    rows.append([f"{name}, validation, last", *(_percent(a[-1] if a else None) for a in accuracies)])
    rows.append([f"{name}, validation, best", *(_percent(max(a, default=None)) for a in accuracies)])
    rows.append(["loss, validation, last", *(f"{v[-1]['loss']:.3f}" if v else "" for v in validated)])
    tested = [[score_of(e) for e in run if e["kind"] == "test"] for run in events]
    if any(tested):
        rows.append([f"{name}, test", *(_percent(t[-1] if t else None) for t in tested)])
    results = [_probe_results(e, run.settings()) for e, run in zip(events, runs, strict=True)]
    for result in dict.fromkeys(result for r in results for result in r):
        rows.append([result, *(r.get(result, "") for r in results)])
    rows += [[key, *(str(f.get(key, "")) for f in flat)] for key in keys]
    names = [run.name for run in runs]
    return ["", *(run.name if names.count(run.name) == 1 else str(run.path) for run in runs)], rows


def _seconds_left(steps: Sequence[Event], total: int | None) -> float | None:
    pause = usual_pause(list(steps))
    if not pause or not total:
        return None
    grain = steps[-1]["step"] - steps[-2]["step"]
    return pause / max(1, grain) * (total - steps[-1]["step"])


def _probe_results(events: Sequence[Event], recipe: dict[str, Any]) -> dict[str, str]:
    results = {}
    for e in events:
        if e["kind"] == "probe":
            results[f"{e['head']} on {e['tap']}, {e['weights']}, {probe_images(e, recipe)}"] = _percent(e["top1"])
    return results


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for i, item in enumerate(value):
                flat |= _flat(item, f"{prefix}{key}.{i}.")
        else:
            flat[prefix + key] = value
    return flat


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
