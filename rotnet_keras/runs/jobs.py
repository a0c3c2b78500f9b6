"""Runs that are jobs of a cluster: which job a run has, whether it is pending or running and where, and cancelling it.

Whoever submits a run writes `job.json` into its folder, which says that it is a job; the run's own process never writes
that file. Which job it is, Slurm says: the comment of a job is the path of its run. A folder from elsewhere can thus
name no job of this user, whatever its `job.json` says.
"""

import getpass
import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rotnet_keras.errors import RunError
from rotnet_keras.files import read_json, write_atomically

JOB_FILE = "job.json"
MAX_JOB_BYTES = 1 << 16
# Slurm is asked no more often, and given so long for its answer. After a failure it is left alone for a while.
ASK_SECONDS, ANSWER_SECONDS, RETRY_SECONDS = 4.0, 10.0, 60.0
# id, state, machines, reason, and the comment, which may hold anything and so comes last.
SQUEUE_FORMAT = "%i|%T|%N|%r|%k"
# Slurm's states of a job that has not begun, or begins again after it was preempted.
PENDING_STATES = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "CONFIGURING")
ENDING_STATES = ("COMPLETING", "CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "PREEMPTED", "NODE_FAIL", "DEADLINE")


@dataclass(frozen=True)
class Job:
    """The job of a run.

    Attributes:
        cluster: "slurm" or "local".
        state: "pending", "running", "ending", "gone", or "unknown" where Slurm cannot be asked.
        id: Slurm's number of the job; the one that was submitted where Slurm cannot be asked.
        where: the machines that it runs on; empty if it does not.
        reason: why it is pending, in Slurm's word.
        cancelled: whether it was cancelled before the run began.
    """

    cluster: str
    state: str
    id: str
    where: str = ""
    reason: str = ""
    cancelled: bool = False

    def __str__(self) -> str:
        name = f"{'Slurm' if self.cluster == 'slurm' else 'local'} job {self.id}"
        if self.state == "running":
            return f"{name} on {self.where}"
        if self.state == "pending":
            return f"{name}, pending ({self.reason})"
        return f"{name}, {'cancelled' if self.cancelled and self.state == 'gone' else self.state}"


def job_of(run_path: Path) -> Job | None:
    """Return the job of a run; None if it was not submitted to a cluster."""
    if not os.path.lexists(run_path / JOB_FILE):
        return None
    try:
        noted = read_json(run_path / JOB_FILE, MAX_JOB_BYTES, run_path)
    except (OSError, ValueError):
        return None
    if not isinstance(noted, dict):
        return None
    cluster, number = str(noted.get("cluster"))[:20], str(noted.get("id"))[:40]
    cancelled = bool(noted.get("cancelled"))
    if cluster != "slurm":
        return Job(cluster, "unknown", number, cancelled=cancelled)
    listed = _queue.jobs()
    if listed is None:
        return Job(cluster, "unknown", number, cancelled=cancelled)
    found = listed.get(str(run_path.resolve()))
    if found is None:
        return Job(cluster, "gone", number, cancelled=cancelled)
    number, state, where, reason = found
    kind = "pending" if state in PENDING_STATES else "ending" if state in ENDING_STATES else "running"
    return Job(cluster, kind, number, where, reason, cancelled)


def note_job(run_path: Path, cluster: str, number: str) -> None:
    """Write down that a run is a job."""
    _write(run_path, {"cluster": cluster, "id": number, "submitted": round(time.time(), 3)})


def cancel_pending(run_path: Path) -> None:
    """Cancel the job of a run that is pending.

    Raises:
        RunError: Slurm did not cancel it.
    """
    job = _require_listed(run_path, ("pending",))
    # Slurm cancels it only if it has not begun meanwhile.
    _call("scancel", "--state=PENDING", job.id)
    _write(run_path, {"cluster": job.cluster, "id": job.id, "cancelled": round(time.time(), 3)})
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        _queue.forget()
        now = job_of(run_path)
        if now is None or now.state in ("gone", "ending"):
            return
        if now.state == "running":
            note_job(run_path, job.cluster, job.id)
            raise RunError(f"{run_path.name} has just begun on {now.where}; stop it again")
        time.sleep(0.2)
    raise RunError(f"Slurm has not cancelled job {job.id} of {run_path.name}")


def kill_job(run_path: Path) -> None:
    """Kill the processes of the job of a run at once.

    Raises:
        RunError: it has no job that runs.
    """
    job = _require_listed(run_path, ("running",))
    _call("scancel", "--signal=KILL", "--full", job.id)
    _queue.forget()


def job_line(run_path: Path) -> str | None:
    """Return what is known about the job of a run, in words; None if it has none."""
    job = job_of(run_path)
    return None if job is None else str(job)


def _require_listed(run_path: Path, states: tuple[str, ...]) -> Job:
    _queue.forget()
    job = job_of(run_path)
    if job is None or job.state not in states:
        raise RunError(f"{run_path.name} has no job that is {' or '.join(states)}: {job or 'it was not submitted'}")
    return job


def _write(run_path: Path, noted: dict[str, Any]) -> None:
    write_atomically(run_path / JOB_FILE, json.dumps(noted).encode(), run_path)


def _call(*words: str) -> str:
    try:
        found = subprocess.run(words, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise RunError(f"{words[0]} cannot be run: {error}") from None
    if found.returncode:
        raise RunError(f"{words[0]} failed: {(found.stderr or found.stdout).strip()[:500]}")
    return found.stdout


class _Queue:
    """The jobs of this user, as Slurm last listed them."""

    def __init__(self) -> None:
        self._listed: dict[str, tuple[str, str, str, str]] | None = None
        self._ask_at = -1.0

    def jobs(self) -> dict[str, tuple[str, str, str, str]] | None:
        """Return (id, state, machines, reason) by comment; None if Slurm cannot be asked."""
        if time.monotonic() >= self._ask_at:
            self._listed = self._ask()
            self._ask_at = time.monotonic() + (RETRY_SECONDS if self._listed is None else ASK_SECONDS)
        return self._listed

    def forget(self) -> None:
        """Ask again next time."""
        self._ask_at = -1.0

    def _ask(self) -> dict[str, tuple[str, str, str, str]] | None:
        if not shutil.which("squeue"):
            return None
        try:
            text = _call("squeue", "--noheader", f"--user={getpass.getuser()}", f"--format={SQUEUE_FORMAT}")
        except (RunError, OSError, KeyError):
            return None
        found = {}
        for line in text.splitlines():
            number, state, where, reason, comment = (*line.split("|", 4), "", "", "", "")[:5]
            # Of a job that ends and one that was submitted again, the latter counts.
            if comment not in found or state not in ENDING_STATES:
                found[comment] = (number.strip(), state, where, reason)
        return found


_queue = _Queue()
