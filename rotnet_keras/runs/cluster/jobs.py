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
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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


class Listed(NamedTuple):
    """A job in Slurm's list: its number, Slurm's word for its state, its machines, and why it is pending."""

    id: str
    state: str
    where: str
    reason: str


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
        if self.cluster != "slurm":
            return name
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
    state = "pending" if found.state in PENDING_STATES else "ending" if found.state in ENDING_STATES else "running"
    return Job(cluster, state, found.id, found.where, found.reason, cancelled)


def ask_in_background() -> None:
    """Let no later question wait for Slurm: it is asked in a thread. A program that draws on a screen needs this."""
    _queue.in_background = True


def note_job(run_path: Path, cluster: str, number: str) -> None:
    """Write down that a run is a job."""
    _queue.forget()
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
    """The jobs of this user, as Slurm last listed them.

    Attributes:
        in_background: ask in a thread, and answer what is known so far.
    """

    def __init__(self) -> None:
        self.in_background = False
        self._listed: dict[str, Listed] | None = None
        self._ask_at = -1.0
        self._asking = threading.Lock()

    def jobs(self) -> dict[str, Listed] | None:
        """Return the jobs by their comments; None if Slurm cannot be asked, or has not answered yet."""
        if time.monotonic() >= self._ask_at:
            if not self.in_background:
                self._refresh()
            elif self._asking.acquire(blocking=False):
                threading.Thread(target=self._refresh_and_release, daemon=True).start()
        return self._listed

    def forget(self) -> None:
        """Ask again next time."""
        self._ask_at = -1.0

    def _refresh_and_release(self) -> None:
        try:
            self._refresh()
        finally:
            self._asking.release()

    def _refresh(self) -> None:
        self._listed = _ask_slurm()
        self._ask_at = time.monotonic() + (RETRY_SECONDS if self._listed is None else ASK_SECONDS)


def _ask_slurm() -> dict[str, Listed] | None:
    """Return the jobs of this user by their comments; None if Slurm cannot be asked."""
    if not shutil.which("squeue"):
        return None
    try:
        text = _call("squeue", "--noheader", f"--user={getpass.getuser()}", f"--format={SQUEUE_FORMAT}")
    except (RunError, OSError, KeyError):
        return None
    found: dict[str, Listed] = {}
    for line in text.splitlines():
        number, state, where, reason, comment = (*line.split("|", 4), "", "", "", "")[:5]
        # Of a job that ends and one that was submitted again, the latter counts.
        if comment not in found or state not in ENDING_STATES:
            found[comment] = Listed(number.strip(), state, where, reason)
    return found


_queue = _Queue()
