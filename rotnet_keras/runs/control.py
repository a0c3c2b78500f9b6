"""What can be done to a run from outside: ask it to stop, find its process to kill it, delete its folder."""

import os
import shlex
import shutil
from contextlib import suppress
from pathlib import Path

import psutil

from rotnet_keras.errors import RunError
from rotnet_keras.files import has_file, open_to_append
from rotnet_keras.runs.folder import RunFolder, find_run
from rotnet_keras.runs.processes import is_running


def request_stop(run: RunFolder) -> None:
    """Ask a run to stop after its present step, by the file that it looks for.

    Raises:
        OSError: the file cannot be created.
    """
    open_to_append(run.stop_file, run.path).close()


def find_process(run: RunFolder) -> psutil.Process:
    """Return the process of a run that is alive, to kill it.

    A folder from elsewhere may name any process: its command line must be that of a run, and its user this one. The
    superuser may also kill the process of whoever writes the run's events.

    Raises:
        RunError: it has ended, or is not a run's.
    """
    facts = run.facts()
    try:
        process = psutil.Process(int(facts["pid"]))
        words, user = process.cmdline(), process.uids().real
    except (psutil.Error, KeyError, TypeError, ValueError, OverflowError):
        words, user = [], -1
    if not words or not run.alive() or not is_running(facts):
        raise RunError(f"{run.name} has just ended by itself")
    owners = {os.getuid()} if os.getuid() else {0, run.events_file.lstat().st_uid}
    if user not in owners or not any({"rotnet_keras", "rotnet-keras"} & set(Path(word).parts) for word in words):
        raise RunError(
            f"{run.facts_file} names process {process.pid}, which is not a run of this user: {shlex.join(words)}. "
            "Nothing was killed"
        )
    return process


def find_own_run(name: str, runs_dir: Path) -> RunFolder:
    """Find a run that may be deleted: a folder in the runs folder itself, not behind a link, with a `run.json` of ours.

    Raises:
        RunError: there is no such run, or it is elsewhere, a link, or a folder that no run has made.
    """
    run = find_run(name, runs_dir)
    typed = next(path for path in (Path(name), runs_dir / name) if has_file(path / "recipe.toml"))
    if typed.is_symlink():
        raise RunError(f"{typed} is a link to {run.path}, so nothing was deleted; the link alone goes with: rm {typed}")
    if run.path.parent != runs_dir.resolve():
        raise RunError(
            f"{run.path} is not in the runs folder {runs_dir}, so nothing was deleted; if it is a run, add: "
            f"--runs-dir {shlex.quote(str(run.path.parent))}"
        )
    if not isinstance(run.facts().get("format"), int):
        raise RunError(f"{run.path} has no run.json of rotnet-keras, so it may not be a run, and nothing was deleted")
    return run


def remove_run(run: RunFolder) -> None:
    """Delete a run folder. It is renamed first, so that readers see it whole or not at all."""
    doomed = run.path.with_name(f".gone-{os.urandom(4).hex()}")
    run.path.rename(doomed)
    shutil.rmtree(doomed)


def folder_size(path: Path) -> tuple[int, list[Path]]:
    """Return the bytes of all files in a folder, and the folders in it that may not be read. No link is followed."""
    total, closed = 0, []

    def note(error: OSError) -> None:
        closed.append(Path(str(error.filename)))

    for folder, _, names in os.walk(path, onerror=note):
        for name in names:
            with suppress(OSError):
                total += Path(folder, name).lstat().st_size
    return total, closed
