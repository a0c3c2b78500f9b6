"""The model zoo: the pretrained models that ship with the package, by name.

A folder in `weights/` has the part of a run folder that is needed to use the model: `recipe.toml`,
`export/backbone.keras` and `export/rotnet.keras`. Beside them lies the model card: `card.json`, and `card.md` for
people.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rotnet_keras.config.finder import PACKAGE, did_you_mean
from rotnet_keras.errors import RotnetError, RunError
from rotnet_keras.files import read_json
from rotnet_keras.runs.folder import RunFolder, find_run, list_runs

FOLDER = PACKAGE / "weights"
CARD = "card.json"
# The cards that ship have a few kilobytes.
MAX_CARD_BYTES = 1 << 20


def list_pretrained() -> dict[str, RunFolder]:
    """Return the folders of all pretrained models, by name."""
    return {file.parent.name: RunFolder(file.parent) for file in sorted(FOLDER.glob(f"*/{CARD}"))}


def is_shipped(path: Path) -> bool:
    """Return whether a file or folder belongs to a pretrained model that ships with the package."""
    return path.resolve().is_relative_to(FOLDER.resolve())


def load_card(model: RunFolder) -> dict[str, Any]:
    """Return the card of a pretrained model; empty for the folder of a run."""
    try:
        card = read_json(model.path / CARD, MAX_CARD_BYTES)
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def calibration_source(model: RunFolder | Path) -> str:
    """Return which images the temperature of a model's confidences is fitted on, such as "5,000 photos of X".

    Args:
        model: a pretrained model, or a run, which is calibrated on its own validation images.
    """
    known = load_card(model).get("calibration") if isinstance(model, RunFolder) else None
    return f"{known['images']:,} images of {known['source']}" if known else "the run's validation images"


def size_mb(model: RunFolder) -> float:
    """Return the size of a model's files in megabytes (10^6 bytes)."""
    return sum(file.stat().st_size for file in model.path.rglob("*") if file.is_file()) / 1e6


def find_pretrained(name: str) -> RunFolder:
    """Return the folder of a pretrained model.

    Raises:
        RotnetError: there is no such model; the message suggests the nearest name.
    """
    known = list_pretrained()
    if name in known:
        return known[name]
    available = ", ".join(known) or "none"
    raise RotnetError(f"no pretrained model called {name!r}{did_you_mean(name, known)} (available: {available})")


def find_run_or_pretrained(name: str, runs_dir: Path) -> RunFolder:
    """Return the run with this name or at this path, else the pretrained model with this name.

    Raises:
        RunError: there is neither; the message suggests the nearest name.
    """
    known = list_pretrained()
    try:
        return find_run(name, runs_dir)
    except RunError:
        if name in known:
            return known[name]
        hint = did_you_mean(name, [*(run.name for run in list_runs(runs_dir)), *known])
        raise RunError(f"no run called {name!r} in {runs_dir}, and no pretrained model of that name{hint}") from None


def copy_pretrained(model: RunFolder, target: Path) -> None:
    """Copy the folder of a pretrained model, whole or not at all.

    Raises:
        RotnetError: the target exists.
    """
    if target.exists():
        raise RotnetError(f"{target} exists already; remove it, or name another folder with --to")
    with TemporaryDirectory(prefix=".weights-", dir=target.absolute().parent) as folder:
        whole = Path(folder) / model.name
        shutil.copytree(model.path, whole, copy_function=shutil.copyfile)
        whole.rename(target)
