"""The command line. Each command imports what it needs when it is called, so that `--help` is instant."""

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rotnet_keras.cli import features, init, models, orientation
from rotnet_keras.cli import runs as run_commands
from rotnet_keras.cli.options import (
    AsJson,
    Detach,
    NewName,
    Overrides,
    RecipeName,
    RunName,
    RunsDir,
    Version,
    chosen,
    find,
    load,
    print_rows,
    tell,
)
from rotnet_keras.errors import RecipeError, RotnetError
from rotnet_keras.text import printable

app = typer.Typer(
    name="rotnet-keras",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def rotnet_keras(version: Version = False) -> None:
    """Self-supervised pretraining by predicting image rotations."""


@app.command()
def run(
    recipe: RecipeName,
    overrides: Overrides = None,
    name: NewName = None,
    runs_dir: RunsDir = None,
    detach: Detach = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check recipe and data; start nothing.")] = False,
) -> None:
    """Run a recipe."""
    from rotnet_keras.runs.launch import create_run_from_recipe, start_detached

    loaded, facts = load(recipe, overrides, chosen(runs_dir))
    if dry_run:
        from rotnet_keras.config.loading import to_toml

        tell(to_toml(loaded))
        tell("The recipe is valid and its data are there. Nothing was started.")
        if loaded.kind == "study":
            tell("Its runs, timed by a short trial:")
            plan(recipe, overrides, runs_dir=runs_dir)
        return
    from rotnet_keras.training.cluster import training_process

    if not training_process(loaded).chief:
        from rotnet_keras.tasks.run import follow

        raise typer.Exit(follow(loaded))
    folder = create_run_from_recipe(loaded, facts, name, chosen(runs_dir))
    if detach:
        from rotnet_keras.runs.folder import command_line

        process = start_detached(folder)
        tell(f"{folder.name} runs as process {process.pid}. Watch: {command_line('logs -f', folder)}")
        return
    from rotnet_keras.planning.costs import announce_study_cost
    from rotnet_keras.tasks.run import run_and_exit

    run_and_exit(folder, announce_study_cost)


@app.command()
def recipes(as_json: AsJson = False) -> None:
    """List the shipped recipes."""
    from rotnet_keras.config.finder import describe, shipped_recipes

    found = {name: describe(path) for name, path in shipped_recipes().items()}
    if as_json:
        typer.echo(json.dumps([{"name": n, "kind": k, "title": t} for n, (k, t) in found.items()], indent=2))
        return
    print_rows(["recipe", "kind", "title"], [[n, k, t] for n, (k, t) in found.items()])


@app.command()
def show(recipe: RecipeName, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Print a recipe with every default filled in."""
    from rotnet_keras.config.loading import load_recipe, parse_override, to_toml

    loaded = load_recipe(recipe, dict(map(parse_override, overrides or [])))
    tell(loaded.model_dump_json(indent=2, exclude_none=True) if as_json else to_toml(loaded).rstrip())


@app.command()
def check(files: Annotated[list[str], typer.Argument(metavar="RECIPE...")]) -> None:
    """Check recipes, without looking at their data."""
    from rotnet_keras.config.loading import load_recipe
    from rotnet_keras.config.study import StudyRecipe
    from rotnet_keras.runs.study_runs import planned_runs, with_absolute_paths

    complaints = []
    for file in files:
        try:
            recipe = load_recipe(file)
            if isinstance(recipe, StudyRecipe):
                for scale in recipe.scales:
                    planned_runs(with_absolute_paths(recipe.model_copy(update={"scale": scale}), Path(file).parent))
            tell(f"{file}: fine")
        except RecipeError as error:
            complaints.append(str(error))
    if complaints:
        raise RecipeError("\n".join(complaints))


@app.command()
def plan(
    recipe: RecipeName,
    overrides: Overrides = None,
    devices: Annotated[
        str | None,
        typer.Option(help="8xH100, 4x8xA100 (machines first), 2x1.5TFLOPS; this machine, timed, by default."),
    ] = None,
    cores: Annotated[
        int | None, typer.Option(min=1, help="With --devices: of each machine, to decode images; enough by default.")
    ] = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Say what a recipe computes, reads and takes: here, from a short trial, or on devices elsewhere."""
    from rotnet_keras.config.finder import find_recipe
    from rotnet_keras.config.loading import load_recipe, parse_override
    from rotnet_keras.config.study import StudyRecipe
    from rotnet_keras.planning.hardware import parse
    from rotnet_keras.runs.study_runs import with_absolute_paths

    cluster = parse(devices) if devices else None
    if cores and not cluster:
        raise RecipeError("--cores goes with --devices; without it this machine is timed as it is")
    loaded = load_recipe(recipe, dict(map(parse_override, overrides or [])))
    if isinstance(loaded, StudyRecipe):
        loaded = with_absolute_paths(loaded, find_recipe(recipe).parent)
    from rotnet_keras.planning.costs import estimate_costs

    found = list(estimate_costs(loaded, chosen(runs_dir), cluster, cores))
    if as_json:
        typer.echo(json.dumps([asdict(cost) for cost in found], indent=2))
        return
    from rotnet_keras.planning.plan import notes, table

    print_rows(*table(found))
    for note in notes(found, cluster, cores):
        tell(note)


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes."""
    from rotnet_keras.config.loading import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command()
def runs(runs_dir: RunsDir = None, as_json: AsJson = False) -> None:
    """List the runs and what they came to."""
    from rotnet_keras.runs.folder import list_runs
    from rotnet_keras.runs.status import summary

    found = [summary(folder) for folder in list_runs(chosen(runs_dir))]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    elif not found:
        tell(f"No runs in {chosen(runs_dir)}. Start one: rotnet-keras run quickstart")
    else:
        from rotnet_keras.runs.status import COLUMNS, summary_row

        print_rows(list(COLUMNS), [summary_row(s) for s in found])


@app.command()
def status(run: RunName, runs_dir: RunsDir = None, as_json: AsJson = False) -> None:
    """Say how one run is."""
    from rotnet_keras.runs.status import summary, summary_lines, unreadable_as_run_error, verdict_text

    folder = find(run, runs_dir)
    with unreadable_as_run_error(folder):
        found = {**summary(folder), "verdict": verdict_text(folder)}
    tell(json.dumps(found, indent=2) if as_json else summary_lines(found))


@app.command()
def logs(
    run: RunName, runs_dir: RunsDir = None, follow: Annotated[bool, typer.Option("--follow", "-f")] = False
) -> None:
    """Print a run's log."""
    folder = find(run, runs_dir)
    offset = 0
    while True:
        ended = not folder.alive()
        try:
            with folder.log.open("rb") as file:
                file.seek(offset)
                text = file.read()
        except OSError:
            text = b""
        offset += len(text)
        tell(text.decode("utf-8", "replace"), newline=False)
        if not follow or (ended and not text):
            return
        time.sleep(0.5)


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN...")], runs_dir: RunsDir = None, as_json: AsJson = False
) -> None:
    """Set runs side by side: results, and the recipe keys in which they differ."""
    from rotnet_keras.runs.status import comparison_table, unreadable_as_run_error

    folders = [find(name, runs_dir) for name in runs]
    with unreadable_as_run_error(*folders):
        columns, rows = comparison_table(folders)
    if as_json:
        typer.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=2))
    else:
        print_rows(columns, rows)


