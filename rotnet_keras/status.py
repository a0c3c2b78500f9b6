"""Runs in a line, in a paragraph and side by side."""

import time
import tomllib
from collections.abc import Sequence
from typing import Any

from rotnet_keras.runs import Event, RunFolder, usual_pause

COLUMNS = ("run", "state", "recipe", "epoch", "rotation", "probe", "left", "created")


def summary(run: RunFolder) -> dict[str, Any]:
    """What is worth knowing of a run at a glance, from the end of its events; None where not known.

    The probe accuracy is that of the tap and head that are best on validation.
    """
    tail, facts = run.tail(), run.facts()
    state = run.state(tail)
    steps = [e for e in tail if e["kind"] == "step"]
    epochs = [e for e in tail if e["kind"] == "epoch"]
    probes = [e for e in tail if e["kind"] == "probe" and e["weights"] == "rotnet" and not e["labels_per_class"]]
    last_step = max((e["step"] for e in [*steps, *epochs]), default=0)
    best = max(probes, key=lambda e: e.get("validation_top1", 0), default=None)
    rotation = (epochs[-1].get("validation") or epochs[-1])["accuracy"] if epochs else None
    per_epoch, total = facts.get("steps_per_epoch"), facts.get("steps")
    end = tail[-1] if tail and tail[-1]["kind"] == "end" else None
    return {
        "name": run.name,
        "path": str(run.path),
        "state": state,
        "recipe": facts.get("recipe"),
        "step": last_step,
        "steps": total,
        "epoch": round(last_step / per_epoch, 2) if per_epoch else None,
        "epochs": round(total / per_epoch, 2) if per_epoch and total else None,
        "loss": steps[-1]["loss"] if steps else None,
        "rotation_accuracy": rotation,
        "probe_accuracy": best["top1"] if best else None,
        "images_per_s": steps[-1]["images_per_s"] if steps else None,
        "seconds_left": _seconds_left(steps, total) if state == "running" and last_step < (total or 0) else None,
        "created": facts.get("created"),
        "message": end["message"] if end else "",
    }


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
        _percent(found["probe_accuracy"]),
        left,
        created,
    ]


def in_lines(found: dict[str, Any]) -> str:
    """A summary as "key: value" lines, without what is not known."""
    shown = {**found, "created": time.ctime(found["created"]) if found["created"] else None}
    return "\n".join(f"{key.replace('_', ' ')}: {value}" for key, value in shown.items() if value not in (None, ""))


def comparison(runs: Sequence[RunFolder]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: a line for each result and each recipe key in which the runs differ."""
    flat = [_flat(tomllib.loads(run.recipe.read_text(encoding="utf-8"))) for run in runs]
    keys = [key for key in dict.fromkeys(key for f in flat for key in f) if len({str(f.get(key)) for f in flat}) > 1]
    events = [run.events() for run in runs]
    rows = [["state", *(run.state() for run in runs)]]
    rows.append(["rotation accuracy, validation", *(_rotation(e) for e in events)])
    results = [_probe_results(e) for e in events]
    for name in dict.fromkeys(name for r in results for name in r):
        rows.append([name, *(r.get(name, "") for r in results)])
    rows += [[key, *(str(f.get(key, "")) for f in flat)] for key in keys]
    return ["", *(run.name for run in runs)], rows


def _seconds_left(steps: Sequence[Event], total: int | None) -> float | None:
    pause = usual_pause(list(steps))
    if not pause or not total:
        return None
    grain = steps[-1]["step"] - steps[-2]["step"]
    return pause / max(1, grain) * (total - steps[-1]["step"])


def _rotation(events: Sequence[Event]) -> str:
    validated = [e["validation"]["accuracy"] for e in events if e["kind"] == "epoch" and "validation" in e]
    return _percent(validated[-1] if validated else None)


def _probe_results(events: Sequence[Event]) -> dict[str, str]:
    results = {}
    for e in events:
        if e["kind"] == "probe":
            labels = f", {e['labels_per_class']} labels per class" if e["labels_per_class"] else ""
            results[f"{e['head']} on {e['tap']}, {e['weights']}{labels}"] = _percent(e["top1"])
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
