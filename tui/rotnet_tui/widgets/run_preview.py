"""What is known of a run at a glance."""

from typing import Any

from rich.text import Text

from rotnet_tui.state.words import age, duration, epochs, percent, state_text


def run_preview(found: dict[str, Any], colors: dict[str, str]) -> Text:
    """A summary in lines, without what is not known, and why the run is not going on."""
    text = Text()
    text.append_text(state_text(found["state"], colors))
    text.append(f"  {found['name']}\n\n", style="bold")
    steps = f"{found['step']} of {found['steps']}" if found["steps"] and found["epoch"] is not None else ""
    rows = {
        "recipe": found["recipe"],
        "epoch": epochs(found),
        "step": steps,
        "loss": None if found["loss"] is None else f"{found['loss']:.3f}",
        "rotation": found["rotation_accuracy"] and f"{percent(found['rotation_accuracy'])} %",
        "object": found["object_accuracy"] and f"{percent(found['object_accuracy'])} %",
        "images/s": found["images_per_s"] and f"{found['images_per_s']:,.0f}".replace(",", " "),
        "ETA": duration(found["seconds_left"]),
        "started": found["created"] and f"{age(found['created'])} ago",
        "folder": found["path"],
    }
    for key, value in rows.items():
        if value:
            text.append(f"{key:>9}  ", style="dim")
            text.append(f"{value}\n")
    if found["message"]:
        text.append(f"\n{found['message']}\n", style=colors["text-warning"][:7])
    return text