@app.command()
def report(run: RunName, runs_dir: RunsDir = None) -> None:
    """Write report.html and report.md of a run as it is now."""
    from rotnet_keras.reports.report import write_report
    from rotnet_keras.runs.status import unreadable_as_run_error

    folder = find(run, runs_dir)
    with unreadable_as_run_error(folder):
        write_report(folder)
    tell(folder.path / "report.html")


@app.command()
def collect(
    studies: Annotated[list[str], typer.Argument(metavar="STUDY...", help="Finished studies: runs, by name or path.")],
    output: Annotated[Path, typer.Option(help="The folder to write into.")] = Path("results"),
    name: Annotated[str, typer.Option(help="What the page is called.")] = "studies",
    title: Annotated[str, typer.Option(help="Its heading.")] = "The paper's experiments, repeated",
    runs_dir: RunsDir = None,
) -> None:
    """Write the tables and figures of finished studies to one place."""
    from rotnet_keras.reports.study_pages import collect as write

    tell(write([find(study, runs_dir) for study in studies], output, name, title))


app.add_typer(run_commands.queue, name="queue")
for _module in (run_commands, init, orientation, features, models):
    for _command in _module.COMMANDS:
        app.command()(_command)


def main() -> None:
    """Entry point of `rotnet-keras`: a user's mistake ends in a message, never in a traceback."""
    try:
        app()
    except RotnetError as error:
        print(printable(str(error)), file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of a pipe, `head` perhaps, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except OSError as error:
        print(printable(f"Error: {error}"), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
