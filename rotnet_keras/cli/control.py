"""The commands that act on runs: resume, stop, kill, delete."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rotnet_keras.cli.options import (
    command,
    counted_names,
    detach_option,
    echo,
    find_run,
    run_argument,
    runs_dir_option,
    yes_option,
)
from rotnet_keras.cli.submission import require_submission, submit_and_tell, submit_option, submit_options_option
from rotnet_keras.errors import RecipeError, RotnetError
from rotnet_keras.text import duration, printable

if TYPE_CHECKING:
    from rotnet_keras.config.submit_options import Cluster
    from rotnet_keras.runs.folder import RunFolder

# A killed process is given this long to disappear.
KILL_SECONDS = 10
# From a run's last event to the end of its process.
EXIT_SECONDS = 15


@command()
@run_argument
@runs_dir_option
@detach_option
@submit_option
@submit_options_option
def resume(run: str, runs_dir: Path, detach: bool, submit: "Cluster | None", submit_options: str | None) -> None:
    """Continue a run from its last checkpoint.

    The result is the same as that of a run that was never stopped.
    """
    from rotnet_keras.config.loading import load_recipe
    from rotnet_keras.host import check_backend
    from rotnet_keras.planning.costs import announce_study_cost
    from rotnet_keras.runs.launch import start_detached
    from rotnet_keras.runs.next_steps import command_line
    from rotnet_keras.tasks.run import follow, run_and_exit
    from rotnet_keras.training.cluster import training_process

    check_backend()
    options = require_submission(submit, submit_options)
    folder = find_run(run, runs_dir)
    folder.require_known_format()
    recipe = load_recipe(folder.recipe)
    if submit and recipe.kind == "study":
        raise RecipeError("--submit: a study's jobs are as they were first submitted; resume it without this option")
    if not training_process(recipe).chief:
        raise click.exceptions.Exit(follow(recipe))
    _wait_for_exit(folder)
    state = folder.state()
    if folder.alive():
        raise RotnetError(f"{folder.name} is {state} already, as process {folder.facts()['pid']}")
    if state == "finished":
        raise RotnetError(f"{folder.name} is finished; its results are in {folder.path / 'report.html'}")
    job = folder.job()
    if job and job.state == "pending":
        raise RotnetError(f"{folder.name} is pending: {job}. Cancel it first: {command_line('stop', folder)}")
    if submit:
        submit_and_tell(folder, submit, options)
        return
    if detach:
        echo(f"Resumed {folder.name} as process {start_detached(folder).pid}.")
        return
    run_and_exit(folder, announce_study_cost)


@command()
@run_argument
@runs_dir_option
def stop(run: str, runs_dir: Path) -> None:
    """Stop a run after its current step, with a checkpoint.

    This also works from another machine that shares the folder.
    """
    from rotnet_keras.runs.control import request_stop
    from rotnet_keras.runs.next_steps import command_line
    from rotnet_keras.runs.processes import Process

    folder = find_run(run, runs_dir)
    if folder.queued_since() is not None:
        raise RotnetError(f"{folder.name} has not started; remove it with: {command_line('queue remove', folder)}")
    if folder.state() == "pending":
        from rotnet_keras.runs.cluster.jobs import cancel_pending

        cancel_pending(folder.path)
        echo(f"Cancelled the job of {folder.name}. Start it again with: {command_line('resume', folder)}")
        return
    if folder.process() is Process.ELSEWHERE:
        _ask_elsewhere(folder)
        return
    _require_alive(folder)
    request_stop(folder)
    echo(f"{folder.name} stops after its current step. Continue later with: {command_line('resume', folder)}")


@command()
@run_argument
@runs_dir_option
@yes_option
def kill(run: str, runs_dir: Path, yes: bool) -> None:
    """Kill a run at once, without a checkpoint.

    The steps since its last checkpoint are lost.
    """
    import psutil

    from rotnet_keras.runs.control import find_process
    from rotnet_keras.runs.next_steps import command_line

    folder = find_run(run, runs_dir)
    job = folder.job()
    if job and job.state == "running" and not folder.alive():
        from rotnet_keras.runs.cluster.jobs import kill_job

        echo(f"Killing {folder.name}, {job}, loses {_lost_steps(folder)}.")
        echo(f"To lose nothing: {command_line('stop', folder)}")
        _confirm(yes, f"Kill {folder.name}?")
        kill_job(folder.path)
        echo(f"Killed {folder.name}. Continue from its last checkpoint with: {command_line('resume', folder)}")
        return
    _require_alive(folder)
    find_process(folder)
    echo(f"Killing {folder.name} loses {_lost_steps(folder)}. To lose nothing: {command_line('stop', folder)}")
    _confirm(yes, f"Kill {folder.name}?")
    # It may have ended, and its number gone to another process, while the question was open.
    _require_alive(folder)
    process = find_process(folder)
    try:
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
            raise RotnetError(f"{folder.name} still runs after {KILL_SECONDS} seconds, as process {process.pid}")
        time.sleep(0.05)
    echo(f"Killed {folder.name}. Continue from its last checkpoint with: {command_line('resume', folder)}")


@command()
@run_argument
@runs_dir_option
@yes_option
def delete(run: str, runs_dir: Path, yes: bool) -> None:
    """Delete a run folder with everything in it."""
    from rotnet_keras.runs.control import find_own_run, folder_size, remove_run
    from rotnet_keras.runs.next_steps import command_line
    from rotnet_keras.runs.status import explanation

    folder = find_own_run(run, runs_dir)
    _wait_for_exit(folder)
    _require_ended(folder, command_line("stop", folder))
    size, closed = folder_size(folder.path)
    backbone = "with its exported backbone" if folder.backbone.is_file() else "which holds no exported backbone"
    unread = f", and of {counted_names(list(map(str, closed)), 'folders')} that may not be read" if closed else ""
    echo(f"This deletes {folder.path} ({size / 1e6:.1f} MB{unread}), {backbone}.")
    if folder.state() == "stalled":
        echo(explanation(folder, "stalled", folder.last_events()))
    _confirm(yes, f"Delete {folder.name}?")
    _require_ended(folder, command_line("stop", folder))
    remove_run(folder)
    echo(f"Deleted {folder.name}.")


def _ask_elsewhere(folder: "RunFolder") -> None:
    """Ask a process that cannot be seen from here to stop; it looks for the file after each step."""
    from rotnet_keras.runs.control import request_stop
    from rotnet_keras.runs.next_steps import command_line
    from rotnet_keras.runs.values import OUTCOMES

    state = folder.state()
    if state in OUTCOMES:
        raise RotnetError(f"{folder.name} has nothing to stop: it is {state}")
    request_stop(folder)
    echo(
        f"Asked {folder.name} to stop. Its process was started on {folder.host()} and cannot be seen from here; if it "
        f"still runs, it stops after its current step. See what comes of it: {command_line('status', folder)}"
    )


def _require_alive(folder: "RunFolder") -> None:
    from rotnet_keras.runs.next_steps import command_line
    from rotnet_keras.runs.processes import Process
    from rotnet_keras.runs.values import OUTCOMES

    state = folder.state()
    if folder.process() is Process.ELSEWHERE and state not in OUTCOMES:
        raise RotnetError(
            f"the process of {folder.name} was started on {folder.host()}, and can be killed only there. To ask it to "
            f"stop from here: {command_line('stop', folder)}"
        )
    if not folder.alive():
        raise RotnetError(f"{folder.name} is not running on this machine: it is {folder.state()}")


def _wait_for_exit(folder: "RunFolder") -> None:
    """Wait for the process of a run that has written its end event."""
    from rotnet_keras.runs.values import OUTCOMES

    deadline = time.monotonic() + EXIT_SECONDS
    while folder.state() in OUTCOMES and folder.alive() and time.monotonic() < deadline:
        time.sleep(0.05)


def _require_ended(folder: "RunFolder", stop_command: str) -> None:
    from rotnet_keras.runs.folder import ELSEWHERE_SECONDS
    from rotnet_keras.runs.processes import Process

    state = folder.state()
    if folder.alive() or state in ("pending", "starting", "running", "stopping"):
        if folder.process() is Process.ELSEWHERE and state != "pending":
            raise RotnetError(
                f"{folder.name} is {state} on {folder.host()} and wrote {duration(folder.silence())} ago, so nothing "
                f"was deleted. Stop it first: {stop_command}. If its process is gone, it can be deleted once it has "
                f"written nothing for {duration(ELSEWHERE_SECONDS)}"
            )
        raise RotnetError(f"{folder.name} is {state}, so nothing was deleted. Stop it first: {stop_command}")


def _lost_steps(folder: "RunFolder") -> str:
    """How many steps are in no checkpoint yet, in words."""
    events = folder.events()
    done = max((e.get("step", 0) for e in events if e["kind"] in ("step", "epoch")), default=0)
    saved = max((e.get("step", 0) for e in events if e["kind"] == "checkpoint"), default=0)
    if not saved:
        return f"all its {done} steps: it has no checkpoint yet" if done else "no step: it has done none yet"
    return f"{max(0, done - saved)} steps, those since its last checkpoint at step {saved}"


def _confirm(yes: bool, question: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise RecipeError("there is no terminal to ask on; to go ahead without a question, add --yes")
    click.confirm(printable(question), abort=True)
