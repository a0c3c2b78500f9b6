"""The runs of a study as jobs of a cluster, submitted as soon as what they start from is there."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rotnet_keras.config.submit_options import SubmitOptions, checked_submit_options
from rotnet_keras.errors import RotnetError, RunError
from rotnet_keras.runs.cluster.jobs import cancel_pending
from rotnet_keras.runs.cluster.submission import submit_run
from rotnet_keras.runs.control import request_stop
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.next_steps import command_line
from rotnet_keras.runs.queue import is_signed
from rotnet_keras.runs.status import summary
from rotnet_keras.runs.study_runs import PlannedRun

if TYPE_CHECKING:
    from rotnet_keras.training.session import Session

# How often the states of the jobs are read.
POLL_SECONDS = 5.0
# The states in which a run has a job or a process that does something with it.
BUSY_STATES = ("pending", "starting", "running", "stopping")

Key = tuple[str, int]
# Returns the folder of a planned run, given those of the others, and whether it is finished.
Prepare = Callable[[PlannedRun, dict[Key, RunFolder]], tuple[RunFolder, bool]]
# Called with the runs that are finished, their number, and that of all.
Done = Callable[[PlannedRun, RunFolder, int], None]


def submission_of(run: RunFolder) -> tuple[str, SubmitOptions] | None:
    """Return the cluster and the options that the runs of a study are submitted with; None if they are no jobs.

    Raises:
        RunError: somebody else has written them.
        RecipeError: they are invalid.
    """
    facts = run.facts()
    submission = facts.get("submission")
    if not submission:
        return None
    if not is_signed(submission, facts.get("submission_by")):
        raise RunError(
            f"{run.name} says that its runs are jobs, and you have not said so; start the study anew with --submit"
        )
    return str(submission.get("cluster")), checked_submit_options(submission.get("options") or {})


class StudyJobs:
    """Submits the runs of a study and follows them to their ends.

    Args:
        session: of the study.
        planned: all runs, each after the one whose backbone it starts from.
        cluster: that they are submitted to.
        options: of all jobs.
        prepare: finds or makes the folder of a run.
        done: called for each run that is finished, as soon as it is.
    """

    def __init__(
        self,
        session: "Session",
        planned: list[PlannedRun],
        cluster: str,
        options: SubmitOptions,
        prepare: Prepare,
        done: Done,
    ) -> None:
        self.session, self.planned, self.cluster, self.options = session, planned, cluster, options
        self.prepare, self.done = prepare, done
        self.finished: dict[Key, RunFolder] = {}
        self.followed: dict[Key, RunFolder] = {}
        self.failed: dict[Key, str] = {}

    def run(self) -> dict[Key, RunFolder]:
        """Run everything that can be run, and return the folders of the runs that are finished.

        Raises:
            RunStopped: a stop was requested; it was passed on to all jobs.
        """
        while True:
            self._submit_what_is_ready()
            self._follow()
            if len(self.finished) + len(self.failed) == len(self.planned):
                return self.finished
            self.session.console.progress("runs", len(self.finished), len(self.planned), self._states())
            if self.session.stop.requested():
                self._stop_all()
                self.session.stop.check()
            time.sleep(POLL_SECONDS if self.cluster == "slurm" else POLL_SECONDS / 10)

    def require_all(self) -> None:
        """Make sure that all runs are finished.

        Raises:
            RotnetError: some are not; all of them are named, with what each ended with.
        """
        if self.failed:
            lines = "\n".join(f"  {name}-s{seed}: {why}" for (name, seed), why in self.failed.items())
            raise RotnetError(
                f"{len(self.finished)} of {len(self.planned)} runs are finished; the others are not:\n{lines}\n"
                f"When the causes are removed, resume the study with: {command_line('resume', self.session.folder)}"
            )

    def _submit_what_is_ready(self) -> None:
        for run in self.planned:
            key = run.name, run.seed
            if key in self.finished or key in self.followed or key in self.failed:
                continue
            source = (run.source.name, run.source.seed) if run.source else None
            if source in self.failed:
                self.failed[key] = f"not started, because {source[0]}-s{source[1]} is not finished"
            if key in self.failed or (source and source not in self.finished):
                continue
            folder, reused = self.prepare(run, self.finished)
            if reused:
                self._finish(run, folder, ", already finished")
                continue
            self.followed[key] = folder
            if _is_worked_on(folder):
                self.session.say(f"{folder.name} is {folder.state()} already{_job_words(folder)}")
                continue
            number = submit_run(folder, self.cluster, self.options)  # type: ignore[arg-type]
            self.session.say(f"Submitted {folder.name} as job {number}")

    def _follow(self) -> None:
        for run in self.planned:
            key = run.name, run.seed
            folder = self.followed.get(key)
            if folder is None or (state := folder.state()) in BUSY_STATES:
                continue
            if state == "stalled":
                continue  # Its job may still live; `status` says what to do.
            del self.followed[key]
            if state == "finished":
                self._finish(run, folder, "")
                continue
            ends = [event.get("message") for event in folder.last_events() if event["kind"] == "end"]
            why = str(ends[-1]) if ends and ends[-1] else summary(folder)["message"] or f"see {folder.log}"
            self.failed[key] = f"{state}: {why}"
            self.session.say(f"{folder.name} is {state}")

    def _finish(self, run: PlannedRun, folder: RunFolder, how: str) -> None:
        self.finished[run.name, run.seed] = folder
        self.session.say(f"Run {len(self.finished)} of {len(self.planned)}: {folder.name}{how}")
        self.done(run, folder, len(self.finished))

    def _stop_all(self) -> None:
        """Cancel the jobs that are pending, and ask the others to stop after their present steps."""
        for folder in self.followed.values():
            try:
                if folder.state() == "pending":
                    cancel_pending(folder.path)
                else:
                    request_stop(folder)
            except (RotnetError, OSError) as error:
                self.session.say(f"{folder.name} may go on: {error}")

    def _states(self) -> str:
        states = [folder.state() for folder in self.followed.values()]
        return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def _is_worked_on(folder: RunFolder) -> bool:
    """Return whether a run has a job or a process; a folder that was just made has neither."""
    return folder.state() in BUSY_STATES and (folder.job() is not None or "pid" in folder.facts())


def _job_words(folder: RunFolder) -> str:
    job = folder.job()
    return f": {job}" if job else ""
