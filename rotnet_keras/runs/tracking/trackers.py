"""The experiment trackers that a run can be mirrored to, and what each of them has to be able to do."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rotnet_keras.errors import RecipeError

# Characters of what a tracker says about a failure.
MOST_CHARACTERS = 500


class Point(NamedTuple):
    """Metrics of one step.

    Attributes:
        step: optimizer steps done.
        time: seconds since the epoch.
        metrics: numbers by name, such as "train/loss".
    """

    step: int
    time: float
    metrics: Mapping[str, float]


class Tracker(Protocol):
    """An open connection to a tracker. Its methods raise whatever the tracker's own package raises.

    Attributes:
        place: where the tracked run is, for people; without a password.
    """

    place: str

    def begin(self, known: str | None, name: str, recipe: Mapping[str, Any]) -> str:
        """Create the tracked run with its parameters, or go on with one, and return its id."""

    def log(self, points: Sequence[Point]) -> None:
        """Add metrics."""

    def attach(self, files: Sequence[tuple[Path, str]]) -> None:
        """Add files, each with the folder that it has in the tracked run; "" for none."""

    def end(self, outcome: str, exit_code: int) -> None:
        """Close the tracked run as finished, stopped, failed or killed, and wait until everything has been sent."""


@dataclass(frozen=True)
class Known:
    """A tracker that can be named in a recipe: its title, and the package that it needs."""

    title: str
    package: str


TRACKERS: Mapping[str, Known] = {"mlflow": Known("MLflow", "mlflow"), "wandb": Known("Weights & Biases", "wandb")}


def is_installed(name: str) -> bool:
    """Return whether the package of a tracker can be imported; a folder of its name is no package."""
    found = find_spec(TRACKERS[name].package)
    return found is not None and found.origin is not None


def require_trackers(names: Sequence[str], where: str) -> None:
    """Check that the packages of trackers are installed.

    Args:
        names: of `TRACKERS`.
        where: what names them, for the error.

    Raises:
        RecipeError: one is not.
    """
    missing = [name for name in names if not is_installed(name)]
    if missing:
        needed = ",".join(missing)
        raise RecipeError(f"{where} needs another package; install it with: pip install 'rotnet-keras[{needed}]'")


def reason(error: Exception) -> str:
    """Return what a tracker's package says about a failure, in one line without the passwords of addresses."""
    text = without_password(" ".join(str(error).split()))
    return text[:MOST_CHARACTERS] or type(error).__name__


def without_password(text: str) -> str:
    """Return a text whose addresses have neither user nor password."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def open_tracker(name: str) -> Tracker:
    """Load the package of a tracker, and find out where it keeps its runs."""
    if name == "mlflow":
        from rotnet_keras.runs.tracking.mlflow_tracker import MlflowTracker

        return MlflowTracker()
    from rotnet_keras.runs.tracking.wandb_tracker import WandbTracker

    return WandbTracker()
