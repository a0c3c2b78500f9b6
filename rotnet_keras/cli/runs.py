"""The commands that act on runs that are there: go on, stop, kill, delete, and the queue."""

import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from rotnet_keras.cli.options import (
    AsJson,
    Detach,
    NewName,
    Overrides,
    RecipeName,
    RunName,
    RunsDir,
    chosen,
    find,
    load,
    print_rows,
    tell,
)
from rotnet_keras.errors import RecipeError, RotnetError
from rotnet_keras.text import printable

if TYPE_CHECKING:
    from rotnet_keras.runs.folder import RunFolder

KILL_SECONDS = 10
# From a run's last event to the end of its process.
EXIT_SECONDS = 15

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

queue = typer.Typer(help="Runs that wait for their turn, one at a time on each GPU.", no_args_is_help=True)


def resume(run: RunName, runs_dir: RunsDir = None, detach: Detach = False) -> None:
    """Go on with a run that was stopped or killed, exactly where its last checkpoint is."""
    from rotnet_keras.config.loading import load_recipe
    from rotnet_keras.host import check_backend
    from rotnet_keras.planning.costs import announce_study_cost
    from rotnet_keras.runs.launch import start_detached
    from rotnet_keras.tasks.run import follow, run_and_exit
    from rotnet_keras.training.cluster import training_process

    check_backend()
    folder = find(run, runs_dir)
    folder.require_known_format()
    recipe = load_recipe(folder.recipe)
    if not training_process(recipe).chief:
        raise typer.Exit(follow(recipe))
    _let_exit(folder)
    state = folder.state()
    if folder.alive():
        raise RotnetError(f"{folder.name} is {state} already, as process {folder.facts()['pid']}")
    if state == "finished":
        raise RotnetError(f"{folder.name} is finished; its results are in {folder.path / 'report.html'}")
    if detach:
        tell(f"{folder.name} goes on as process {start_detached(folder).pid}.")
        return
    run_and_exit(folder, announce_study_cost)


def stop(run: RunName, runs_dir: RunsDir = None) -> None:
    """Ask a run to stop after its step, with a checkpoint."""
    from rotnet_keras.runs.folder import command_line

    folder = find(run, runs_dir)
    if folder.queued_since() is not None:
        raise RotnetError(f"{folder.name} has not started; take it out with: {command_line('queue remove', folder)}")
    _require_alive(folder)
    folder.stop_file.touch()
    tell(f"{folder.name} stops after its step. Go on later with: {command_line('resume', folder)}")


def kill(run: RunName, runs_dir: RunsDir = None, yes: Yes = False) -> None:
    """End a run at once, without a checkpoint. What came after its last one is lost."""
    import psutil

    from rotnet_keras.runs.folder import command_line

    folder = find(run, runs_dir)
    _require_alive(folder)
    tell(f"Killing {folder.name} loses {_loss(folder)}. To lose nothing: {command_line('stop', folder)}")
    _confirm(yes, f"Kill {folder.name}?")
    # It may have ended, and its number gone to another process, while the question was open.
    _require_alive(folder)
    try:
        process = psutil.Process(folder.facts()["pid"])
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        raise RotnetError(f"{folder.name} has just ended by itself") from None
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    deadline = time.monotonic() + KILL_SECONDS
    while folder.alive():
        if time.monotonic() > deadline:
            raise RotnetError(f"{folder.name} is not gone after {KILL_SECONDS} seconds: process {process.pid}")
        time.sleep(0.05)
    tell(f"{folder.name} is killed. Go on from its last checkpoint with: {command_line('resume', folder)}")


def delete(run: RunName, runs_dir: RunsDir = None, yes: Yes = False) -> None:
    """Delete a run's folder and all that is in it."""
    from rotnet_keras.runs.folder import command_line, remove_run

    folder = find(run, runs_dir)
    _let_exit(folder)
    _require_ended(folder, command_line("stop", folder))
    size = sum(file.stat().st_size for file in folder.path.rglob("*") if file.is_file()) / 1e6
    backbone = "with its exported backbone" if folder.backbone.is_file() else "which holds no exported backbone"
    tell(f"This deletes {folder.path} ({size:.1f} MB), {backbone}.")
    _confirm(yes, f"Delete {folder.name}?")
    _require_ended(folder, command_line("stop", folder))
    remove_run(folder)
    tell(f"{folder.name} is deleted.")


