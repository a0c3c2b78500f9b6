"""How runs are doing: each in a row of a table, in a list of lines, and several side by side."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rotnet_keras.errors import RunError
from rotnet_keras.files import READ_AT_ONCE
from rotnet_keras.runs import suitability
from rotnet_keras.runs.event_fields import check_events
from rotnet_keras.runs.events import Event, describe_probe_data, median_step_interval, newest_probes
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.machine_load import system_summary
from rotnet_keras.runs.next_steps import command_line
from rotnet_keras.runs.processes import Process
from rotnet_keras.runs.tags import read_labels
from rotnet_keras.runs.task_labels import score_of, task_of
from rotnet_keras.runs.verdict import verdict
from rotnet_keras.text import duration, percent

# The keys of a summary whose values are numbers, and those whose values are text.
NUMBER_KEYS = (
    *("step", "steps", "epoch", "epochs", "loss", "rotation_accuracy", "object_accuracy", "images_per_s"),
    *("seconds_left", "data_wait", "learning_rate", "created"),
)
TEXT_KEYS = ("recipe", "device", "process", "job", "message")
# The states of a run whose process does something, as far as is known.
LIVE_STATES = ("starting", "running", "stopping")
# The columns of a table of runs.
COLUMNS = ("run", "state", "recipe", "epoch", "rotation", "object", "left", "created")

# What TensorFlow, its devices and Python say when memory runs out.
OUT_OF_MEMORY_SIGNS = ("ResourceExhausted", "OOM", "MemoryError", "out of memory", "Unable to allocate", "bad_alloc")


def summary(run: RunFolder) -> dict[str, Any]:
    """Return what matters most about a run, from the end of its events; None for what is not known.

    The object accuracy of a pretraining is the test accuracy of the probe whose tap and head are best on validation.
    That of a classifier is its last validation accuracy, and after the end its test accuracy. A folder that cannot be
    read gets the state "unknown", so that the others can still be listed.
    """
    known = {"name": run.name, "path": str(run.path)}
    try:
        found = _summary(run)
    except RunError as error:
        facts = run.facts()
        found = {"recipe": facts.get("recipe"), "created": facts.get("created"), "state": "unknown", "message": error}
    numbers = {key: found[key] if _is_number(found.get(key)) else None for key in NUMBER_KEYS}
    words = {key: None if found.get(key) is None else str(found[key]) for key in TEXT_KEYS}
    labels = read_labels(run)
    return {**known, "state": str(found["state"]), **numbers, **words, "tags": list(labels.tags), "note": labels.note}


def summaries(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """Return the summary of each run. Several are read at once, since thousands on a far disk take long in turn."""
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        return list(pool.map(summary, runs))


def _is_number(value: Any) -> bool:
    """Return whether a value is a finite number, small enough to be a time of day."""
    return isinstance(value, (int, float)) and abs(value) < 1e11


def _summary(run: RunFolder) -> dict[str, Any]:
    recipe, facts = run.recipe_values(), run.facts()
    classifies = recipe.get("kind") in ("classify", "transfer")
    kinds = ["step", "epoch", "checkpoint"]
    kinds += ["test"] if classifies else ["run"] if recipe.get("kind") == "study" else []
    kinds += ["probe"] if recipe.get("probe") else []
    # Whether the process lives is read before its last events, which say how it ended.
    process = run.process()
    tail = run.newest_events(kinds)
    check_events(run.events_file, tail)
    state = run.state(process, tail)
    steps = [e for e in tail if e["kind"] == "step"]
    epochs = [e for e in tail if e["kind"] == "epoch"]
    probes = [e for e in newest_probes(tail) if e["weights"] == "rotnet" and not e["labels_per_class"]]
    done = [e for e in tail if e["kind"] == "run"]
    last_step = max((e["step"] for e in [*steps, *epochs, *done]), default=0)
    best = max(probes, key=lambda e: e.get("validation_top1", 0), default=None)
    trained = score_of(epochs[-1].get("validation") or epochs[-1]) if epochs else None
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
        "process": _process_elsewhere(run) if process is Process.ELSEWHERE and state in LIVE_STATES else None,
        "job": run.job() if state in (*LIVE_STATES, "pending") else None,
        "created": facts.get("created"),
        "message": explanation(run, state, tail),
    }


def _process_elsewhere(run: RunFolder) -> str:
    return f"on {run.host()}, which cannot be seen from here; it last wrote {duration(run.silence())} ago"


def explanation(run: RunFolder, state: str, tail: Sequence[Event]) -> str:
    """Say why a run is not progressing and what to do about it; empty if there is nothing to explain."""
    last = tail[-1] if tail else None
    if state == "pending":
        done = "It goes on from its last checkpoint when its job begins again" if last else "Its job has not begun"
        return f"{done}. To cancel it: {command_line('stop', run)}"
    if last and last["kind"] == "end":
        return str(last.get("message", ""))
    if state == "stopped":
        return f"Its job was cancelled before it began. Start it with: {command_line('resume', run)}"
    if state == "killed":
        saved = [e["step"] for e in tail if e["kind"] == "checkpoint"]
        where = f"from step {saved[-1]}" if saved else "from its last checkpoint"
        text = (
            "Its process ended unexpectedly: it was killed, the system ran out of memory, or the machine went "
            f"down. Resume {where} with: {command_line('resume', run)}"
        )
        trained = any(e["kind"] in ("step", "epoch", "probe") for e in tail)
        advice = "" if trained else smaller_batch_advice(run)
        return f"{text}. If memory ran out: {advice}" if advice else text
    if state == "stalled" and run.process() is Process.ELSEWHERE:
        return (
            f"Its process was started on {run.host()}, and has written nothing for {duration(run.silence())}. Whether "
            f"it still runs cannot be seen from here. If it does, stop it with: {command_line('stop', run)}. If not, "
            f"resume it with: {command_line('resume', run)}"
        )
    if state == "stalled" and last:
        silence, interval = time.time() - last["time"], median_step_interval(list(tail))
        return (
            f"Its process is alive, but has logged no step for {duration(silence)}; usually it logs one every "
            f"{interval:.1f} s. Look at its log. To end it: {command_line('kill', run)}; then resume it from its last "
            f"checkpoint with: {command_line('resume', run)}"
        )
    return ""


def is_out_of_memory(message: str) -> bool:
    """Return whether an error message says that memory ran out."""
    return any(sign in message for sign in OUT_OF_MEMORY_SIGNS)


def smaller_batch_advice(run: RunFolder) -> str:
    """Say how to train with less memory; empty if a batch has only one image already."""
    batch, inputs = run.recipe_values().get("train", {}).get("batch", 1), run.facts().get("inputs_per_step")
    if batch < 2:
        return ""
    return (
        f"train.batch={batch} means {inputs or 'several times as many'} inputs per step. Try a new run with "
        f"train.batch={batch // 2}, or with train.accumulate=2, which computes the same batch in two parts."
    )


def verdict_text(run: RunFolder) -> str | None:
    """Say whether a pretraining is learning and whether rotation suits its images; None before the first step.

    Raises:
        RunError: events lack fields, or have others than expected.
    """
    events = run.thinned_events()
    check_events(run.events_file, events)
    if not any(e["kind"] == "step" for e in events):
        return None
    text = verdict(events, task_of(run).num_classes).text
    suits = suitability.latest_suitability(events)
    return f"{text} {suitability.QUESTION} {suitability.summary(suits)}" if suits else text


def summary_row(found: dict[str, Any]) -> list[str]:
    """Return a summary as the cells of `COLUMNS`."""
    known = None not in (found["epoch"], found["epochs"])
    epoch = f"{found['epoch']:g}/{found['epochs']:g}" if known else ""
    created = "" if found["created"] is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(found["created"]))
    return [
        found["name"],
        found["state"],
        found["recipe"] or "",
        epoch,
        percent(found["rotation_accuracy"]),
        percent(found["object_accuracy"]),
        duration(found["seconds_left"]),
        created,
    ]


def summary_lines(found: dict[str, Any]) -> str:
    """Return a summary as "key: value" lines, without what is not known."""
    shown = {"time_left" if key == "seconds_left" else key: value for key, value in found.items()}
    shown |= {
        "rotation_accuracy": percent(found["rotation_accuracy"]),
        "object_accuracy": percent(found["object_accuracy"]),
        "data_wait": percent(found["data_wait"]),
        **{key: f"{found[key]:.4g}" for key in ("loss", "learning_rate") if found[key] is not None},
        "time_left": duration(found["seconds_left"]),
        "tags": " ".join(found["tags"]),
        "created": time.ctime(found["created"]) if found["created"] else None,
    }
    return "\n".join(f"{key.replace('_', ' ')}: {value}" for key, value in shown.items() if value not in (None, ""))


def comparison_table(runs: Sequence[RunFolder]) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of a comparison: a row for each result, and for each recipe key in which runs differ.

    The heading of a column is the name of its run, or the path if another run has the same name.

    Raises:
        RunError: events of a run lack fields, or have others than expected.
    """
    flat = [_flat(run.recipe_values()) for run in runs]
    keys = [key for key in dict.fromkeys(key for f in flat for key in f) if len({str(f.get(key)) for f in flat}) > 1]
    events = [run.events() for run in runs]
    for run, found in zip(runs, events, strict=True):
        check_events(run.events_file, found)
    rows = [["state", *(run.state() for run in runs)]]
    labels = [read_labels(run) for run in runs]
    rows += [["tags", *(" ".join(each.tags) for each in labels)]] if any(each.tags for each in labels) else []
    rows += [["note", *(each.note for each in labels)]] if any(each.note for each in labels) else []
    validated = [[e["validation"] for e in run if e["kind"] == "epoch" and "validation" in e] for run in events]
    accuracies = [[score_of(v) for v in run] for run in validated]
    names = list(dict.fromkeys(task_of(run).score_name or task_of(run).accuracy_name for run in runs))
    name = names[0] if len(names) == 1 else "accuracy"
    rows.append([f"{name}, validation, last", *(percent(a[-1] if a else None) for a in accuracies)])
    rows.append([f"{name}, validation, best", *(percent(max(a, default=None)) for a in accuracies)])
    rows.append(["loss, validation, last", *(_loss(v[-1]["loss"] if v else None) for v in validated)])
    tested = [[score_of(e) for e in run if e["kind"] == "test"] for run in events]
    if any(tested):
        rows.append([f"{name}, test", *(percent(t[-1] if t else None) for t in tested)])
    results = [_probe_results(e, run.recipe_values()) for e, run in zip(events, runs, strict=True)]
    for result in dict.fromkeys(result for r in results for result in r):
        rows.append([result, *(r.get(result, "") for r in results)])
    used = [system_summary(e) for e in events]
    rows += [[key, *(u.get(key, "") for u in used)] for key in dict.fromkeys(key for u in used for key in u)]
    rows += [[key, *(str(f.get(key, "")) for f in flat)] for key in keys]
    names = [run.name for run in runs]
    return ["", *(run.name if names.count(run.name) == 1 else str(run.path) for run in runs)], rows


def _loss(value: float | None) -> str:
    """Format a loss; empty where it is not known, or no finite number."""
    return "" if value is None else f"{value:.3f}"


def _seconds_left(steps: Sequence[Event], total: int | None) -> float | None:
    interval = median_step_interval(list(steps))
    if not interval or not total:
        return None
    steps_apart = steps[-1]["step"] - steps[-2]["step"]
    return interval / max(1, steps_apart) * (total - steps[-1]["step"])


def _probe_results(events: Sequence[Event], recipe: dict[str, Any]) -> dict[str, str]:
    results = {}
    for e in events:
        if e["kind"] == "probe":
            results[f"{e['head']} on {e['tap']}, {e['weights']}, {describe_probe_data(e, recipe)}"] = percent(e["top1"])
    return results


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested recipe values by dotted key; tables of a list are numbered."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            for i, item in enumerate(value):
                flat |= _flat(item, f"{prefix}{key}.{i}.")
        else:
            flat[prefix + key] = value
    return flat
