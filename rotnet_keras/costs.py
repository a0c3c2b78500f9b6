"""What a recipe's run, or a study's runs, would cost on this machine."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rotnet_keras.launch import load_for_run
from rotnet_keras.recipe import load_recipe
from rotnet_keras.runs import RunFolder, list_runs
from rotnet_keras.schema import Backbone, PretrainRecipe, Recipe, RunRecipe
from rotnet_keras.sources import pinned
from rotnet_keras.study_runs import Planned, planned_runs, run_of
from rotnet_keras.study_schema import StudyRecipe


@dataclass(frozen=True)
class Cost:
    """Of one run.

    Attributes:
        finished: the name of the run folder that it is already, if it is.
        seconds: 0 where it is finished.
    """

    name: str
    finished: str | None
    seconds: float


def costs(recipe: Recipe, runs_dir: Path) -> Iterator[Cost]:
    """Each run of a recipe, timed by a short trial where it is not finished. Loads TensorFlow."""
    from rotnet_keras.trial import Trial, seconds

    if not isinstance(recipe, StudyRecipe):
        assert isinstance(recipe, RunRecipe)
        yield Cost(recipe.title, None, next(seconds([Trial(recipe)])))
        return
    planned = planned_runs(recipe)
    done = finished_runs(planned, runs_dir)
    missing = [run for run in planned if (run.name, run.seed) not in done]
    timed = seconds([Trial(_recipe(run), _spec(run)) for run in missing])
    for run in planned:
        folder = done.get((run.name, run.seed))
        yield Cost(run.folder_name, folder.name, 0.0) if folder else Cost(run.folder_name, None, next(timed))


def costs_apart(recipe_file: Path, runs_dir: Path) -> list[Cost]:
    """The same in a process of its own, whose memory is free again afterwards; empty where it fails."""
    command = [sys.executable, "-m", "rotnet_keras", "estimate", str(recipe_file), "--json"]
    result = subprocess.run(
        [*command, "--runs-dir", str(runs_dir)], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    try:
        return [Cost(**cost) for cost in json.loads(result.stdout)]
    except (ValueError, TypeError):
        return []


def finished_runs(planned: list[Planned], runs_dir: Path) -> dict[tuple[str, int], RunFolder]:
    """The run folders that need not be made, by name and seed."""
    runs = list_runs(runs_dir)
    found: dict[tuple[str, int], RunFolder] = {}
    for run in planned:
        source = found.get((run.of.name, run.seed)) if run.of else None
        if run.of and source is None:
            continue
        recipe, _ = load_for_run(run.recipe, run.overrides(source.backbone if source else None), runs_dir)
        folder = run_of(recipe, runs)
        if folder and folder.state() == "finished":
            found[run.name, run.seed] = folder
    return found


def _recipe(run: Planned) -> RunRecipe:
    recipe = load_recipe(run.recipe, run.overrides())
    assert isinstance(recipe, RunRecipe)
    return recipe.model_copy(update={"data": pinned(recipe.data)})


def _spec(run: Planned) -> Backbone | None:
    """The backbone that a run will go on from."""
    if run.of is None:
        return None
    source = load_recipe(run.of.recipe, run.of.overrides())
    return source.backbone if isinstance(source, PretrainRecipe) else _spec(run.of)
