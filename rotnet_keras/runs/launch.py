"""From the name of a recipe to a run folder, and from there to the process that works on it."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from rotnet_keras.config.finder import find_recipe
from rotnet_keras.config.loading import load_recipe, to_toml
from rotnet_keras.config.renamed_keys import with_current_keys
from rotnet_keras.config.schema import (
    BackboneSource,
    ClassifyRecipe,
    PretrainRecipe,
    ProbeRecipe,
    Recipe,
    RunRecipe,
    SeededRecipe,
)
from rotnet_keras.config.study import StudyRecipe
from rotnet_keras.config.transfer import DetectionRecipe, TransferRecipe
from rotnet_keras.data.sources import find_annotated, pin_annotated_paths, pin_paths
from rotnet_keras.errors import DataError, RecipeError, RotnetError, RunError
from rotnet_keras.files import open_to_append
from rotnet_keras.host import check_backend, python_command
from rotnet_keras.runs.exports.backbone_fit import fit_to_backbone
from rotnet_keras.runs.folder import FORMAT, RunFolder, default_runs_dir, list_runs
from rotnet_keras.runs.study_runs import planned_runs, with_absolute_paths
from rotnet_keras.runs.tracking.trackers import require_trackers
from rotnet_keras.runs.values import PLAIN_NAME
from rotnet_keras.runs.zoo import find_run_or_pretrained

S = TypeVar("S", bound=BackboneSource)


def load_for_run(
    recipe: str,
    overrides: Mapping[str, Any],
    runs_dir: Path,
    warn: Callable[[str], None] = lambda note: None,
) -> tuple[Recipe, dict[str, Any]]:
    """Load a recipe, check that its data exist, and return it with the facts that `run.json` begins with.

    Args:
        warn: called with a line about keys whose names are old but still accepted.

    Raises:
        RotnetError: the environment asks for another Keras backend than TensorFlow.
        RecipeError: the recipe is invalid.
        DataError: its data, or the backbone file it names, are missing or cannot be accessed.
    """
    check_backend()
    loaded = load_recipe(recipe, overrides, warn)
    try:
        return _resolve(loaded, recipe, overrides, runs_dir)
    except OSError as error:  # A name that no file can have, or a folder that may not be read.
        raise DataError(f"{recipe}: a file that it names cannot be accessed: {error}") from None


def _resolve(
    loaded: Recipe, recipe: str, overrides: Mapping[str, Any], runs_dir: Path
) -> tuple[Recipe, dict[str, Any]]:
    """Resolve the data and the backbone that a recipe names, and return it with the first facts."""
    facts = {
        "recipe": find_recipe(recipe).stem,
        "overrides": with_current_keys(dict(overrides))[0],
        "argv": sys.argv,
        "created": round(time.time(), 3),
    }
    if isinstance(loaded, StudyRecipe):
        return _checked_study(loaded, find_recipe(recipe).parent), facts
    assert isinstance(loaded, SeededRecipe)
    _require_packages(loaded)
    # The results that a shipped recipe promises need not hold with overrides or on another machine.
    loaded = loaded.model_copy(update={"expect": None})
    if isinstance(loaded, TransferRecipe):
        loaded = loaded.model_copy(update={"data": pin_annotated_paths(loaded.data)})
    if isinstance(loaded, RunRecipe):
        from rotnet_keras.data.audit import understand  # Needs numpy, which most commands do not.

        understand(loaded.data)
        loaded = loaded.model_copy(update={"data": pin_paths(loaded.data)})
    if isinstance(loaded, ProbeRecipe):
        loaded = loaded.model_copy(update={"backbone": _pinned_backbone(loaded.backbone, runs_dir)})
    if isinstance(loaded, PretrainRecipe | ClassifyRecipe | TransferRecipe) and loaded.pretrained:
        loaded = loaded.model_copy(update={"pretrained": _pinned_backbone(loaded.pretrained, runs_dir)})
    loaded, derived = fit_to_backbone(loaded)
    if derived:
        facts["derived"] = derived
    return loaded, {**facts, "seed": loaded.seed}


def _require_packages(recipe: Recipe) -> None:
    """Check that the packages are installed that a recipe needs beside those that always are.

    Raises:
        RecipeError: one is not.
    """
    if not isinstance(recipe, PretrainRecipe | ClassifyRecipe | TransferRecipe):
        return
    if recipe.train.tensorboard and not find_spec("tensorboard"):
        raise RecipeError(
            "train.tensorboard needs another package; install it with: pip install 'rotnet-keras[tensorboard]'"
        )
    if isinstance(recipe, DetectionRecipe) and recipe.most_proposals and not find_spec("cv2"):
        raise RecipeError(
            "detector = 'fast_rcnn' needs another package; install it with: pip install 'rotnet-keras[proposals]'"
        )
    require_trackers(recipe.train.track, "train.track")


def _checked_study(study: StudyRecipe, base: Path) -> StudyRecipe:
    """Check that the recipes of all runs of a study are valid and that their data exist."""
    from rotnet_keras.data.audit import understand

    study = with_absolute_paths(study, base)
    for run in planned_runs(study):
        recipe = load_recipe(run.recipe, run.overrides())
        _require_packages(recipe)
        if isinstance(recipe, TransferRecipe):
            find_annotated(recipe.data)
            continue
        assert isinstance(recipe, RunRecipe)
        understand(recipe.data)
    return study.model_copy(update={"expect": None})


def _pinned_backbone(source: S, runs_dir: Path) -> S:
    """Name a backbone by its file, so that later runs of the same recipe do not change which one is meant."""
    file = str(find_backbone(source, runs_dir).absolute())
    return source.model_copy(update={"run": None, "recipe": None, "file": file})


def find_backbone(source: BackboneSource, runs_dir: Path) -> Path:
    """Return the `.keras` file that the `[backbone]` or `[pretrained]` section of a recipe refers to.

    Raises:
        DataError: the file does not exist.
        RunError: there is no such run, and no such pretrained model.
    """
    if source.file is not None:
        path = Path(source.file).expanduser()
    elif source.run is not None:
        path = find_run_or_pretrained(source.run, runs_dir).backbone
    else:
        wanted = Path(str(source.recipe)).stem
        made = [run for run in list_runs(runs_dir) if run.facts().get("recipe") == wanted and run.backbone.is_file()]
        if not made:
            raise RunError(
                f"no finished run of the recipe {wanted!r} in {runs_dir}; "
                f"start one with: rotnet-keras run {source.recipe}"
            )
        path = made[-1].backbone
    if not path.is_file():
        raise DataError(f"backbone: no file {path.absolute()}")
    return path


def create_run_from_recipe(recipe: Recipe, facts: Mapping[str, Any], name: str | None, runs_dir: Path) -> RunFolder:
    """Create the run folder of a recipe.

    Args:
        recipe: a checked recipe.
        facts: the first facts, as `load_for_run` returns them.
        name: the name of the run; by default the recipe's name and the time.
        runs_dir: the folder that holds all runs.

    Raises:
        RunError: the name is not a plain file name, or the folder cannot be created.
    """
    stem = re.sub(r"[^\w.+-]+", "-", facts["recipe"]).lstrip(".+-")[:80] or "run"
    return create_run(runs_dir, name or f"{stem}-{time.strftime('%m%d-%H%M')}", to_toml(recipe), facts)


def start_detached(folder: RunFolder, gpu: str | None = None) -> "subprocess.Popen[bytes]":
    """Start or resume a run in a session of its own, which outlives this process and its terminal.

    Args:
        folder: a run that no process is working on.
        gpu: the only GPU that it may use, as CUDA_VISIBLE_DEVICES names it; by default all that this process may use.

    Raises:
        RunError: the folder holds something that is not its own, such as a link.
        OSError: its log cannot be written.
    """
    folder.require_own_files()
    environment = None if gpu is None else {**os.environ, "CUDA_VISIBLE_DEVICES": gpu}
    with open_to_append(folder.log, folder.path) as log:
        return subprocess.Popen(
            python_command("-m", "rotnet_keras", "resume", str(folder.path)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment,
        )


def run(
    recipe: str | Path, *, name: str | None = None, runs_dir: str | Path | None = None, **overrides: Any
) -> RunFolder:
    """Run a recipe from Python, in a process of its own, and wait until it ends.

    Args:
        recipe: a TOML file, or the name of a shipped recipe.
        name: the name of the run; by default the recipe's name and the time.
        runs_dir: the folder that holds all runs; by default `ROTNET_RUNS_DIR`, or `runs` in the current folder.
        **overrides: sections or values that replace the recipe's, for example `train={"epochs": 3}` or `seed=1`.

    Returns:
        The run folder.

    Raises:
        RecipeError: the recipe is invalid; nothing was started.
        DataError: its data are missing; nothing was started.
        RotnetError: the run did not finish; the message says why.
    """
    runs_dir = Path(runs_dir) if runs_dir else default_runs_dir()
    loaded, facts = load_for_run(str(recipe), overrides, runs_dir, partial(warnings.warn, category=FutureWarning))
    folder = create_run_from_recipe(loaded, facts, name, runs_dir)
    command = python_command("-m", "rotnet_keras", "resume", str(folder.path))
    if subprocess.run(command, check=False).returncode:
        ends = [event for event in folder.last_events() if event["kind"] == "end"]
        raise RotnetError(ends[-1]["message"] if ends else f"{folder.name} was killed; its log is {folder.log}")
    return folder


def create_run(runs_dir: Path, name: str, recipe_toml: str, facts: Mapping[str, Any]) -> RunFolder:
    """Create a run folder with its recipe and first facts; a number is appended to `name` if it is taken.

    Raises:
        RunError: the name is not a plain file name, or the folder cannot be created.
    """
    if not PLAIN_NAME.fullmatch(name):
        raise RunError(f"{name!r} cannot name a run; use letters, digits, '-', '_', '+' and '.'")
    # The folder is filled before it is renamed, so that nobody ever sees a run without its recipe.
    staging = runs_dir / f".new-{os.urandom(4).hex()}"
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        (staging / "recipe.toml").write_text(recipe_toml, encoding="utf-8")
        (staging / "run.json").write_text(json.dumps({"format": FORMAT, **facts}, indent=2), encoding="utf-8")
        number = 1
        while True:
            target = runs_dir / (name if number == 1 else f"{name}-{number}")
            if not target.exists():
                try:
                    staging.rename(target)
                    return RunFolder(target)
                except OSError:
                    if not target.exists():
                        raise
            number += 1
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise RunError(f"cannot create a run folder in {runs_dir}: {error.strerror}") from None
