"""The queue of a runs folder: the runs that wait in it, and the worker that starts them, one on each device.

The queue has no file of its own: a run waits as long as its `run.json` has `queued` and names no process. A folder from
elsewhere may say so, too. The worker starts only what this user has queued in this runs folder: its `queued_by` is made
with a key that nobody else can read.
"""

import hashlib
import hmac
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
import psutil

from rotnet_keras.errors import RunError
from rotnet_keras.files import (
    MAX_TOML_BYTES,
    make_private_folder,
    open_file,
    open_to_append,
    read_file,
    read_json,
    write_atomically,
)
from rotnet_keras.host import python_command
from rotnet_keras.runs import processes
from rotnet_keras.runs.control import remove_run
from rotnet_keras.runs.events import is_locked, lock
from rotnet_keras.runs.folder import RunFolder, list_runs
from rotnet_keras.runs.next_steps import command_line
from rotnet_keras.text import printable

# The schema of recipes takes a tenth of a second to import; the terminal UI lists runs and the queue without it.
if TYPE_CHECKING:
    from rotnet_keras.config.schema import Recipe

LOCK = ".queue.lock"
LOG = ".queue.log"
POLL_SECONDS = 1.0
# The file of the worker's identity is no larger.
MAX_LOCK_BYTES = 1 << 16
KEY_BYTES = 32
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
        holder = read_json(runs_dir / LOCK, MAX_LOCK_BYTES, runs_dir)
    except (OSError, ValueError):
        return None
    if not isinstance(holder, dict) or not processes.is_running(holder) or not is_locked(runs_dir / LOCK):
        return None
    return int(holder["pid"])


def was_queued_here(run: RunFolder) -> bool:
    """Return whether this user queued a waiting run, with this recipe, in the runs folder that it lies in.

    Raises:
        RunError: this user's key can be neither read nor created.
    """
    facts = run.facts()
    try:
        recipe = read_file(run.recipe, MAX_TOML_BYTES, run.path)
        expected = signature(recipe, facts.get("queued"), run.path.parent)
    except OSError:
        return False
    return hmac.compare_digest(expected, str(facts.get("queued_by")).encode("ascii", "replace").decode())


def not_queued_here(run: RunFolder) -> str:
    """Say why the worker leaves a waiting run, and how to start it all the same."""
    return f"you have not queued it in this folder. If you trust it, start it with: {command_line('resume', run)}"


def queue_facts(recipe: "Recipe", runs_dir: Path) -> dict[str, Any]:
    """Return the facts that make a new run of a recipe wait in the queue of a runs folder.

    Raises:
        RunError: the disk has no locks, so that no worker could run; or this user's key cannot be created.
    """
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        _require_locks(runs_dir)
    except OSError as error:
        raise RunError(f"cannot queue a run in {runs_dir}: {error.strerror}") from None
    queued = time.time()
    from rotnet_keras.config.loading import to_toml

    return {"queued": queued, "queued_by": signature(to_toml(recipe).encode(), queued, runs_dir)}


def signature(recipe: bytes, queued: object, runs_dir: Path) -> str:
    """Return what shows that this user queued a recipe at this time in a runs folder.

    Raises:
        OSError: there is no such folder.
        RunError: this user's key can be neither read nor created.
    """
    # The number of the folder on its disk stays when it is moved, and is another one for a copy.
    signed = [os.getuid(), runs_dir.stat().st_ino, queued, hashlib.sha256(recipe).hexdigest()]
    return hmac.new(_key(), json.dumps(signed).encode(), hashlib.sha256).hexdigest()


def sign(value: Any) -> str:
    """Return what shows that this user wrote a value, which JSON can hold.

    Raises:
        RunError: this user's key can be neither read nor created.
    """
    return hmac.new(_key(), json.dumps(value, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def is_signed(value: Any, signed: Any) -> bool:
    """Return whether this user signed a value.

    Raises:
        RunError: this user's key can be neither read nor created.
    """
    return hmac.compare_digest(sign(value), str(signed).encode("ascii", "replace").decode())


def _key() -> bytes:
    """Return this user's key, which is created when it is needed first."""
    file = platformdirs.user_state_path("rotnet-keras") / "queue.key"
    try:
        if not file.exists():
            make_private_folder(file.parent)
            # Of several processes that create it at once, the first one's stays.
            new = file.with_name(f"{secrets.token_hex(8)}.key")
            write_atomically(new, secrets.token_bytes(KEY_BYTES), private=True)
            with suppress(FileExistsError):
                file.hardlink_to(new)
            new.unlink()
        return read_file(file, KEY_BYTES)
    except OSError as error:
        raise RunError(
            f"the key of your queues cannot be read or written: {file}: {error.strerror}; set XDG_STATE_HOME to a "
            "folder of your own"
        ) from None


def _require_locks(runs_dir: Path) -> None:
    """Make sure that a worker can lock its file."""
    open_to_append(runs_dir / LOCK, runs_dir).close()
    with open_file(runs_dir / LOCK, runs_dir) as file, suppress(BlockingIOError):
        lock(file, runs_dir / LOCK)


def enqueue(recipe: "Recipe", facts: Mapping[str, Any], name: str | None, runs_dir: Path) -> RunFolder:
    """Create the folder of a run that waits in the queue, and start a worker if none is running.

    Args:
        recipe: a checked recipe, as `load_for_run` returns it.
        facts: the first facts, as `load_for_run` returns them.
        name: the name of the run; by default the recipe's name and the time.
        runs_dir: the folder that holds all runs.

    Raises:
        RunError: the name is not a plain file name, the folder cannot be created, or its disk has no locks.
    """
    from rotnet_keras.runs.launch import create_run_from_recipe

    folder = create_run_from_recipe(recipe, {**facts, **queue_facts(recipe, runs_dir)}, name, runs_dir)
    if worker_pid(runs_dir) is None:
        start_worker(runs_dir)
    return folder


def start_worker(runs_dir: Path) -> "subprocess.Popen[bytes]":
    """Start the queue's worker in a session of its own, which outlives this process and its terminal."""
    runs_dir.mkdir(parents=True, exist_ok=True)
    with open_to_append(runs_dir / LOG, runs_dir) as log:
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
            for run in waiting:
                if not was_queued_here(run):
                    self._give_up(run, not_queued_here(run))
            waiting = self.waiting()
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
        from rotnet_keras.runs.launch import start_detached

        try:
            process = start_detached(run, device)
        except (OSError, RunError) as error:
            self._give_up(run, str(error))
            return
        self.children[device] = (run, process)
        _say(f"{run.name} runs as process {process.pid}" + (f" on GPU {device}" if device else ""))

    def _give_up(self, run: RunFolder, reason: str) -> None:
        self.given_up.add(run.name)
        _say(f"{run.name} could not be started and is skipped: {reason}")


@contextmanager
def _lock(runs_dir: Path) -> Iterator[None]:
    with open_to_append(runs_dir / LOCK, runs_dir) as file:
        try:
            lock(file, runs_dir / LOCK)
        except BlockingIOError:
            raise RunError(f"the queue of {runs_dir} has a worker already") from None
        file.truncate(0)
        file.write(json.dumps(processes.process_identity(psutil.Process())).encode())
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
