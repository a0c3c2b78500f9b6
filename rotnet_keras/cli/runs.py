"""The commands about runs: list, follow, compare, report, resume, stop, kill, delete."""

import codecs
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rotnet_keras.cli.options import (
    PATH,
    argument,
    command,
    counted_names,
    detach_option,
    echo,
    echo_json,
    echo_table,
    find_run,
    flag,
    json_option,
    option,
    require_submission,
    run_argument,
    runs_dir_option,
    submit_and_tell,
    submit_option,
    submit_options_option,
    warn,
    yes_option,
)
from rotnet_keras.errors import RecipeError, RotnetError
from rotnet_keras.text import duration, printable

if TYPE_CHECKING:
    from rotnet_keras.config.submit_options import Cluster
    from rotnet_keras.runs.folder import RunFolder

# A killed process is given this long to disappear.
KILL_SECONDS = 10
# The states of a run that has written how it ended.
ENDED_STATES = ("stopped", "failed", "finished")
# From a run's last event to the end of its process.
EXIT_SECONDS = 15
# Between two looks at a log that is followed.
FOLLOW_SECONDS = 0.5
# A log is printed in blocks of so many bytes.
LOG_BLOCK = 1 << 20


@command(examples=("rotnet-keras runs 'rot>90 -state:failed'",))
@argument(
    "query",
    "[QUERY]",
    "Which runs, as in the filter of the terminal UI: 'cifar state:running rot>90 -tag:old'.",
    default="",
)
@runs_dir_option
@json_option
def runs(query: str, runs_dir: Path, as_json: bool) -> None:
    """List the runs with their state and accuracy."""
    from rotnet_keras.runs.folder import list_runs
    from rotnet_keras.runs.queries import parse_query
    from rotnet_keras.runs.status import COLUMNS, summary, summary_row

    wanted = parse_query(query)
    closed: list[Path] = []
    every = [summary(folder) for folder in list_runs(runs_dir, closed)]
    found = [each for each in every if wanted.matches(each)]
    if closed:
        warn(f"{counted_names([path.name for path in closed], 'folders')} in {runs_dir} may not be read by this user")
    if as_json:
        echo_json(found)
    elif not every:
        echo(f"No runs in {runs_dir}. Start one: rotnet-keras run quickstart")
    elif not found:
        echo(f"None of the {len(every)} runs in {runs_dir} matches {query!r}.")
    else:
        columns, rows = list(COLUMNS), [summary_row(each) for each in found]
        if any(each["job"] for each in found):
            columns, rows = (
                [*columns, "job"],
                [[*row, each["job"] or ""] for row, each in zip(rows, found, strict=True)],
            )
        echo_table(columns, rows)


@command(examples=("rotnet-keras tag my_run paper baseline", "rotnet-keras tag my_run old --remove"))
@run_argument
@argument("tags", "[TAG...]", "Tags to add; none prints those that the run has.", nargs=-1)
@flag("--remove", description="Remove these tags instead of adding them.")
@runs_dir_option
def tag(run: str, tags: tuple[str, ...], remove: bool, runs_dir: Path) -> None:
    """Add tags to a run, remove or print them.

    Tags are found by queries (`tag:paper`), and shown in lists, comparisons and reports. A run's recipe stays as it is.
    """
    from rotnet_keras.runs.tags import change_tags, read_labels

    folder = find_run(run, runs_dir)
    if remove and not tags:
        raise RecipeError("--remove: expected the tags to remove")
    known = read_labels(folder).tags
    if remove and (unknown := [word for word in tags if word not in known]):
        raise RecipeError(f"{folder.name} has no tag {', '.join(unknown)}; it has: {', '.join(known) or 'none'}")
    if tags:
        known = change_tags(folder, () if remove else tags, tags if remove else ())
    echo(f"{folder.name}: {' '.join(known) or 'no tags'}")


@command(examples=("rotnet-keras note my_run 'the first run with the new crops'",))
@run_argument
@argument("text", "[TEXT]", "The new note; an empty text removes it. Without one the note is printed.", required=False)
@runs_dir_option
def note(run: str, text: str | None, runs_dir: Path) -> None:
    """Write a note on a run, or print it."""
    from rotnet_keras.runs.tags import read_labels, write_note

    folder = find_run(run, runs_dir)
    if text is not None:
        write_note(folder, " ".join(text.split()))
    echo(f"{folder.name}: {read_labels(folder).note or 'no note'}")


@command()
@run_argument
@runs_dir_option
@json_option
def status(run: str, runs_dir: Path, as_json: bool) -> None:
    """Show the state, progress and results of a run.

    Of a pretraining, it also says whether the model learns and whether rotation is a sensible task for the images.
    """
    from rotnet_keras.runs.status import summary, summary_lines, verdict_text

    folder = find_run(run, runs_dir)
    found = {**summary(folder), "verdict": verdict_text(folder)}
    if as_json:
        echo_json(found)
    else:
        echo(summary_lines(found))


@command(examples=("rotnet-keras why my_run",))
@run_argument
@runs_dir_option
@json_option
def why(run: str, runs_dir: Path, as_json: bool) -> None:
    """Say why a run failed, and which command mends it.

    The answer comes from rules over the run's events, log and recipe, on this machine alone.
    """
    from dataclasses import asdict

    from rotnet_keras.runs.diagnosis import as_lines, diagnose

    folder = find_run(run, runs_dir)
    found = diagnose(folder)
    if as_json:
        echo_json(asdict(found))
    else:
        echo(as_lines(folder, found))


