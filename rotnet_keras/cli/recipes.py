"""The commands about recipes: run, recipes, show, check, plan, schema."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rotnet_keras.cli.options import (
    argument,
    command,
    detach_option,
    echo,
    echo_json,
    echo_table,
    flag,
    json_option,
    load_for_run,
    name_option,
    option,
    overrides_argument,
    parse_overrides,
    recipe_argument,
    runs_dir_option,
    show_progress,
    warn,
)
from rotnet_keras.cli.submission import (
    require_submission,
    submission_facts,
    submit_and_tell,
    submit_option,
    submit_options_option,
)
from rotnet_keras.errors import RecipeError

if TYPE_CHECKING:
    from rotnet_keras.config.submit_options import Cluster as Submission
    from rotnet_keras.planning.costs import RunCost
    from rotnet_keras.planning.hardware import Cluster


@command(
    examples=(
        "rotnet-keras run quickstart",
        "rotnet-keras run my_images.toml train.epochs=3 --name trial",
        "rotnet-keras run cifar_nin --submit slurm --submit-options gpus=1,time=60",
    )
)
@recipe_argument
@overrides_argument
@name_option
@runs_dir_option
@detach_option
@submit_option
@submit_options_option
@flag("--dry-run", description="Check the recipe and its data, and start nothing.")
def run(
    recipe: str,
    overrides: tuple[str, ...],
    name: str | None,
    runs_dir: Path,
    detach: bool,
    submit: "Submission | None",
    submit_options: str | None,
    dry_run: bool,
) -> None:
    """Run a recipe and write a run folder.

    The kind of the recipe says what is done: pretraining, probes, finetuning, PASCAL VOC or a whole study.

    Ctrl-C saves a checkpoint and stops. `rotnet-keras resume RUN` continues.
    """
    from rotnet_keras.runs.launch import create_run_from_recipe, start_detached

    options = require_submission(submit, submit_options)
    loaded, facts = load_for_run(recipe, overrides, runs_dir)
    if dry_run:
        from rotnet_keras.config.loading import to_toml
        from rotnet_keras.config.schema import PretrainRecipe, RunRecipe
        from rotnet_keras.data.audit import labelled_splits, understand

        echo(to_toml(loaded))
        if isinstance(loaded, RunRecipe):
            rows = [*understand(loaded.data), *([("backbone", facts["derived"])] if "derived" in facts else [])]
            echo_table(["", ""], [list(row) for row in rows])
        left_out = loaded.for_labels(labelled_splits(loaded.data))[1] if isinstance(loaded, PretrainRecipe) else ""
        if left_out:
            warn(left_out)
        echo("The recipe is valid and its data are there. Nothing was started.")
        if loaded.kind == "study":
            echo("Its runs, timed by a short trial:")
            _echo_costs(_estimate(recipe, overrides, runs_dir, None, None), None, None)
        return
    from rotnet_keras.training.cluster import training_process

    if not training_process(loaded).chief:
        from rotnet_keras.tasks.run import follow

        raise click.exceptions.Exit(follow(loaded))
    if submit and loaded.kind == "study":
        facts |= submission_facts(submit, options)
    folder = create_run_from_recipe(loaded, facts, name, runs_dir)
    if submit and loaded.kind != "study":
        submit_and_tell(folder, submit, options, new=True)
        return
    if detach:
        from rotnet_keras.runs.next_steps import command_line

        process = start_detached(folder)
        echo(f"Started {folder.name} as process {process.pid}. Watch it: {command_line('logs -f', folder)}")
        return
    from rotnet_keras.planning.costs import announce_study_cost
    from rotnet_keras.tasks.run import run_and_exit

    run_and_exit(folder, announce_study_cost)


@command()
@json_option
def recipes(as_json: bool) -> None:
    """List the recipes that ship with the package."""
    from rotnet_keras.config.finder import kind_and_title, shipped_recipes

    found = {name: kind_and_title(path) for name, path in shipped_recipes().items()}
    if as_json:
        echo_json([{"name": name, "kind": kind, "title": title} for name, (kind, title) in found.items()])
        return
    echo_table(["recipe", "kind", "title"], [[name, kind, title] for name, (kind, title) in found.items()])


@command(examples=("rotnet-keras show quickstart > mine.toml",))
@recipe_argument
@overrides_argument
@json_option
def show(recipe: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print a recipe with every default filled in."""
    from rotnet_keras.config.loading import load_recipe, to_toml

    loaded = load_recipe(recipe, parse_overrides(overrides), warn)
    echo(loaded.model_dump_json(indent=2, exclude_none=True) if as_json else to_toml(loaded).rstrip())


