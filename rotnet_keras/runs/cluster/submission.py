"""Submits runs to a cluster as jobs, through submitit: Slurm, or processes of this machine to try it out.

A job starts `rotnet-keras resume` on its run folder, and waits for its end. When the time limit is near, or the job is
to make room for another one, the run saves a checkpoint and stops, and the job is queued again: it goes on from there.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rotnet_keras.config.submit_options import Cluster, SubmitOptions
from rotnet_keras.errors import RotnetError, RunError
from rotnet_keras.files import make_private_folder, open_to_append
from rotnet_keras.host import python_command
from rotnet_keras.runs.cluster.jobs import job_of, note_job
from rotnet_keras.runs.control import request_stop
from rotnet_keras.runs.folder import RunFolder

# In the runs folder: what submitit writes, a folder for each run.
JOBS_FOLDER = ".jobs"
POLL_SECONDS = 0.2
# Signals that a run answers with a checkpoint.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A job is queued again after so many time limits, before it counts as one that makes no progress.
MAX_TIMEOUTS = 1000
COMMAND_SECONDS = 60


def require_submitit(cluster: Cluster) -> None:
    """Make sure that jobs can be submitted from here.

    Raises:
        RotnetError: submitit or Slurm's commands are missing.
    """
    import importlib.util
    import shutil

    if not importlib.util.find_spec("submitit"):
        raise RotnetError("--submit needs another package: pip install 'rotnet-keras[slurm]'")
    if cluster == "slurm" and not shutil.which("sbatch"):
        raise RotnetError("--submit slurm needs Slurm's commands, such as sbatch, which are not here: use a login node")


def submit_run(run: RunFolder, cluster: Cluster, options: SubmitOptions) -> str:
    """Submit a run that no process works on; return the number of its job.

    Raises:
        RotnetError: the run has a job already, or the cluster refuses the job.
    """
    require_submitit(cluster)
    run.require_own_files()
    job = job_of(run.path)
    if job and job.state in ("pending", "running"):
        raise RunError(f"{run.name} is a job already: {job}")
    import submitit

    path = run.path.resolve()
    make_private_folder(path.parent / JOBS_FOLDER)
    folder = path.parent / JOBS_FOLDER / run.name
    # The current folder stays out of the import path, in the job's own processes as well.
    python = shlex.join(python_command())
    arguments = {f"{cluster}_python": python, f"{cluster}_max_num_timeout": MAX_TIMEOUTS}
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster, **arguments)
        executor.update_parameters(**_parameters(run, path, cluster, options))
        with _inherited_by_jobs():
            number = str(executor.submit(RunJob(path)).job_id)
    except Exception as error:  # submitit raises what it likes, among it what sbatch said.
        raise RunError(f"{run.name} could not be submitted: {error}") from None
    note_job(path, cluster, number)
    return number


@contextmanager
def _inherited_by_jobs() -> Iterator[None]:
    """Let processes that are started in the block outlive this one and its terminal.

    They import nothing from the current folder, keep no terminal or pipe open, and go on when the terminal is closed.
    """
    safe_path = os.environ.get("PYTHONSAFEPATH")
    sys.stdout.flush()
    streams = {number: os.dup(number) for number in (0, 1, 2)}
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        for number in streams:
            os.dup2(nothing, number)
        yield
    finally:
        for number, stream in streams.items():
            os.dup2(stream, number)
            os.close(stream)
        os.close(nothing)
        signal.signal(signal.SIGHUP, hangup)
        if safe_path is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = safe_path


def _parameters(run: RunFolder, path: Path, cluster: Cluster, options: SubmitOptions) -> dict[str, Any]:
    """Return submitit's parameters of a job."""
    common = {
        "timeout_min": options.minutes(),
        "nodes": options.nodes,
        "tasks_per_node": options.tasks,
        "stderr_to_stdout": True,
        "gpus_per_node": options.gpus,
        "cpus_per_task": options.cpus,
        "mem_gb": options.memory,
    }
    if cluster == "local":
        local = {**common, "local_setup": options.setup or None}
        return {key: value for key, value in local.items() if value is not None}
    slurm = {
        "slurm_job_name": run.name,
        "slurm_comment": str(path),
        "slurm_signal_delay_s": options.grace,
        "slurm_setup": options.setup or None,
        "slurm_partition": options.partition,
        "slurm_account": options.account,
        "slurm_qos": options.qos,
        "slurm_constraint": options.constraint,
        "slurm_gres": options.gres,
        "slurm_exclude": options.exclude,
        # Tasks that train together need each other, and a job that is preempted begins again.
        "slurm_srun_args": ["--kill-on-bad-exit=0"],
        "slurm_additional_parameters": {
            "requeue": True,
            **({"reservation": options.reservation} if options.reservation else {}),
        },
    }
    return {key: value for key, value in {**common, **slurm}.items() if value is not None}


class RunJob:
    """What a job does: the run in a process of its own, and a checkpoint when the job has to end.

    submitit calls it in the job, and `checkpoint` when the cluster's signal has come.

    Args:
        path: the run folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> int:
        """Run to the end of the run, or of the job; return the exit code of the run.

        Raises:
            RunError: the run failed.
        """
        run = RunFolder(self.path)
        print(f"rotnet-keras: {self.path} on {os.uname().nodename}", flush=True)
        with open_to_append(run.log, self.path) as log:
            self.process = subprocess.Popen(
                python_command("-m", "rotnet_keras", "resume", str(self.path)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_ignore_job_signals,
            )
        code = self._wait()
        if code in (128 + number for number in STOP_SIGNALS) and not run.stop_file.exists():
            # Nobody has asked the run to stop: the cluster has, to make room for another job, or by scancel.
            self._requeue_if_preempted()
        if code not in (0, *(128 + number for number in STOP_SIGNALS)):
            raise RunError(f"{run.name} ended with exit code {code}; see {run.log}")
        return code

    def checkpoint(self) -> Any:
        """Let the run save a checkpoint and end, and return what submitit queues again; None if the run has ended."""
        import submitit

        request_stop(RunFolder(self.path))
        code = self._wait()
        if code not in (128 + number for number in STOP_SIGNALS):
            return None
        return submitit.helpers.DelayedSubmission(RunJob(self.path))

    def _wait(self) -> int:
        """Wait for the run's process, without reaping it: a signal handler may wait for it at the same time."""
        while True:
            found = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None:
                return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
            time.sleep(POLL_SECONDS)

    def _requeue_if_preempted(self) -> None:
        number = os.environ.get("SLURM_JOB_ID", "")
        if not number.isdigit():
            return
        if os.environ.get("SLURM_PROCID", "0") != "0":
            return  # The first process queues the job again.
        with suppress(OSError, subprocess.SubprocessError):
            said = subprocess.run(
                ["scontrol", "--oneliner", "show", "job", number],
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
                check=False,
            )
            if "JobState=RUNNING" not in said.stdout.split():
                return
            print("rotnet-keras: the job makes room for another one and is queued again", flush=True)
            done = subprocess.run(["scontrol", "requeue", number], timeout=COMMAND_SECONDS, check=False)
            if done.returncode == 0:
                # As submitit does: there is no result yet.
                sys.exit(1)

    def __getstate__(self) -> dict[str, Path]:
        """Leave the process out of the pickle."""
        return {"path": self.path}


def _ignore_job_signals() -> None:
    """Let the run ignore the signal that tells the job of its end: Slurm sends it to all processes of the job."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
