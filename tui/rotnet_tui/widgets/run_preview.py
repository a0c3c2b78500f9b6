"""The preview of a run beside the tables of the home screen, and what replaces both in a very small terminal."""

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from rotnet_keras.text import duration, percent
from rotnet_tui.state.words import age, epoch_progress, state_text, thousands

# Lines of the summary that replaces the tables in a very small terminal.
TINY_LINES = 4


def run_preview(summary: dict[str, Any], colors: dict[str, str]) -> Text:
    """A summary in lines, without unknown values, followed by the run's message."""
    text = Text()
    text.append_text(state_text(summary["state"], colors))
    text.append(f"  {summary['name']}\n\n", style="bold")
    steps = f"{summary['step']} of {summary['steps']}" if summary["steps"] and summary["epoch"] is not None else ""
    rows = {
        "recipe": summary["recipe"],
        "job": summary["job"],
        "epoch": epoch_progress(summary),
        "step": steps,
        "loss": None if summary["loss"] is None else f"{summary['loss']:.3f}",
        "rotation accuracy": percent(summary["rotation_accuracy"]),
        "object accuracy": percent(summary["object_accuracy"]),
        "images/s": summary["images_per_s"] and thousands(summary["images_per_s"]),
        "ETA": duration(summary["seconds_left"]),
        "started": summary["created"] and f"{age(summary['created'])} ago",
        "tags": " ".join(f"#{tag}" for tag in summary["tags"]),
        "note": summary["note"],
        "folder": summary["path"],
    }
    for key, value in rows.items():
        if value:
            text.append(f"{key:>17}  ", style="dim")
            text.append(f"{value}\n")
    if summary["message"]:
        text.append(f"\n{summary['message']}\n", style=colors["text-warning"][:7])
    return text


def run_lines(runs: Sequence[dict[str, Any]]) -> Text:
    """The first summaries, each in a line."""
    lines = [
        " ".join(
            [
                *(run["state"], run["name"], epoch_progress(run)),
                *(percent(run["rotation_accuracy"]), duration(run["seconds_left"])),
            ]
        )
        for run in runs[:TINY_LINES]
    ]
    return Text("\n".join(lines or ["no runs yet"]))
