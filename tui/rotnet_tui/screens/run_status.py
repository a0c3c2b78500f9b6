"""What the status strip says of a run besides its numbers."""

from typing import Any

from rich.text import Text

from rotnet_keras.runs.suitability import check_results, latest_suitability
from rotnet_keras.runs.suitability import summary as suitability_summary
from rotnet_keras.runs.verdict import verdict
from rotnet_tui.screens.base import mistake
from rotnet_tui.state.history import History
from rotnet_tui.state.known_run import KnownRun


def rows_of(text: Text, width: int) -> list[int]:
    """How many rows each line of a text takes in a terminal of so many columns."""
    return [len(line) // max(1, width - 4) for line in text.plain.split("\n")]


def sentence_of(run: KnownRun, summary: dict[str, Any], history: History) -> tuple[str, str]:
    """A level, which decides the colour, and what there is to say about a run, in a sentence."""
    if run.newer:
        return "bad", "A newer version of rotnet-keras wrote this folder. Here it can only be viewed."
    if summary["message"]:
        return "flat" if summary["state"] == "stopped" else "bad", summary["message"]
    if summary["state"] in ("starting", "queued") and not history.latest:
        return "unknown", _waiting(summary["state"])
    return _judged(history)


def _judged(history: History) -> tuple[str, str]:
    """A level, which decides the colour, and a sentence about how the run is learning."""
    try:
        if history.is_study:
            return "unknown", _study_progress(history)
        event = latest_suitability(history.events["suitability"])
        if event and any(result.likely for result in check_results(event)):
            return "flat", suitability_summary(event)
        found = verdict(history.verdict_events(), history.task.num_classes)
    except Exception as error:  # Events were checked when they were read.
        return "unknown", mistake("This run cannot be judged", error)
    return found.level, found.text


def _study_progress(history: History) -> str:
    done = {(e["name"], e["seed"]) for e in history.events["run"]}
    total = history.run.facts().get("steps", "?")
    return f"Study: {len(done)} of {total} runs finished. The home screen lists them."


def _waiting(state: str) -> str:
    """What happens before the first step."""
    if state == "queued":
        return "Waiting in the queue. It starts when the device is free."
    return "Starting: TensorFlow is loading, then images are read and the graph is traced. The first step is slow."
