"""A Slurm of one machine for tests: munge, a controller and a node with two cores, all in one folder."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
PACKAGES = "apt-get install slurm-wlm munge"
CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=2,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def missing():
    """Why Slurm cannot be started here; empty if it can."""
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    if absent:
        return f"needs Slurm, and {', '.join(absent)} are not installed: {PACKAGES}"
    return "" if os.getuid() == 0 else "needs the superuser, to start Slurm's daemons"


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Slurm:
    """A running Slurm. Its commands find it through the environment variable SLURM_CONF.

    Its folder is a short one, since the name of a socket is.
    """

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/var/tmp"))
        self.folder.chmod(0o755)
        self.configuration = self.folder / "slurm.conf"
        self.processes = []

    def start(self):
        munge = self.folder / "munge"
        for folder in ("munge", "state", "spool"):
            (self.folder / folder).mkdir(mode=0o755)
        key = munge / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        files = {"key": "key", "socket": "socket", "pid": "pid", "seed": "seed", "log": "log"}
        options = [
            f"--{'socket' if name == 'socket' else f'{name}-file'}={munge / file}" for name, file in files.items()
        ]
        host = socket.gethostname().split(".")[0]
        self.configuration.write_text(CONFIGURATION.format(folder=self.folder, host=host, ports=free_ports(2)))
        for words in (
            ["munged", "--foreground", "--force", *options],
            ["slurmctld", "-D", "-f", self.configuration],
            ["slurmd", "-D", "-f", self.configuration, "-N", host],
        ):
            with (self.folder / f"{words[0]}.out").open("w") as log:
                self.processes.append(subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True))
            time.sleep(0.5)
        self.wait(lambda: "idle" in self.command("sinfo", "--noheader", "--format=%T"), "an idle node", 60)

    def command(self, *words):
        """Run one of Slurm's commands; its output."""
        found = subprocess.run(
            words,
            env={**os.environ, "SLURM_CONF": str(self.configuration)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return found.stdout + found.stderr

    def occupy(self, seconds, cores=1):
        """Submit a job that comes before all others and sleeps; its number."""
        said = self.command(
            "sbatch",
            "--parsable",
            "--partition=high",
            f"--ntasks={cores}",
            "--output=/dev/null",
            f"--wrap=sleep {seconds}",
        )
        return said.strip()

    def start_requeued(self):
        """Let jobs that were queued again start at once, not after Slurm's two minutes."""
        for number in self.command("squeue", "--noheader", "--states=PENDING", "--format=%i").split():
            self.command("scontrol", "update", f"JobId={number}", "StartTime=now")

    def wait(self, condition, what, seconds=240):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited for {what} in vain\n{self.logs()}"
            time.sleep(0.5)

    def logs(self):
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))

    def stop(self):
        self.command("scancel", "--user=root", "--signal=KILL", "--full")
        self.command("scancel", "--user=root")
        time.sleep(1)
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def slurm():
    """Slurm on this machine, with the partitions low and high; skips where it cannot be."""
    if why := missing():
        pytest.skip(why)
    pytest.importorskip("submitit")
    running = Slurm()
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(running.configuration)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before
