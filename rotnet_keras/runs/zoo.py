"""The networks that come with the package, by name.

A folder in `weights/` is a small part of the folder of the run that made the network: `recipe.toml`,
`export/backbone.keras` and `export/rotnet.keras`, and besides what is known of it, its card: `card.json`, and `card.md`
for people.
"""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rotnet_keras.config.finder import PACKAGE, did_you_mean
from rotnet_keras.errors import RotnetError, RunError
from rotnet_keras.runs.folder import RunFolder, find_run, list_runs

FOLDER = PACKAGE / "weights"
CARD = "card.json"


def shipped() -> dict[str, RunFolder]:
    """The networks that ship, by name."""
    return {file.parent.name: RunFolder(file.parent) for file in sorted(FOLDER.glob(f"*/{CARD}"))}


def card_of(network: RunFolder) -> dict[str, Any]:
    """What is known of a network that ships; empty for the folder of a run."""
    try:
        card = json.loads((network.path / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def megabytes(network: RunFolder) -> float:
    """What its files take on disk."""
    return sum(file.stat().st_size for file in network.path.rglob("*") if file.is_file()) / 1e6


def find_shipped(name: str) -> RunFolder:
    """The network of this name that ships.

    Raises:
        RotnetError: there is none; the message has the nearest name.
    """
    known = shipped()
    if name in known:
        return known[name]
    there = ", ".join(known) or "none yet"
    raise RotnetError(f"no weights called {name!r} ship{did_you_mean(name, known)} (there: {there})")


def find_network(name: str, runs_dir: Path) -> RunFolder:
    """The run of this name, or at this path, or the network of this name that ships.

    Raises:
        RunError: there is none; the message has the nearest name.
    """
    known = shipped()
    try:
        return find_run(name, runs_dir)
    except RunError:
        if name in known:
            return known[name]
        hint = did_you_mean(name, [*(run.name for run in list_runs(runs_dir)), *known])
        raise RunError(f"no run called {name!r} in {runs_dir}, and no weights of that name ship{hint}") from None


def copy_out(network: RunFolder, target: Path) -> None:
    """Copy a network's folder, whole or not at all.

    Raises:
        RotnetError: the target exists.
    """
    if target.exists():
        raise RotnetError(f"{target} exists already; remove it or choose another place with --to")
    with TemporaryDirectory(prefix=".weights-", dir=target.absolute().parent) as folder:
        whole = Path(folder) / network.name
        shutil.copytree(network.path, whole, copy_function=shutil.copyfile)
        whole.rename(target)
