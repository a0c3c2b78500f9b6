"""States, numbers and times as short words, the same on every screen."""

import time
from typing import Any

from rich.text import Text

# Glyph and colour of each state; the glyphs differ, so that the states do without colour too.
STATES = {
    "queued": ("…", "text-muted"),
    "starting": ("◌", "text-primary"),
    "running": ("●", "text-success"),
    "stopping": ("◐", "text-warning"),
    "stopped": ("‖", "text-warning"),
    "finished": ("✓", "text-primary"),
    "failed": ("✗", "text-error"),
    "killed": ("†", "text-error"),
    "stalled": ("!", "text-error"),
    "gone": ("?", "text-muted"),
}
LIVE = ("queued", "starting", "running", "stopping", "stalled")
LEVEL_COLORS = {"improving": "text-success", "flat": "text-warning", "unknown": "text-muted"}


def printable(text: str) -> str:
    """The text without control characters, which could take over the screen."""
    return "".join(c for c in text.replace("\t", "    ") if c.isprintable() or c == "\n")


def plain(text: str) -> Text:
    """Text from elsewhere for a cell of a table, which would take it for markup."""
    return Text(printable(text))


def state_text(state: str, colors: dict[str, str], word: bool = True) -> Text:
    """A state's glyph, and its word if wanted, in its colour."""
    glyph, color = STATES.get(state, ("?", "text-muted"))
    return Text(f"{glyph} {state}" if word else glyph, style=_style(colors, color))


def duration(seconds: float | None) -> str:
    """ "45 s", "12 min", "3 h 20", "4 d 3 h"; empty for None."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d}"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def age(created: float | None) -> str:
    """How long ago."""
    return "" if created is None else duration(time.time() - created)


def percent(share: float | None) -> str:
    """ "84.0"; empty for None."""
    return "" if share is None else f"{100 * share:.1f}"


def epochs(found: dict[str, Any]) -> str:
    """ "3.2/8"; of a study the same of its runs; empty where not known."""
    if found["epoch"] is None or found["epochs"] is None:
        return f"{found['step']}/{found['steps']} runs" if found["steps"] else ""
    return "/".join(f"{n:.0f}" if n >= 100 else f"{n:.3g}" for n in (found["epoch"], found["epochs"]))


def progress_bar(share: float, width: int, colors: dict[str, str]) -> Text:
    """A bar of `width` cells."""
    full = round(share * width)
    return Text.assemble(
        ("━" * full, _style(colors, "text-success")), ("─" * (width - full), _style(colors, "text-muted"))
    )


def strip(found: dict[str, Any], verdict: tuple[str, str], colors: dict[str, str], width: int) -> Text:
    """The status of a run in three lines; fields are lost from the right where there is no room.

    Args:
        found: what `rotnet_keras.runs.status.summary` says.
        verdict: its level, and the sentence.
        width: cells.
    """
    first = [state_text(found["state"], colors), Text(found["name"], style="bold")]
    done = found["step"] / found["steps"] if found["steps"] else None
    if done is not None:
        bar = progress_bar(min(1.0, done), 20 if width >= 100 else 10, colors)
        first.append(Text.assemble(bar, f" {100 * min(1.0, done):.0f} %"))
        if found["epoch"] is None:
            first.append(Text(epochs(found)))
        else:
            first.append(Text(f"epoch {epochs(found)}"))
            first.append(Text(f"step {found['step']}/{found['steps']}"))
    if found["recipe"]:
        first.append(Text(f"recipe {found['recipe']}", style=_style(colors, "text-muted")))
    second = []
    if found["seconds_left"] is not None:
        second.append(f"ETA {duration(found['seconds_left'])}")
    if found["images_per_s"]:
        second.append(f"{found['images_per_s']:,.0f} images/s".replace(",", " "))
    if found["learning_rate"] is not None:
        second.append(f"lr {found['learning_rate']:.3g}")
    if found["data_wait"] is not None:
        second.append(f"data wait {100 * found['data_wait']:.1f} %")
    if found["object_accuracy"] is not None:
        second.append(f"object {percent(found['object_accuracy'])} %")
    if found["device"]:
        second.append(found["device"])
    level, sentence = verdict
    color = LEVEL_COLORS.get(level, "text-error")
    return Text("\n").join(
        [
            _fitting(first, width),
            _fitting([Text(word) for word in second], width),
            Text(sentence, style=_style(colors, color), overflow="fold"),
        ]
    )


def _fitting(parts: list[Text], width: int) -> Text:
    line = Text()
    for part in parts:
        gap = 3 if line.cell_len else 0
        if line.cell_len and line.cell_len + gap + part.cell_len > width:
            break
        line.append(" " * gap)
        line.append_text(part)
    return line


def _style(colors: dict[str, str], name: str) -> str:
    """A theme's colour for Rich, which does not know Textual's automatic ones."""
    color = colors.get(name, "")
    return "dim" if not color.startswith("#") else color[:7]
