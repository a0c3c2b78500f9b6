"""From a recipe's name to a run folder that is ready to be worked on, here or in a process of its own."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from rotnet_keras.config.finder import find_recipe
from rotnet_keras.config.loading import load_recipe, to_toml
from rotnet_keras.config.schema import (
    ClassifyRecipe,
    PretrainRecipe,
    ProbeRecipe,
    Recipe,
    RunRecipe,
    SeededRecipe,
    Source,
)
from rotnet_keras.config.study import StudyRecipe
from rotnet_keras.config.transfer import TransferRecipe
from rotnet_keras.data.sources import find_annotated, find_source, pinned, pinned_annotated
from rotnet_keras.errors import DataError, RecipeError, RotnetError, RunError
from rotnet_keras.host import check_backend
from rotnet_keras.runs.folder import RunFolder, create_run, default_runs_dir, list_runs
from rotnet_keras.runs.study_runs import planned_runs, with_absolute_paths
from rotnet_keras.runs.zoo import find_network

S = TypeVar("S", bound=Source)


def load_for_run(recipe: str, overrides: Mapping[str, Any], runs_dir: Path) -> tuple[Recipe, dict[str, Any]]:
    """A checked recipe whose data are there, and what `run.json` keeps of how it was asked for.

    Raises:
        RotnetError: the environment asks for another backend of Keras.
        RecipeError: the recipe is wrong.
        DataError: its data, or the backbone it is about, are missing, or cannot be looked for.
    """
    check_backend()
    loaded = load_recipe(recipe, overrides)
    try:
        return _with_what_it_names(loaded, recipe, overrides, runs_dir)
    except OSError as error:  # A name that no file can have, or a place that may not be read.
        raise DataError(f"{recipe}: what it names cannot be looked for: {error}") from None


def _with_what_it_names(
    loaded: Recipe, recipe: str, overrides: Mapping[str, Any], runs_dir: Path
) -> tuple[Recipe, dict[str, Any]]:
    facts = {
        "recipe": find_recipe(recipe).stem,
        "overrides": dict(overrides),
        "argv": sys.argv,
        "created": round(time.time(), 3),
    }
    if isinstance(loaded, StudyRecipe):
        return _checked_study(loaded, find_recipe(recipe).parent), facts
    assert isinstance(loaded, SeededRecipe)
    if (
        isinstance(loaded, PretrainRecipe | ClassifyRecipe | TransferRecipe)
        and loaded.train.tensorboard
        and not find_spec("tensorboard")
    ):
        raise RecipeError("train.tensorboard needs another package: pip install 'rotnet-keras[tensorboard]'")
    # What was measured of the recipe need not hold for a run of it, with its overrides and elsewhere.
    loaded = loaded.model_copy(update={"expect": None})
    if isinstance(loaded, TransferRecipe):
        loaded = loaded.model_copy(update={"data": pinned_annotated(loaded.data)})
    if isinstance(loaded, RunRecipe):
        loaded = loaded.model_copy(update={"data": pinned(loaded.data)})
    if isinstance(loaded, ProbeRecipe):
        loaded = loaded.model_copy(update={"backbone": _pinned(loaded.backbone, runs_dir)})
    if isinstance(loaded, ClassifyRecipe | TransferRecipe) and loaded.pretrained:
        loaded = loaded.model_copy(update={"pretrained": _pinned(loaded.pretrained, runs_dir)})
    return loaded, {**facts, "seed": loaded.seed}


def _checked_study(study: StudyRecipe, base: Path) -> StudyRecipe:
    """A study whose runs have valid recipes and data that are there."""
    study = with_absolute_paths(study, base)
    for run in planned_runs(study):
        recipe = load_recipe(run.recipe, run.overrides())
        if isinstance(recipe, TransferRecipe):
            find_annotated(recipe.data)
            continue
        assert isinstance(recipe, RunRecipe)
        find_source(recipe.data)
    return study.model_copy(update={"expect": None})


def _pinned(source: S, runs_dir: Path) -> S:
    """The same backbone by its file, which later runs of a recipe do not change."""
    file = str(find_backbone(source, runs_dir).absolute())
    return source.model_copy(update={"run": None, "recipe": None, "file": file})


def find_backbone(source: Source, runs_dir: Path) -> Path:
    """The .keras file that a recipe's `[backbone]` means.

    Raises:
        DataError: there is none.
        RunError: no such run, nor weights that ship.
    """
    if source.file is not None:
        path = Path(source.file).expanduser()
    elif source.run is not None:
        path = find_network(source.run, runs_dir).backbone
    else:
        wanted = Path(str(source.recipe)).stem
        made = [run for run in list_runs(runs_dir) if run.facts().get("recipe") == wanted and run.backbone.is_file()]
        if not made:
            raise RunError(f"no finished run of the recipe {wanted!r} in {runs_dir}; start one with: rotnet-keras run")
        path = made[-1].backbone
    if not path.is_file():
        raise DataError(f"backbone: no file {path.absolute()}")
    return path


def prepare(recipe: Recipe, facts: Mapping[str, Any], name: str | None, runs_dir: Path) -> RunFolder:
    """Make the run folder; by default it is called after the recipe, as far as that makes a name, and the time."""
    stem = re.sub(r"[^\w.+-]+", "-", facts["recipe"]).lstrip(".+-")[:80] or "run"
    return create_run(runs_dir, name or f"{stem}-{time.strftime('%m%d-%H%M')}", to_toml(recipe), facts)


def spawn(folder: RunFolder, gpu: str | None = None) -> "subprocess.Popen[bytes]":
    """Work on a run in a session of its own, which outlives this process and its terminal.

    Args:
        folder: of a run that is not being worked on.
        gpu: the only one that it sees, as CUDA_VISIBLE_DEVICES names it; by default those this process sees.
    """
    environment = None if gpu is None else {**os.environ, "CUDA_VISIBLE_DEVICES": gpu}
    with folder.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "rotnet_keras", "resume", str(folder.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment,
        )


def run(
    recipe: str | Path, *, name: str | None = None, runs_dir: str | Path | None = None, **overrides: Any
) -> RunFolder:
    """Run a recipe from Python, in a process of its own, and wait for its end.

    Args:
        recipe: a TOML file, or the name of a shipped recipe.
        name: the run's name; recipe and time by default.
        runs_dir: where runs are kept.
        **overrides: sections or values that replace the recipe's: `train={"epochs": 3}`, `seed=1`.

    Returns:
        The run folder.

    Raises:
        RecipeError, DataError: the recipe is wrong, or its data are missing; nothing was started.
        RotnetError: the run did not finish; the message says why.
    """
    runs_dir = Path(runs_dir) if runs_dir else default_runs_dir()
    loaded, facts = load_for_run(str(recipe), overrides, runs_dir)
    folder = prepare(loaded, facts, name, runs_dir)
    command = [sys.executable, "-m", "rotnet_keras", "resume", str(folder.path)]
    if subprocess.run(command, check=False).returncode:
        ends = [event for event in folder.tail() if event["kind"] == "end"]
        raise RotnetError(ends[-1]["message"] if ends else f"{folder.name} was killed; see {folder.log}")
    return folder