@command()
@run_argument
@runs_dir_option
@flag("--follow", "-f", description="Keep printing what is added, until the run ends.")
def logs(run: str, runs_dir: Path, follow: bool) -> None:
    """Print the log of a run."""
    from rotnet_keras.files import open_file
    from rotnet_keras.runs.processes import Process

    folder = find_run(run, runs_dir)
    offset, decoder = 0, codecs.getincrementaldecoder("utf-8")("replace")
    while True:
        ended = folder.process() is Process.GONE or folder.state() in ENDED_STATES
        try:
            with open_file(folder.log, folder.path) as file:
                file.seek(offset)
                text = file.read(LOG_BLOCK)
        except FileNotFoundError:
            text = b""
        offset += len(text)
        echo(decoder.decode(text), newline=False)
        if text:
            continue
        if ended or not follow:
            return
        time.sleep(FOLLOW_SECONDS)


@command(examples=("rotnet-keras compare first second",))
@argument("names", "RUN RUN...", "Names of runs, or paths of their folders.", nargs=-1, required=True)
@runs_dir_option
@json_option
def compare(names: tuple[str, ...], runs_dir: Path, as_json: bool) -> None:
    """Compare the results and recipes of runs.

    Only recipe keys whose values differ are listed.
    """
    from rotnet_keras.runs.status import comparison_table

    folders = [find_run(name, runs_dir) for name in names]
    columns, rows = comparison_table(folders)
    if as_json:
        echo_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        echo_table(columns, rows)


@command()
@run_argument
@runs_dir_option
def report(run: str, runs_dir: Path) -> None:
    """Write report.html and report.md of a run.

    A run writes them itself at its end; this shows how far an unfinished one has come.
    """
    from rotnet_keras.reports.report import write_report

    folder = find_run(run, runs_dir)
    write_report(folder)
    echo(folder.path / "report.html")


@command(examples=("rotnet-keras collect table3 figure2 --output results",))
@argument("studies", "STUDY...", "Finished studies: names of runs, or paths of their folders.", nargs=-1, required=True)
@option("--output", metavar="FOLDER", type=PATH, default=Path("results"), help="Folder to write into.")
@option("--name", metavar="NAME", default="studies", help="File name of the page, without its ending.")
@option("--title", metavar="TITLE", default="The paper's experiments, repeated", help="Heading of the page.")
@runs_dir_option
def collect(studies: tuple[str, ...], output: Path, name: str, title: str, runs_dir: Path) -> None:
    """Collect tables and figures of finished studies."""
    from rotnet_keras.reports.study_pages import collect as write
    from rotnet_keras.runs.values import PLAIN_NAME

    if not PLAIN_NAME.fullmatch(name):
        raise RecipeError(f"--name: expected a plain file name without its ending, got {name!r}")
    folders = [find_run(study, runs_dir) for study in studies]
    page = write(folders, output, name, title)
    echo(page)


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
    from rotnet_keras.runs.folder import command_line
    from rotnet_keras.runs.launch import start_detached
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
    from rotnet_keras.runs.folder import command_line
    from rotnet_keras.runs.processes import Process

    folder = find_run(run, runs_dir)
    if folder.queued_since() is not None:
        raise RotnetError(f"{folder.name} has not started; remove it with: {command_line('queue remove', folder)}")
    if folder.state() == "pending":
        from rotnet_keras.runs.jobs import cancel_pending

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
    from rotnet_keras.runs.folder import command_line

    folder = find_run(run, runs_dir)
    job = folder.job()
    if job and job.state == "running" and not folder.alive():
        from rotnet_keras.runs.jobs import kill_job

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
    from rotnet_keras.files import folder_size
    from rotnet_keras.runs.control import find_own_run, remove_run
    from rotnet_keras.runs.folder import command_line
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
    from rotnet_keras.runs.folder import command_line

    state = folder.state()
    if state in ENDED_STATES:
        raise RotnetError(f"{folder.name} has nothing to stop: it is {state}")
    request_stop(folder)
    echo(
        f"Asked {folder.name} to stop. Its process was started on {folder.host()} and cannot be seen from here; if it "
        f"still runs, it stops after its current step. See what comes of it: {command_line('status', folder)}"
    )


def _require_alive(folder: "RunFolder") -> None:
    from rotnet_keras.runs.folder import command_line
    from rotnet_keras.runs.processes import Process

    state = folder.state()
    if folder.process() is Process.ELSEWHERE and state not in ENDED_STATES:
        raise RotnetError(
            f"the process of {folder.name} was started on {folder.host()}, and can be killed only there. To ask it to "
            f"stop from here: {command_line('stop', folder)}"
        )
    if not folder.alive():
        raise RotnetError(f"{folder.name} is not running on this machine: it is {folder.state()}")


def _wait_for_exit(folder: "RunFolder") -> None:
    """Wait for the process of a run that has written its end event."""
    deadline = time.monotonic() + EXIT_SECONDS
    while folder.state() in ENDED_STATES and folder.alive() and time.monotonic() < deadline:
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
