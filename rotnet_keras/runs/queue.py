"""The queue of a runs folder: the runs that wait in it, and the worker that starts them, one on each device.

The queue has no file of its own: a run waits as long as its `run.json` has `queued` and names no process.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from rotnet_keras.config.schema import Recipe
from rotnet_keras.errors import RunError
from rotnet_keras.host import python_command
from rotnet_keras.runs import processes
from rotnet_keras.runs.folder import RunFolder, list_runs, remove_run
from rotnet_keras.runs.launch import create_run_from_recipe, start_detached
from rotnet_keras.text import printable

LOCK = ".queue.lock"
LOG = ".queue.log"
POLL_SECONDS = 1.0
# A CUDA_VISIBLE_DEVICES of this value hides every GPU.
NO_GPU = "-1"

# A GPU as CUDA_VISIBLE_DEVICES names it. None stands for the whole machine, which is used by one run at a time.
Device = str | None


def queued_runs(runs_dir: Path) -> list[RunFolder]:
    """Return the waiting runs, next one first."""
    found = [(run.queued_since(), run.name, run) for run in list_runs(runs_dir)]
    waiting = [(since, name, run) for since, name, run in found if since is not None]
    return [run for _, _, run in sorted(waiting, key=lambda entry: entry[:2])]


def worker_pid(runs_dir: Path) -> int | None:
    """Return the process id of the queue's worker; None if no worker is running."""
    try:
        holder = json.loads((runs_dir / LOCK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return int(holder["pid"]) if isinstance(holder, dict) and processes.is_running(holder) else None


def enqueue(recipe: Recipe, facts: Mapping[str, Any], name: str | None, runs_dir: Path) -> RunFolder:
    """Create the folder of a run that waits in the queue, and start a worker if none is running.

    Args:
        recipe: a checked recipe, as `load_for_run` returns it.
        facts: the first facts, as `load_for_run` returns them.
        name: the name of the run; by default the recipe's name and the time.
        runs_dir: the folder that holds all runs.

    Raises:
        RunError: the name is not a plain file name, or the folder cannot be created.
    """
    folder = create_run_from_recipe(recipe, {**facts, "queued": time.time()}, name, runs_dir)
    if worker_pid(runs_dir) is None:
        start_worker(runs_dir)
    return folder


def start_worker(runs_dir: Path) -> "subprocess.Popen[bytes]":
    """Start the queue's worker in a session of its own, which outlives this process and its terminal."""
    runs_dir.mkdir(parents=True, exist_ok=True)
    with (runs_dir / LOG).open("ab") as log:
        return subprocess.Popen(
            python_command("-m", "rotnet_keras", "queue", "work", "--runs-dir", str(runs_dir)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def remove_queued(run: RunFolder) -> None:
    """Delete the folder of a waiting run.

    Raises:
        RunError: the run does not wait in the queue.
    """
    if run.queued_since() is None:
        raise RunError(f"{run.name} does not wait in the queue; it is {run.state()}")
    remove_run(run)


def visible_devices() -> list[Device]:
    """Return the GPUs that this process may use, or `[None]` for the whole machine if there are none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        named = _names(visible)
        return [None] if not named or named[0] == NO_GPU else [*named]
    try:
        import pynvml  # type: ignore[import-untyped]
    except ImportError:
        return [None]
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return [None]
    return [str(index) for index in range(count)] or [None]


def run_worker(runs_dir: Path) -> None:
    """Start the queued runs one after another, until none is left and all have ended.

    Runs have sessions of their own, so ending this process ends none of them.

    Raises:
        RunError: another worker is running.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    queue = _Worker(runs_dir)
    runs_dir.mkdir(parents=True, exist_ok=True)
    with _lock(runs_dir):
        queue.drain()
    # A run may have been added while the lock was still held, by a process that therefore started no worker.
    while queue.waiting() and worker_pid(runs_dir) is None:
        with _lock(runs_dir):
            queue.drain()


class _Worker:
    """Starts waiting runs on free devices, and keeps track of the ones it has started."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self.devices = visible_devices()
        self.children: dict[Device, tuple[RunFolder, subprocess.Popen[bytes]]] = {}
        self.given_up: set[str] = set()

    def waiting(self) -> list[RunFolder]:
        """Return the waiting runs, except those that are starting and those that failed to start."""
        skipped = self.given_up | {run.name for run, _ in self.children.values()}
        return [run for run in queued_runs(self.runs_dir) if run.name not in skipped]

    def drain(self) -> None:
        """Start runs until none is waiting and all of them have ended."""
        _say(f"working on the queue of {self.runs_dir.absolute()}")
        while True:
            self._collect_ended()
            waiting = self.waiting()
            if not waiting and not self.children:
                _say("the queue is empty and all runs have ended")
                return
            if waiting:
                for run, device in zip(waiting, self._free_devices(), strict=False):
                    self._start(run, device)
            time.sleep(POLL_SECONDS)

    def _collect_ended(self) -> None:
        for device, (run, process) in list(self.children.items()):
            if process.poll() is None:
                continue
            del self.children[device]
            if run.queued_since() is None:
                _say(f"{run.name} ended with exit code {process.returncode}")
            else:
                self._give_up(run, f"its process ended with exit code {process.returncode}; its log is {run.log}")

    def _free_devices(self) -> list[Device]:
        busy = set(self.children)
        for run in list_runs(self.runs_dir):
            busy |= self._devices_of(run)
        return [device for device in self.devices if device not in busy]

    def _devices_of(self, run: RunFolder) -> set[Device]:
        facts = run.facts()
        if not (run.alive() if "pid" in facts else run.state() == "starting"):
            return set()
        named: set[Device] = set(_names(str(facts.get("gpus") or "")))
        return named if named and self.devices != [None] else set(self.devices)

    def _start(self, run: RunFolder, device: Device) -> None:
        try:
            process = start_detached(run, device)
        except OSError as error:
            self._give_up(run, str(error))
            return
        self.children[device] = (run, process)
        _say(f"{run.name} runs as process {process.pid}" + (f" on GPU {device}" if device else ""))

    def _give_up(self, run: RunFolder, reason: str) -> None:
        self.given_up.add(run.name)
        _say(f"{run.name} could not be started and is skipped: {reason}")


@contextmanager
def _lock(runs_dir: Path) -> Iterator[None]:
    with (runs_dir / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"the queue of {runs_dir} has a worker already") from None
        file.truncate(0)
        file.write(json.dumps(processes.process_identity(psutil.Process())))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _names(visible: str) -> list[str]:
    """Split a value of CUDA_VISIBLE_DEVICES."""
    return [name.strip() for name in visible.split(",") if name.strip()]


def _say(text: str) -> None:
    print(printable(f"{time.strftime('%m-%d %H:%M:%S')} {text}"), flush=True)
