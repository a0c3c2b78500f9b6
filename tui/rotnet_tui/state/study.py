"""How far a study has come: its planned runs, each with its folder and state, and the time that is left."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rotnet_keras.config.loading import load_recipe
from rotnet_keras.config.study import StudyRecipe
from rotnet_keras.errors import RotnetError
from rotnet_keras.runs.event_fields import event_problem
from rotnet_keras.runs.folder import RunFolder, list_runs
from rotnet_keras.runs.study_runs import planned_runs
from rotnet_tui.state.known_run import KnownRun
from rotnet_tui.state.words import LIVE


@dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    Attributes:
        name: in the study.
        folder: of the run; None as long as there is none.
        summary: as of `printable_summary`; None without a folder.
        seconds: of work of a finished run; None otherwise.
        estimated: how many seconds the whole run takes by the trial before the study's first run; None where it timed
            none.
    """

    name: str
    seed: int
    folder: KnownRun | None
    summary: dict[str, Any] | None
    seconds: float | None
    estimated: float | None = None

    @property
    def state(self) -> str:
        """That of the run, "planned" as long as it has no folder."""
        if self.seconds is not None:
            return "finished"
        return self.summary["state"] if self.summary else "planned"


class StudyProgress:
    """Reads a study and the folders of its runs."""

    def __init__(self, study: RunFolder) -> None:
        self.study = study
        self._planned: list[tuple[str, int, str]] | None = None

    def read(self) -> list[StudyRun]:
        """The runs of the study in the order in which they are made. It reads files: call it in a thread."""
        done = {
            (e["name"], e["seed"]): e
            for e in self.study.thinned_events()
            if e["kind"] == "run" and event_problem(e) is None
        }
        present = {run.name: run for run in list_runs(self.study.path.parent)}
        timed = self.study.facts().get("run_seconds", {})
        found = []
        for name, seed, folder_name in self._plan():
            event = done.get((name, seed))
            folder = present.get(str(event["folder"])) if event else _newest(present, folder_name)
            known = KnownRun.of(folder) if folder else None
            seconds = float(event.get("seconds", 0.0)) if event else None
            estimated = timed.get(folder_name)
            known_time = isinstance(estimated, int | float) and 0 <= estimated < math.inf
            summary = known.summary if known else None
            found.append(StudyRun(name, seed, known, summary, seconds, estimated if known_time else None))
        return found

    def _plan(self) -> list[tuple[str, int, str]]:
        """The name, the seed and the usual folder of each planned run."""
        if self._planned is None:
            try:
                recipe = load_recipe(self.study.recipe)
                assert isinstance(recipe, StudyRecipe)
                self._planned = [(run.name, run.seed, run.folder_name) for run in planned_runs(recipe)]
            except RotnetError:
                self._planned = _named_in(self.study.recipe_values())
        return self._planned


def _named_in(values: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    """The runs that a recipe names which cannot be loaded here, as one that names recipes of another machine."""
    scale = values.get("scales", {}).get(values.get("scale", "full"), {})
    seeds = [seed for seed in scale.get("seeds", [0]) if isinstance(seed, int)] if isinstance(scale, dict) else [0]
    names = [str(run.get("name")) for run in values.get("run", [])]
    return [(name, seed, f"{name}-s{seed}") for seed in seeds for name in names]


def _newest(present: Mapping[str, RunFolder], name: str) -> RunFolder | None:
    """The folder of this name, or of this name and a number: the newest one."""
    return next((run for known, run in reversed(list(present.items())) if _numbered(known, name)), None)


def _numbered(known: str, name: str) -> bool:
    return known == name or (known.startswith(f"{name}-") and known[len(name) + 1 :].isdigit())


def seconds_left(runs: Sequence[StudyRun]) -> float | None:
    """About how long the study takes yet, one run after the other; None if no run has given a hint.

    A run that has begun says so itself. One that has not takes as long as the finished ones of its name, else as the
    trial before the first run estimates, else as all finished ones.
    """
    finished = [run for run in runs if run.seconds]
    left = 0.0
    for run in runs:
        if run.seconds is not None:
            continue
        known = run.summary["seconds_left"] if run.summary else None
        if known is None:
            like = [r.seconds for r in finished if r.name == run.name]
            if not like:
                like = [r.seconds for r in finished] if run.estimated is None else [run.estimated]
            if not like:
                return None
            known = fmean(second for second in like if second is not None)
        left += known
    return left


def under_way(runs: Sequence[StudyRun]) -> list[StudyRun]:
    """The runs that are being made, or wait for a job."""
    return [run for run in runs if run.state in (*LIVE, "pending")]
