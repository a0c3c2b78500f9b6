"""States, ages and progress as short words, the same on every screen."""

import time
from typing import Any

from rich.text import Text

from rotnet_keras.text import duration, percent, printable

# Glyph and colour of each state. The glyphs differ, so that the states can be told apart without colours.
STATES = {
    "queued": ("…", "text-muted"),
    "pending": ("⋯", "text-muted"),
    "starting": ("◌", "text-primary"),
    "running": ("●", "text-success"),
    "stopping": ("◐", "text-warning"),
    "stopped": ("‖", "text-warning"),
    "finished": ("✓", "text-primary"),
    "failed": ("✗", "text-error"),
    "killed": ("†", "text-error"),
    "stalled": ("!", "text-error"),
}
ACTIVE = ("starting", "running", "stopping", "stalled")
LIVE = ("queued", "pending", *ACTIVE)
LEVEL_COLORS = {"improving": "text-success", "flat": "text-warning", "unknown": "text-muted"}
BARS = "▁▂▃▄▅▆▇█"


def screen_text(text: str) -> str:
    """Text without control characters, which could take over the screen; a tab becomes four spaces."""
    return printable(text.replace("\t", "    "))


def plain_text(text: str) -> Text:
    """Text for a cell of a table, which would read a plain string as markup."""
    return Text(screen_text(text))


def state_text(state: str, colors: dict[str, str]) -> Text:
    """A state with its glyph, in its colour."""
    glyph, color = STATES.get(state, ("?", "text-muted"))
    return Text(f"{glyph} {state}", style=_style(colors, color))


def age(created: float | None) -> str:
    """The time since `created`; empty for None."""
    return "" if created is None else duration(time.time() - created)


def epoch_progress(summary: dict[str, Any]) -> str:
    """The current and the last epoch, as "3.2/8"; for a study its runs, as "3/8 runs"; empty if unknown."""
    if summary["epoch"] is None or summary["epochs"] is None:
        return f"{summary['step']}/{summary['steps']} runs" if summary["steps"] else ""
    return "/".join(f"{n:.0f}" if n >= 100 else f"{n:.3g}" for n in (summary["epoch"], summary["epochs"]))


def thousands(number: float) -> str:
    """A number without decimals, its thousands set apart: "12 345"."""
    return f"{number:,.0f}".replace(",", " ")


def bar(share: float) -> str:
    """A block character whose height stands for a share from 0 to 1."""
    return BARS[min(len(BARS) - 1, max(0, int(share * len(BARS))))]


def progress_bar(share: float, width: int, colors: dict[str, str]) -> Text:
    """A horizontal bar of `width` cells."""
    full = round(share * width)
    return Text.assemble(
        ("━" * full, _style(colors, "text-success")), ("─" * (width - full), _style(colors, "text-muted"))
    )


def status_strip(summary: dict[str, Any], verdict: tuple[str, str], colors: dict[str, str], width: int) -> Text:
    """The status of a run in three lines. Fields that do not fit are dropped from the right.

    Args:
        summary: from `rotnet_keras.runs.status.summary`.
        verdict: a level, which decides the colour, and a sentence.
        width: in cells.
    """
    first = [state_text(summary["state"], colors), Text(summary["name"], style="bold")]
    done = summary["step"] / summary["steps"] if summary["steps"] else None
    if done is not None:
        share = min(1.0, done)
        first.append(Text.assemble(progress_bar(share, 20 if width >= 100 else 10, colors), f" {percent(share, 0)}"))
        if summary["epoch"] is None:
            first.append(Text(epoch_progress(summary)))
        else:
            first.append(Text(f"epoch {epoch_progress(summary)}"))
            first.append(Text(f"step {summary['step']}/{summary['steps']}"))
    if summary["recipe"]:
        first.append(Text(f"recipe {summary['recipe']}", style=_style(colors, "text-muted")))
    second = []
    if summary["seconds_left"] is not None:
        second.append(f"ETA {duration(summary['seconds_left'])}")
    if summary["images_per_s"]:
        second.append(f"{thousands(summary['images_per_s'])} images/s")
    if summary["learning_rate"] is not None:
        second.append(f"lr {summary['learning_rate']:.3g}")
    if summary["data_wait"] is not None:
        second.append(f"data wait {percent(summary['data_wait'])}")
    if summary["object_accuracy"] is not None:
        second.append(f"object accuracy {percent(summary['object_accuracy'])}")
    if summary["device"]:
        second.append(summary["device"])
    level, sentence = verdict
    color = LEVEL_COLORS.get(level, "text-error")
    return Text("\n").join(
        [
            _join_fitting(first, width),
            _join_fitting([Text(word) for word in second], width),
            Text(sentence, style=_style(colors, color), overflow="fold"),
        ]
    )


def _join_fitting(parts: list[Text], width: int) -> Text:
    """As many of the parts as fit into one line, from the left."""
    line = Text()
    for part in parts:
        gap = 3 if line.cell_len else 0
        if line.cell_len and line.cell_len + gap + part.cell_len > width:
            break
        line.append(" " * gap)
        line.append_text(part)
    return line


def _style(colors: dict[str, str], name: str) -> str:
    """A colour of the theme for Rich, which does not know Textual's automatic ones."""
    color = colors.get(name, "")
    return "dim" if not color.startswith("#") else color[:7]
