"""The kind `study`: make its runs, here or as jobs of a cluster, and fill tables and figures with the results."""

import math
import time
from functools import partial
from itertools import accumulate
from pathlib import Path

from rotnet_keras.config.study import StudyRecipe
from rotnet_keras.errors import RotnetError
from rotnet_keras.reports.report import working_seconds, write_report
from rotnet_keras.reports.study_results import run_measures
from rotnet_keras.reports.tables import result_tables
from rotnet_keras.runs.control import request_stop
from rotnet_keras.runs.folder import RunFolder, list_runs
from rotnet_keras.runs.launch import create_run_from_recipe, load_for_run, start_detached
from rotnet_keras.runs.next_steps import command_line
from rotnet_keras.runs.status import summary
from rotnet_keras.runs.study_runs import PlannedRun, find_matching_run, planned_runs
from rotnet_keras.tasks.study.jobs import StudyJobs, submission_of
from rotnet_keras.text import percent
from rotnet_keras.training.session import Session

# How often the progress of a run is read.
POLL_SECONDS = 1.0


def run_study(session: Session) -> None:
    """Run a recipe of the kind `study`."""
    recipe = session.recipe
    assert isinstance(recipe, StudyRecipe)
    planned = planned_runs(recipe)
    session.record(steps=len(planned), scale=recipe.scale)
    session.say(f"{len(planned)} runs; scale: {recipe.scales[recipe.scale].note}")
    submission = submission_of(session.folder)
    jobs = None
    if submission:

        def prepare(run: PlannedRun, finished: dict[tuple[str, int], RunFolder]) -> tuple[RunFolder, bool]:
            return _find_or_prepare(run, finished, session.folder.path.parent)

        jobs = StudyJobs(session, planned, *submission, prepare, partial(_record, session))
        folders = jobs.run()
        if jobs.failed:
            write_report(session.folder, "failed")
            jobs.require_all()
    else:
        folders = _run_one_by_one(session, planned)
    if recipe.picture:
        from rotnet_keras.tasks.study.figures import draw_figures

        seed = recipe.scales[recipe.scale].seeds[0]
        first_seed = {name: folder for (name, its_seed), folder in folders.items() if its_seed == seed}
        draw_figures(session, recipe.picture, first_seed)
    write_report(session.folder, "finished")
    for title, columns, rows in result_tables(session.folder):
        session.console.table(title, columns, rows)
    session.say(f"Report:   {session.folder.path / 'report.html'}")


def _run_one_by_one(session: Session, planned: list[PlannedRun]) -> dict[tuple[str, int], RunFolder]:
    folders: dict[tuple[str, int], RunFolder] = {}
    done = _shares_of_time(session, planned)
    for number, run in enumerate(planned, 1):
        folder, reused = _find_or_prepare(run, folders, session.folder.path.parent)
        session.say(f"Run {number} of {len(planned)}: {folder.name}{', already finished' if reused else ''}")
        if not reused:
            _run_to_end(session, folder, number, done)
        folders[run.name, run.seed] = folder
        _record(session, run, folder, number)
    return folders


def _record(session: Session, run: PlannedRun, folder: RunFolder, number: int) -> None:
    """Write the results of a finished run as an event of the study, as the `number`-th that is finished."""
    results = {"folder": folder.name, "seconds": working_seconds(folder.events()), "measures": run_measures(folder)}
    session.event("run", step=number, name=run.name, seed=run.seed, **results)


def _find_or_prepare(
    run: PlannedRun, folders: dict[tuple[str, int], RunFolder], runs_dir: Path
) -> tuple[RunFolder, bool]:
    """Return the folder of a planned run and whether it is finished; a new folder if no run has this recipe yet."""
    backbone = folders[run.source.name, run.source.seed].backbone if run.source else None
    recipe, facts = load_for_run(run.recipe, run.overrides(backbone), runs_dir)
    found = find_matching_run(recipe, list_runs(runs_dir))
    if found:
        return found, found.state() == "finished"
    return create_run_from_recipe(recipe, facts, run.folder_name, runs_dir), False


def _shares_of_time(session: Session, planned: list[PlannedRun]) -> list[float]:
    """How far the study is at the start of each run and at its end, as a number of runs of equal length.

    The trial before the first run timed those that were missing then. Without it all runs count the same.
    """
    timed = session.folder.facts().get("run_seconds", {})
    seconds = [timed.get(run.folder_name) for run in planned]
    if not all(isinstance(each, (int, float)) and 0 <= each < math.inf for each in seconds) or not sum(seconds):
        seconds = [1.0] * len(planned)
    return [0.0, *(until / sum(seconds) * len(planned) for until in accumulate(seconds))]


def _run_to_end(session: Session, folder: RunFolder, number: int, done: list[float]) -> None:
    """Run one run in a process of its own and wait for its end.

    The process goes on if this one is killed.

    Args:
        session: of the study.
        folder: of the run.
        number: of the run, from 1 on.
        done: see `_shares_of_time`.

    Raises:
        RunStopped: a stop was requested; it was passed on to the run.
        RotnetError: the run did not finish.
    """
    process = None if folder.alive() else start_detached(folder)
    while process.poll() is None if process else folder.alive():
        status = summary(folder)
        share = status["step"] / status["steps"] if status["steps"] else 0.0
        label = f"{folder.name}: {status['state']}, {percent(share, 0)} of its steps"
        position = done[number - 1] + share * (done[number] - done[number - 1])
        session.console.progress("runs", position, len(done) - 1, label, number - 1)
        if session.stop.requested():
            request_stop(folder)
        time.sleep(POLL_SECONDS)
    session.stop.check()
    state = folder.state()
    if state != "finished":
        ends = [event["message"] for event in folder.last_events() if event["kind"] == "end"]
        why = f": {ends[-1]}" if ends else f"; see {folder.log}"
        resume_command = command_line("resume", session.folder)
        raise RotnetError(
            f"{folder.name} is {state}{why}. When the cause is removed, resume the study with: {resume_command}"
        )