@queue.command()
def add(recipe: RecipeName, overrides: Overrides = None, name: NewName = None, runs_dir: RunsDir = None) -> None:
    """Put a run at the end of the queue; it starts when its turn comes."""
    from rotnet_keras.runs.folder import runs_dir_option
    from rotnet_keras.runs.queue import enqueue, queued_runs

    where = chosen(runs_dir)
    loaded, facts = load(recipe, overrides, where)
    folder = enqueue(loaded, facts, name, where)
    names = [waiting.name for waiting in queued_runs(where)]
    place = f"is number {names.index(folder.name) + 1} in the queue" if folder.name in names else "starts now"
    tell(f"{folder.name} {place}. Look: rotnet-keras queue list{runs_dir_option(where)}")


@queue.command("list")
def list_(runs_dir: RunsDir = None, as_json: AsJson = False) -> None:
    """List the runs that wait, the next one first, and say whether the queue is worked on."""
    from rotnet_keras.runs.folder import runs_dir_option
    from rotnet_keras.runs.queue import queued_runs, worker_pid

    where = chosen(runs_dir)
    pid, waiting = worker_pid(where), [(run.name, run.facts()) for run in queued_runs(where)]
    if as_json:
        keys = ("recipe", "overrides", "queued")
        runs = [{"name": name, **{key: facts.get(key) for key in keys}} for name, facts in waiting]
        typer.echo(json.dumps({"worker": pid, "runs": runs}, indent=2))
        return
    if waiting:
        since = [time.strftime("%Y-%m-%d %H:%M", time.localtime(facts.get("queued"))) for _, facts in waiting]
        rows = [[str(i + 1), name, facts.get("recipe") or "", since[i]] for i, (name, facts) in enumerate(waiting)]
        print_rows(["place", "run", "recipe", "queued"], rows)
    else:
        tell("No run waits.")
    if pid is not None:
        tell(f"Process {pid} works on the queue.")
    elif waiting:
        tell(f"Nobody works on the queue. Start: rotnet-keras queue work --detach{runs_dir_option(where)}")


@queue.command()
def remove(run: RunName, runs_dir: RunsDir = None) -> None:
    """Take a run out of the queue, and delete its folder."""
    from rotnet_keras.runs.queue import remove_queued as remove_from_queue

    folder = find(run, runs_dir)
    remove_from_queue(folder)
    tell(f"{folder.name} is out of the queue.")


@queue.command()
def work(runs_dir: RunsDir = None, detach: Detach = False) -> None:
    """Start the runs of the queue in their turn, until none is left. The runs survive this process."""
    from rotnet_keras.runs.queue import run_worker as drain
    from rotnet_keras.runs.queue import start_worker, worker_pid

    where = chosen(runs_dir)
    pid = worker_pid(where)
    if pid is not None:
        raise RotnetError(f"the queue of {where} is worked on already, by process {pid}")
    if detach:
        tell(f"Process {start_worker(where).pid} works on the queue of {where}.")
        return
    drain(where)


def _require_alive(folder: "RunFolder") -> None:
    if not folder.alive():
        raise RotnetError(f"{folder.name} is not running here: it is {folder.state()}")


def _let_exit(folder: "RunFolder") -> None:
    """Wait for the process of a run that has said its last word."""
    deadline = time.monotonic() + EXIT_SECONDS
    while folder.state() in ("stopped", "failed", "finished") and folder.alive() and time.monotonic() < deadline:
        time.sleep(0.05)


def _require_ended(folder: "RunFolder", stop_command: str) -> None:
    state = folder.state()
    if folder.alive() or state in ("starting", "running", "stopping"):
        raise RotnetError(f"{folder.name} is {state}, so it stays. Stop it first: {stop_command}")


def _loss(folder: "RunFolder") -> str:
    """In words, the steps that are in no checkpoint yet."""
    events = folder.events()
    done = max((e["step"] for e in events if e["kind"] in ("step", "epoch")), default=0)
    saved = max((e["step"] for e in events if e["kind"] == "checkpoint"), default=0)
    if not saved:
        return f"all its {done} steps: it has no checkpoint yet" if done else "what it has done, no step yet"
    return f"{max(0, done - saved)} steps, those since its last checkpoint at step {saved}"


def _confirm(yes: bool, question: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise RecipeError("without a terminal to ask on, this needs --yes")
    typer.confirm(printable(question), abort=True)


COMMANDS: tuple[Callable[..., None], ...] = (resume, stop, kill, delete)
