"""What the UI remembers between two sessions, and the keys that users have assigned."""

import json
import time
import tomllib
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import platformdirs

from rotnet_keras.files import write_atomically

# By the text of a traceback: the file that it is in.
_kept: dict[str, Path] = {}

# How images are drawn; "auto" is as well as the terminal can.
Images = Literal["auto", "half-blocks", "sixel", "kitty"]
Axis = Literal["epoch", "step", "time"]
Smoothing = Literal[0, 1, 2]
CHARTS = ("loss+validation_loss", "accuracy+validation_accuracy", "learning_rate", "accuracy_*")
COMPARED = ("validation_accuracy", "loss", "run_cpu", "run_memory")


@dataclass
class Settings:
    """The remembered layout. A damaged settings file is ignored, and the defaults apply."""

    theme: str = "textual-dark"
    tab: str = "curves"
    home_tab: str = "runs"
    smoothing: Smoothing = 1
    log_axis: bool = False
    x_axis: Axis = "epoch"
    grid: str = "2x2"
    charts: list[str] = field(default_factory=lambda: list(CHARTS))
    compare_grid: str = "2x1"
    compare_charts: list[str] = field(default_factory=lambda: list(COMPARED))
    wrap_log: bool = False
    percent: bool = True
    worst: bool = False
    images: Images = "auto"
    follow: bool = True
    pinned: list[str] = field(default_factory=list)


# Of settings that may not have every value of their type.
CHOICES = {"smoothing": get_args(Smoothing), "x_axis": get_args(Axis), "images": get_args(Images)}


def keep_traceback(error: Exception) -> Path | None:
    """Write the traceback of a mistake of ours into the user's folder of logs; the same one is written once.

    Returns:
        The file; None if it cannot be written.
    """
    text = "".join(traceback.format_exception(error))
    if text not in _kept:
        folder = platformdirs.user_state_path("rotnet-keras")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _kept[text] = folder / time.strftime("tui-crash-%Y%m%d-%H%M%S.txt")
            _kept[text].write_text(text, encoding="utf-8")
        except OSError:
            return None
    return _kept[text]


def settings_file() -> Path:
    """The file that holds the settings."""
    return platformdirs.user_state_path("rotnet-keras") / "tui.json"


def keymap_file() -> Path:
    """The file in which users assign keys to bindings: `stop = "x"`, one binding a line."""
    return platformdirs.user_config_path("rotnet-keras") / "keymap.toml"


def load_settings() -> Settings:
    """The remembered settings, or the defaults. Names that are not known, as of a newer version, are passed over."""
    # Checked by hand: importing pydantic would delay the UI's first picture.
    try:
        values = json.loads(settings_file().read_bytes())
    except (OSError, ValueError, RecursionError):
        return Settings()
    settings = Settings()
    known = {each.name for each in fields(Settings)}
    for name in known & set(values if isinstance(values, dict) else ()):
        if not _is_valid(name, values[name], getattr(settings, name)):
            return Settings()
        setattr(settings, name, values[name])
    return settings


def _is_valid(name: str, value: Any, default: Any) -> bool:
    """Whether a setting may have a value: one of its type, and of its choices or a list of strings."""
    if type(value) is not type(default) or value not in CHOICES.get(name, (value,)):
        return False
    return not isinstance(value, list) or all(isinstance(item, str) for item in value)


def save_settings(settings: Settings) -> str:
    """Write the settings; returns why they cannot be written, empty if they were."""
    path = settings_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(settings), indent=2).encode())
    except OSError as error:
        return f"The settings cannot be saved: {path}: {error.strerror}"
    return ""


def load_keymap(names: Callable[[], set[str]]) -> tuple[dict[str, str], str]:
    """The user's keys by binding, and what is wrong with their file, empty if nothing is.

    Args:
        names: returns the names of all bindings; called only if the file exists.
    """
    path = keymap_file()
    try:
        keys = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError) as error:
        return {}, f"{path}: {error}"
    known = names()
    unknown = [name for name, key in keys.items() if name not in known or not isinstance(key, str)]
    message = (
        f"{path}: no binding called {', '.join(unknown)}; there are: {', '.join(sorted(known))}" if unknown else ""
    )
    return {name: key for name, key in keys.items() if name not in unknown}, message
