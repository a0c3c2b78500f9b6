"""The commands of the queue: add, list, remove, work."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rotnet_keras.cli.options import (
    command,
    detach_option,
    echo,
    echo_json,
    echo_table,
    json_option,
    load_for_run,
    name_option,
    overrides_argument,
    recipe_argument,
    run_argument,
    runs_dir_option,
)
from rotnet_keras.cli.submission import require_submission, submit_and_tell, submit_option, submit_options_option
from rotnet_keras.errors import RecipeError, RotnetError

if TYPE_CHECKING:
    from rotnet_keras.config.submit_options import Cluster


@click.group()
def queue() -> None:
    """Queue runs, to be started one at a time on each GPU.

    Add runs, then start a worker: `rotnet-keras queue work --detach`.
    """


@command(examples=("rotnet-keras queue add cifar_nin seed=1",))
@recipe_argument
@overrides_argument
@name_option
@runs_dir_option
@submit_option
@submit_options_option
def add(
    recipe: str,
    overrides: tuple[str, ...],
    name: str | None,
    runs_dir: Path,
    submit: "Cluster | None",
    submit_options: str | None,
) -> None:
    """Add a run to the end of the queue.

    With --submit, the cluster's own queue takes it instead of the one of this machine.
    """
    from rotnet_keras.runs.next_steps import runs_dir_option
    from rotnet_keras.runs.queue import enqueue, queued_runs

    options = require_submission(submit, submit_options)
    loaded, facts = load_for_run(recipe, overrides, runs_dir)
    if submit:
        from rotnet_keras.runs.launch import create_run_from_recipe

        if loaded.kind == "study":
            raise RecipeError(
                "a study is no job: its runs are. Submit them with: rotnet-keras run STUDY --submit slurm"
            )
        submit_and_tell(create_run_from_recipe(loaded, facts, name, runs_dir), submit, options, new=True)
        return
    folder = enqueue(loaded, facts, name, runs_dir)
    names = [waiting.name for waiting in queued_runs(runs_dir)]
    position = f"is number {names.index(folder.name) + 1} in the queue" if folder.name in names else "starts now"
    echo(f"{folder.name} {position}. See the queue: rotnet-keras queue list{runs_dir_option(runs_dir)}")


@command("list")
@runs_dir_option
@json_option
def list_(runs_dir: Path, as_json: bool) -> None:
    """List the waiting runs, and say whether a worker is active."""
    from rotnet_keras.runs.next_steps import runs_dir_option
    from rotnet_keras.runs.queue import not_queued_here, queued_runs, was_queued_here, worker_pid

    queued = queued_runs(runs_dir)
    pid, waiting = worker_pid(runs_dir), [(run.name, run.facts()) for run in queued]
    if as_json:
        keys = ("recipe", "overrides", "queued")
        runs = [{"name": name, **{key: facts.get(key) for key in keys}} for name, facts in waiting]
        echo_json({"worker": pid, "runs": runs})
        return
    if waiting:
        since = [time.strftime("%Y-%m-%d %H:%M", time.localtime(facts.get("queued"))) for _, facts in waiting]
        rows = [[str(i + 1), name, facts.get("recipe") or "", since[i]] for i, (name, facts) in enumerate(waiting)]
        echo_table(["place", "run", "recipe", "queued"], rows)
    else:
        echo("The queue is empty.")
    for run in queued:
        if not was_queued_here(run):
            echo(f"The worker skips {run.name}: {not_queued_here(run)}")
    if pid is not None:
        echo(f"Process {pid} works on the queue.")
    elif waiting:
        echo(f"No worker is active. Start one: rotnet-keras queue work --detach{runs_dir_option(runs_dir)}")


@command()
@run_argument
@runs_dir_option
def remove(run: str, runs_dir: Path) -> None:
    """Remove a waiting run from the queue, and delete its folder."""
    from rotnet_keras.runs.control import find_own_run
    from rotnet_keras.runs.queue import remove_queued

    folder = find_own_run(run, runs_dir)
    remove_queued(folder)
    echo(f"Removed {folder.name} from the queue.")


@command()
@runs_dir_option
@detach_option
def work(runs_dir: Path, detach: bool) -> None:
    """Start the waiting runs in turn, until none is left.

    Runs that have started go on even if this process ends.
    """
    from rotnet_keras.runs.queue import run_worker, start_worker, worker_pid

    pid = worker_pid(runs_dir)
    if pid is not None:
        raise RotnetError(f"process {pid} works on the queue of {runs_dir} already")
    if detach:
        echo(f"Process {start_worker(runs_dir).pid} works on the queue of {runs_dir}.")
        return
    run_worker(runs_dir)


for _command in (add, list_, remove, work):
    queue.add_command(_command)
