"""What the runs of a recipe cost: timed by a trial on this machine, or computed for other devices."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.config.loading import load_recipe
from rotnet_keras.config.schema import BackboneSource, ClassifyRecipe, PretrainRecipe, ProbeRecipe, Recipe, RunRecipe
from rotnet_keras.config.sections import Backbone, Data
from rotnet_keras.config.study import StudyRecipe
from rotnet_keras.config.transfer import TransferRecipe
from rotnet_keras.data.listing.sources import ListedSource
from rotnet_keras.data.sources import find_source
from rotnet_keras.data.stores import SPLITS, Progress, Split, choose_cache
from rotnet_keras.errors import DataError, RecipeError, RunError
from rotnet_keras.host import python_command
from rotnet_keras.planning.hardware import Cluster
from rotnet_keras.runs.folder import RunFolder, list_runs
from rotnet_keras.runs.launch import find_backbone, load_for_run
from rotnet_keras.runs.study_runs import PlannedRun, find_matching_run, planned_runs
from rotnet_keras.text import duration
from rotnet_keras.training.session import Session

# From the start of a process to the first step, and from the last step to the end: imports, graph tracing, report.
START_AND_END_SECONDS = 25.0
# Of more image files than the first, as many as the second are decoded for a trial; all of a million take minutes.
SAMPLED_ABOVE, SAMPLE = 20_000, 2048


@dataclass(frozen=True)
class PhaseCost:
    """The cost of one phase of a run. `rotnet-keras plan --json` prints these fields.

    Attributes:
        name: the name of the phase, for example "pretraining".
        steps: optimizer steps; 0 in a phase without training.
        inputs: inputs to the model in one step.
        flop: multiplications and additions.
        images: images read from the data set, counted each time they are read.
        seconds: the estimated time.
    """

    name: str
    steps: int
    inputs: int
    flop: float
    images: float
    seconds: float


@dataclass(frozen=True)
class RunCost:
    """The cost of one run. `rotnet-keras plan --json` prints these fields.

    Attributes:
        name: the title of the recipe, or the name of the run in its study.
        finished: the name of the finished run folder with this recipe; None if the run is still to be made.
        seconds: the estimated time of the whole run; 0 if it is finished.
        parts: its phases; empty if it is finished.
        read_bytes: bytes read from disk; None if unknown.
        memory_bytes: memory of the training on each device; None if nothing is trained or the run is finished.
        on_paper: whether the images are missing here, and published sizes of the data set were used instead.
    """

    name: str
    finished: str | None
    seconds: float
    parts: tuple[PhaseCost, ...] = ()
    read_bytes: float | None = None
    memory_bytes: float | None = None
    on_paper: bool = False


def estimate_costs(
    recipe: Recipe,
    runs_dir: Path,
    cluster: Cluster | None = None,
    cores: int | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Iterator[RunCost]:
    """Yield the cost of each run of a recipe. Loads TensorFlow.

    Args:
        recipe: the recipe of a run or of a study.
        runs_dir: the folder of run folders, in which finished runs and backbones are looked for.
        cluster: the devices to compute the cost for; by default this machine, timed by a short trial.
        cores: CPU cores of each machine of the cluster; by default as many as decoding the images needs.
        progress: called while the images are read.

    Raises:
        DataError: the images are missing, and the size of this data set is unknown.
    """
    known: dict[str, list[float]] = {}
    if not isinstance(recipe, StudyRecipe):
        assert isinstance(recipe, RunRecipe | TransferRecipe)
        yield _cost(recipe.title, *_resolve_backbone(recipe, runs_dir), (cluster, cores), known, progress)
        return
    planned = planned_runs(recipe)
    done = finished_runs(planned, runs_dir)
    for run in planned:
        if folder := done.get((run.name, run.seed)):
            yield RunCost(run.folder_name, folder.name, 0.0)
            continue
        loaded = load_recipe(run.recipe, run.overrides())
        assert isinstance(loaded, RunRecipe | TransferRecipe)
        yield _cost(run.folder_name, loaded, _source_backbone(run), (cluster, cores), known, progress)


def costs_in_subprocess(recipe_file: Path, runs_dir: Path) -> list[RunCost]:
    """Estimate the costs on this machine in a process of its own, so that its memory is free afterwards.

    Returns:
        The costs of the runs; an empty list if the process fails.
    """
    command = python_command("-m", "rotnet_keras", "plan", str(recipe_file), "--json")
    result = subprocess.run(
        [*command, "--runs-dir", str(runs_dir)], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    try:
        found = json.loads(result.stdout)
        return [RunCost(**{**cost, "parts": tuple(PhaseCost(**part) for part in cost["parts"])}) for cost in found]
    except (ValueError, TypeError, KeyError):
        return []


def finished_runs(planned: list[PlannedRun], runs_dir: Path) -> dict[tuple[str, int], RunFolder]:
    """Return the run folders of the planned runs that are finished, by name and seed."""
    runs = list_runs(runs_dir)
    found: dict[tuple[str, int], RunFolder] = {}
    for run in planned:
        source = found.get((run.source.name, run.source.seed)) if run.source else None
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
    """Say how long a study will take on this machine, before its first run; do nothing for other kinds of recipe."""
    if not isinstance(session.recipe, StudyRecipe) or session.folder.facts().get("submission"):
        return  # What a cluster takes cannot be timed here.
    planned, runs_dir = planned_runs(session.recipe), session.folder.path.parent
    if session.earlier or len(finished_runs(planned, runs_dir)) == len(planned):
        return
    session.say("Timing a few steps of each run. This takes a minute or two.")
    found = costs_in_subprocess(session.folder.recipe, runs_dir)
    missing = [cost for cost in found if not cost.finished]
    if missing:
        total = duration(sum(cost.seconds for cost in missing))
        session.say(f"{len(missing)} of {len(found)} runs are missing. They take about {total} on this machine.")
        session.record(run_seconds={cost.name: cost.seconds for cost in found})
    session.stop.check()


def _cost(
    name: str,
    recipe: RunRecipe | TransferRecipe,
    spec: Backbone | None,
    machines: tuple[Cluster | None, int | None],
    known: dict[str, list[float]],
    progress: Progress,
) -> RunCost:
    """Return the cost of one run.

    Args:
        name: how the run is called in the table.
        recipe: its recipe.
        spec: the backbone that it starts from, if that is still to be made.
        machines: the cluster, or None for this machine, and the CPU cores of each of its machines.
        known: the times of the trials so far; new ones are added.
        progress: called while the images are read.
    """
    from rotnet_keras.engine import resolve_precision
    from rotnet_keras.planning import roofline
    from rotnet_keras.planning.trial import Trial, time_phases
    from rotnet_keras.planning.workload import workload

    if isinstance(recipe, TransferRecipe) and spec:
        recipe = recipe.model_copy(update={"backbone": spec})
    if isinstance(recipe, PretrainRecipe) and spec:
        recipe = recipe.model_copy(update={"backbone": spec, "pretrained": None})
    dataset, available = _dataset(recipe, progress)
    if isinstance(recipe, PretrainRecipe):
        recipe, _ = recipe.for_labels(dataset.labelled)
    work = workload(recipe, dataset, spec)
    cluster, cores = machines
    if cluster:
        decoded = work.image_bytes != 0
        times = [roofline.phase_seconds(phase, cluster, cores, decoded) for phase in work.phases]
        devices = cluster.total
    else:
        times, devices = time_phases(Trial(recipe, dataset, spec), known), 1
    parts = [
        PhaseCost(phase.name, phase.steps, phase.inputs, phase.flop, phase.images, took)
        for phase, took in zip(work.phases, times, strict=True)
    ]
    memory = None
    if work.memory:
        half = work.memory.precision if cluster else resolve_precision(work.memory.precision)
        memory = roofline.memory_bytes(work.memory, devices, roofline.uses_16_bits(half))
    read_bytes = None if work.image_bytes is None else work.image_bytes * sum(phase.images for phase in work.phases)
    return RunCost(name, None, START_AND_END_SECONDS + sum(times), tuple(parts), read_bytes, memory, not available)


@cache
def _load_or_placeholder(data: str, progress: Progress) -> tuple[Any, bool]:
    from rotnet_keras.data.datasets import load
    from rotnet_keras.planning.published_sizes import PUBLISHED, placeholder_dataset

    wanted = Data.model_validate_json(data)
    try:
        source = find_source(wanted)
    except DataError:
        if wanted.name.split(":")[0] not in PUBLISHED:
            raise
        return placeholder_dataset(wanted), False
    if isinstance(source, ListedSource) and sum(map(len, source.splits.values())) > SAMPLED_ABOVE:
        uncached = load(wanted.model_copy(update={"cache": "none"}), progress, source=source)
        return _with_sampled_images(uncached, wanted), True
    return load(wanted, progress, source=source), True


def _with_sampled_images(dataset: Any, data: Data) -> Any:
    """Return a data set of as many images, of which a sample is decoded, and repeated; as it is if none are kept."""
    store = dataset.train.store
    if data.whole or choose_cache(len(dataset.train), store.shape[1:], data.cache, store.dtype) == "none":
        return dataset
    splits = {name: getattr(dataset, name) for name in SPLITS}
    return replace(dataset, **{name: _sampled(split) for name, split in splits.items() if split})


def _sampled(split: Split) -> Split:
    count = min(SAMPLE, len(split))
    images = split.images(np.linspace(0, len(split) - 1, count).astype(np.int64))
    return Split(images, np.resize(np.arange(count), len(split)), split.labels, split.values)


def _dataset(recipe: RunRecipe | TransferRecipe, progress: Progress) -> tuple[Any, bool]:
    """Return the data set of a recipe and whether its images are on this machine; if not, it has random pixels."""
    from rotnet_keras.data.datasets import only_classes

    if isinstance(recipe, TransferRecipe):
        from rotnet_keras.planning.transfers import load_transfer_data

        return load_transfer_data(recipe, progress)
    # Runs that leave out different classes share what is loaded.
    only = recipe.data.only
    dataset, available = _load_or_placeholder(recipe.data.model_copy(update={"only": None}).model_dump_json(), progress)
    return (only_classes(dataset, only), True) if only and available else (dataset, available)


def _resolve_backbone(
    recipe: RunRecipe | TransferRecipe, runs_dir: Path
) -> tuple[RunRecipe | TransferRecipe, Backbone | None]:
    """Find the backbone that a recipe starts from.

    Returns:
        The recipe with the file of the backbone, and None; or, if no run has made the backbone yet, the recipe as it is
        and the specification of the backbone.
    """
    key = "backbone" if isinstance(recipe, ProbeRecipe) else "pretrained"
    source = getattr(recipe, key, None)
    if not isinstance(source, BackboneSource):
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


def _source_backbone(run: PlannedRun) -> Backbone | None:
    """Return the specification of the backbone that a run of a study starts from; None if it starts from none."""
    if run.source is None:
        return None
    source = load_recipe(run.source.recipe, run.source.overrides())
    if isinstance(source, PretrainRecipe | ClassifyRecipe) and source.backbone:
        return source.backbone
    return _source_backbone(run.source)