@command(examples=("rotnet-keras check mine.toml quickstart",))
@argument("files", "RECIPE...", "TOML files, or names of shipped recipes.", nargs=-1, required=True)
def check(files: tuple[str, ...]) -> None:
    """Check recipes for mistakes, without their data.

    Unknown keys, wrong types and values out of range are all listed at once.
    """
    from rotnet_keras.config.loading import load_recipe
    from rotnet_keras.config.study import StudyRecipe
    from rotnet_keras.runs.study_runs import planned_runs, with_absolute_paths

    complaints = []
    for file in files:
        try:
            recipe = load_recipe(file, warn=warn)
            if isinstance(recipe, StudyRecipe):
                for scale in recipe.scales:
                    planned_runs(with_absolute_paths(recipe.model_copy(update={"scale": scale}), Path(file).parent))
            echo(f"{file}: valid")
        except RecipeError as error:
            complaints.append(str(error))
    if complaints:
        raise RecipeError("\n".join(complaints))


@command(
    examples=(
        "rotnet-keras plan cifar_nin",
        "rotnet-keras plan imagenet_alexnet --devices 8xH100 --cores 64",
    )
)
@recipe_argument
@overrides_argument
@option("--devices", metavar="DEVICES", help="8xH100, 4x8xA100 (4 machines of 8) or 2x1.5TFLOPS; here by default.")
@option(
    "--cores",
    metavar="N",
    type=click.IntRange(min=1),
    help="With --devices: CPU cores of each machine that decode images; as many as needed by default.",
)
@runs_dir_option
@json_option
def plan(
    recipe: str,
    overrides: tuple[str, ...],
    devices: str | None,
    cores: int | None,
    runs_dir: Path,
    as_json: bool,
) -> None:
    """Estimate how long a recipe takes and what it needs.

    Prints time, arithmetic, memory and bytes read. This machine is timed by a short trial, which decodes 2,048 images
    where there are more than 20,000 files; with --devices, the figures of other hardware are computed.
    """
    from rotnet_keras.planning.hardware import parse_devices

    cluster = parse_devices(devices) if devices else None
    if cores and not cluster:
        raise RecipeError("--cores needs --devices: without it, this machine is timed as it is")
    found = _estimate(recipe, overrides, runs_dir, cluster, cores)
    if as_json:
        echo_json([asdict(cost) for cost in found])
        return
    _echo_costs(found, cluster, cores)


@command(examples=("rotnet-keras schema > recipe.schema.json",))
def schema() -> None:
    """Print the JSON schema of recipes.

    Editors complete and check recipes with it.
    """
    from rotnet_keras.config.loading import json_schema

    echo_json(json_schema())


def _estimate(
    recipe: str, overrides: Sequence[str], runs_dir: Path, cluster: "Cluster | None", cores: int | None
) -> "list[RunCost]":
    """What the runs of a recipe cost, on this machine where no cluster is given."""
    from rotnet_keras.config.finder import find_recipe
    from rotnet_keras.config.loading import load_recipe
    from rotnet_keras.config.study import StudyRecipe
    from rotnet_keras.runs.study_runs import with_absolute_paths

    loaded = load_recipe(recipe, parse_overrides(overrides), warn)
    if isinstance(loaded, StudyRecipe):
        loaded = with_absolute_paths(loaded, find_recipe(recipe).parent)
    from rotnet_keras.planning.costs import estimate_costs

    return list(estimate_costs(loaded, runs_dir, cluster, cores, show_progress))


def _echo_costs(found: "Sequence[RunCost]", cluster: "Cluster | None", cores: int | None) -> None:
    from rotnet_keras.planning.plan import cost_table, plan_notes

    echo_table(*cost_table(found))
    for note in plan_notes(found, cluster, cores):
        echo(note)
