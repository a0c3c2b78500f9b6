"""What a recipe's run, or a study's runs, would cost: on this machine, timed, or on devices that are not here."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rotnet_keras.config.loading import load_recipe
from rotnet_keras.config.schema import ClassifyRecipe, PretrainRecipe, ProbeRecipe, Recipe, RunRecipe, Source
from rotnet_keras.config.sections import Backbone, Data
from rotnet_keras.config.study import StudyRecipe
from rotnet_keras.config.transfer import TransferRecipe
from rotnet_keras.data.sources import find_source
from rotnet_keras.errors import DataError, RecipeError, RunError
from rotnet_keras.planning.hardware import Cluster
from rotnet_keras.reports.report import clock
from rotnet_keras.runs.folder import RunFolder, list_runs
from rotnet_keras.runs.launch import find_backbone, load_for_run
from rotnet_keras.runs.study_runs import PlannedRun, find_matching_run, planned_runs
from rotnet_keras.training.session import Session

# From the start of a run's process to its first step, and from its last to its end.
START_AND_END_SECONDS = 25.0


@dataclass(frozen=True)
class PhaseCost:
    """What is done in one phase of a run.

    Attributes:
        steps: of an optimizer.
        inputs: of the network in one of them.
        flop: multiplications and additions.
        images: that are read, each as often as it is.
    """

    name: str
    steps: int
    inputs: int
    flop: float
    images: float
    seconds: float


@dataclass(frozen=True)
class RunCost:
    """Of one run.

    Attributes:
        finished: the name of the run folder that it is already, if it is.
        seconds: 0 where it is finished.
        parts: none where it is finished.
        read_bytes: from disk; None where it is not known.
        memory_bytes: of the training on each device; None where there is none.
        on_paper: whether the images were not there.
    """

    name: str
    finished: str | None
    seconds: float
    parts: tuple[PhaseCost, ...] = ()
    read_bytes: float | None = None
    memory_bytes: float | None = None
    on_paper: bool = False


def estimate_costs(
    recipe: Recipe, runs_dir: Path, cluster: Cluster | None = None, cores: int | None = None
) -> Iterator[RunCost]:
    """Each run of a recipe, timed by a short trial here or priced for a cluster. Loads TensorFlow.

    Args:
        cores: of each machine of the cluster; enough to decode the images by default.

    Raises:
        DataError: the images are not there, and nothing is known of them.
    """
    known: dict[str, list[float]] = {}
    if not isinstance(recipe, StudyRecipe):
        assert isinstance(recipe, RunRecipe | TransferRecipe)
        yield _cost(recipe.title, *_with_backbone(recipe, runs_dir), (cluster, cores), known)
        return
    planned = planned_runs(recipe)
    done = finished_runs(planned, runs_dir)
    for run in planned:
        if folder := done.get((run.name, run.seed)):
            yield RunCost(run.folder_name, folder.name, 0.0)
            continue
        loaded = load_recipe(run.recipe, run.overrides())
        assert isinstance(loaded, RunRecipe | TransferRecipe)
        yield _cost(run.folder_name, loaded, _spec(run), (cluster, cores), known)


def costs_in_subprocess(recipe_file: Path, runs_dir: Path) -> list[RunCost]:
    """Those on this machine, found in a process of its own, whose memory is free afterwards; empty where it fails."""
    command = [sys.executable, "-m", "rotnet_keras", "plan", str(recipe_file), "--json"]
    result = subprocess.run(
        [*command, "--runs-dir", str(runs_dir)], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    try:
        found = json.loads(result.stdout)
        return [RunCost(**{**cost, "parts": tuple(PhaseCost(**part) for part in cost["parts"])}) for cost in found]
    except (ValueError, TypeError, KeyError):
        return []


def finished_runs(planned: list[PlannedRun], runs_dir: Path) -> dict[tuple[str, int], RunFolder]:
    """The run folders that need not be made, by name and seed."""
    runs = list_runs(runs_dir)
    found: dict[tuple[str, int], RunFolder] = {}
    for run in planned:
        source = found.get((run.source.name, run.seed)) if run.source else None
        if run.source and source is None:
            continue
        try:
            recipe, _ = load_for_run(run.recipe, run.overrides(source.backbone if source else None), runs_dir)
        except DataError:
            continue
        folder = find_matching_run(recipe, runs)
        if folder and folder.state() == "finished":
            found[run.name, run.seed] = folder
    return found


def announce_study_cost(session: Session) -> None:
    """Say how long a study is going to take here, once in its life; nothing of other kinds of run."""
    if not isinstance(session.recipe, StudyRecipe):
        return
    planned, runs_dir = planned_runs(session.recipe), session.folder.path.parent
    if session.earlier or len(finished_runs(planned, runs_dir)) == len(planned):
        return
    session.say("Timing a few steps of each run; this takes a minute or two.")
    found = costs_in_subprocess(session.folder.recipe, runs_dir)
    missing = [cost for cost in found if not cost.finished]
    if missing:
        total = clock(sum(cost.seconds for cost in missing))
        session.say(f"{len(missing)} of {len(found)} runs are to be made, which takes about {total} on this machine.")
    session.stop.check()


def _cost(
    name: str,
    recipe: RunRecipe | TransferRecipe,
    spec: Backbone | None,
    machines: tuple[Cluster | None, int | None],
    known: dict[str, list[float]],
) -> RunCost:
    """Of one run, on a cluster with so many cores a machine, or here; `known` are the trials so far."""
    from rotnet_keras.engine import resolve_precision
    from rotnet_keras.planning import roofline
    from rotnet_keras.planning.trial import Trial, seconds
    from rotnet_keras.planning.workload import workload

    if isinstance(recipe, TransferRecipe) and spec:
        recipe = recipe.model_copy(update={"backbone": spec})
    dataset, there = _dataset(recipe)
    work = workload(recipe, dataset, spec)
    cluster, cores = machines
    if cluster:
        decoded = work.image_bytes != 0
        times = [roofline.seconds(phase, cluster, cores, decoded) for phase in work.phases]
        devices = cluster.total
    else:
        times, devices = seconds(Trial(recipe, dataset, spec), known), 1
    parts = [
        PhaseCost(phase.name, phase.steps, phase.inputs, phase.flop, phase.images, took)
        for phase, took in zip(work.phases, times, strict=True)
    ]
    memory = None
    if work.memory:
        half = work.memory.precision if cluster else resolve_precision(work.memory.precision)
        memory = roofline.memory_bytes(work.memory, devices, roofline.uses_16_bits(half))
    read = None if work.image_bytes is None else work.image_bytes * sum(phase.images for phase in work.phases)
    return RunCost(name, None, START_AND_END_SECONDS + sum(times), tuple(parts), read, memory, not there)


@cache
def _dataset_of(data: str) -> tuple[Any, bool]:
    from rotnet_keras.data.datasets import load
    from rotnet_keras.planning.published_sizes import PUBLISHED, placeholder_dataset

    wanted = Data.model_validate_json(data)
    try:
        find_source(wanted)
    except DataError:
        if wanted.name.split(":")[0] not in PUBLISHED:
            raise
        return placeholder_dataset(wanted), False
    return load(wanted), True


def _dataset(recipe: RunRecipe | TransferRecipe) -> tuple[Any, bool]:
    """The images, or noise of their shapes where they are not there, and whether they are; read once."""
    if isinstance(recipe, TransferRecipe):
        from rotnet_keras.planning.transfers import load_transfer_data

        return load_transfer_data(recipe)
    return _dataset_of(recipe.data.model_dump_json())


def _with_backbone(
    recipe: RunRecipe | TransferRecipe, runs_dir: Path
) -> tuple[RunRecipe | TransferRecipe, Backbone | None]:
    """The recipe with the file of the backbone that it goes on from; where no run has made it yet, what it will be."""
    key = "backbone" if isinstance(recipe, ProbeRecipe) else "pretrained"
    source = getattr(recipe, key, None)
    if not isinstance(source, Source):
        return recipe, None
    try:
        file = find_backbone(source, runs_dir)
    except (RunError, DataError):
        if source.recipe is None:
            raise
        made_by = load_recipe(source.recipe)
        if not isinstance(made_by, PretrainRecipe | ClassifyRecipe) or made_by.backbone is None:
            raise RecipeError(f"{key}.recipe: {source.recipe!r} trains no backbone from scratch") from None
        return recipe, made_by.backbone
    found = source.model_copy(update={"run": None, "recipe": None, "file": str(file)})
    return recipe.model_copy(update={key: found}), None


def _spec(run: PlannedRun) -> Backbone | None:
    """The backbone that a study's run will go on from."""
    if run.source is None:
        return None
    source = load_recipe(run.source.recipe, run.source.overrides())
    if isinstance(source, PretrainRecipe | ClassifyRecipe) and source.backbone:
        return source.backbone
    return _spec(run.source)
