"""Measure how long keys of the terminal UI wait where the runs folder is large and its disk is slow.

    python scripts/measure_key_latency.py FOLDER --runs 5000 --delay 0.005 --events 1000000

FOLDER gets the runs, unless it has them: copies of one run that has no images, and one with many events, which is the
newest. A question about one of their files, such as whether it exists, then takes `--delay` seconds, as on the disk of
a network; the disk itself is not slow. The UI runs in tmux at 120x36. Sixty keys go through the list, a filter, the
recipes, the queue, and the tabs of a run, while the folder is being read. What is measured is the time from a key to
the first change of the terminal's picture, which may say that files are being read; lines that count the run folders
that were read are not looked at. The same keys in a folder of twenty runs without a delay show what the machine does by
itself. The start is measured from the command to the first picture, and to the first runs in the list.

It exits with 1 if the median of the large folder is above 0.1 s.
"""

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rotnet_keras.config.loading import to_toml
from rotnet_keras.host import processor, python_command
from rotnet_keras.runs.launch import create_run, load_for_run

QUESTIONS = ("stat", "lstat", "open", "scandir", "listdir", "access", "readlink")
# Each changes what the terminal shows.
KEYS = [
    *["Down"] * 8, *["Up"] * 3, "/", *"state:failed", "Escape", "2", "Down", "Down", "3", "1", "Down", "Enter",
    "2", "4", "5", "6", "7", "8", "1", "Left", "Left", "Escape", "Escape", "Down", "Space", "Down", "Space",
]  # fmt: skip
# People do not press the next key sooner.
BETWEEN = 0.15
MOST_SECONDS = 0.1
# A key without a picture after so long changes nothing.
PATIENCE = 3.0
SMALL = 20
COUNTING = ("folders read", "Reading")


def make_runs(folder: Path, count: int, many: int) -> None:
    """Write so many finished runs, the newest one with many steps; those that exist are left alone."""
    # The UI, which is a process of this script, starts without these.

    recipe, facts = load_for_run("quickstart", {}, folder)
    facts |= {"created": 1.7e9, "pid": 2**22, "since_boot": 1.0, "host": "host", "device": "CPU", "steps": 100}
    last = f"run-{count - 1:05d}"
    for name, steps in (("run-00000", 100), (last, many)):
        if not (folder / name).is_dir():
            run = create_run(folder, name, to_toml(recipe), facts | {"steps": steps})
            run.log.write_text("00:00:00 Starting TensorFlow; the first step takes longer.\n")
            with run.events_file.open("w") as file:
                file.writelines(json.dumps(event, separators=(",", ":")) + "\n" for event in events(steps))
    for number in range(1, count):
        if not (other := folder / f"run-{number:05d}").is_dir():
            shutil.copytree(folder / "run-00000", other)
    os.utime(folder / last / "recipe.toml")


def events(steps: int) -> Iterator[dict[str, Any]]:
    """What a finished run has written."""
    yield {"kind": "start", "time": 1.7e9, "pid": 1}
    for step in range(1, steps + 1):
        figures = {"loss": 1 / step, "accuracy": 0.5, "learning_rate": 0.1, "images_per_s": 100.0, "data_wait": 0.0}
        yield {"kind": "step", "time": 1.7e9 + step, "step": step, "epoch": step / 50, **figures}
    yield {"kind": "end", "time": 1.7e9 + steps + 1, "outcome": "finished", "exit_code": 0, "message": ""}


def delay(folder: Path, seconds: float) -> None:
    """Let every question about a file in a folder take so long, in any thread."""
    prefix = str(folder.absolute())

    def slow(ask):
        def asked(path=".", *arguments, **options):
            if isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(prefix):  # noqa: PTH100
                time.sleep(seconds)
            return ask(path, *arguments, **options)

        return asked

    for module, names in ((os, QUESTIONS), (io, ("open",))):
        for name in names:
            setattr(module, name, slow(getattr(module, name)))


class Terminal:
    """The UI in a terminal of its own.

    Args:
        folder: the runs.
        seconds: what each question about a file takes.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self._name = f"keys-{os.getpid()}-{folder.name}"
        serve = python_command(str(Path(__file__).absolute()), str(folder), "--delay", str(seconds), "--show")
        self._tmux("new-session", "-d", "-s", "keys", "-x", "120", "-y", "36", "sleep", "60")
        began = time.perf_counter()
        self._tmux("respawn-pane", "-k", "-t", "keys", *serve)
        while not self.picture().strip():
            time.sleep(0.005)
        self.start = time.perf_counter() - began
        while "run-" not in self.picture():
            time.sleep(0.005)
        self.listed = time.perf_counter() - began

    def _tmux(self, *words: str) -> str:
        return subprocess.run(["tmux", "-L", self._name, *words], check=True, capture_output=True, text=True).stdout

    def picture(self) -> str:
        """What is seen, with colours, but for lines that count what was read."""
        lines = self._tmux("capture-pane", "-e", "-p", "-t", "keys").splitlines()
        return "\n".join(line for line in lines if not any(word in line for word in COUNTING))

    def press(self, key: str) -> float | None:
        """Press a key; return the seconds until the picture changes, or None if it does not."""
        before, began = self.picture(), time.perf_counter()
        self._tmux("send-keys", "-t", "keys", key)
        while self.picture() == before:
            if time.perf_counter() - began > PATIENCE:
                return None
        return time.perf_counter() - began

    def close(self) -> None:
        """End the UI."""
        self._tmux("kill-server")


def waits(folder: Path, seconds: float) -> list[tuple[float, str]]:
    """Return how long each key waited, in seconds, longest first, with the number and the name of the key."""
    terminal = Terminal(folder, seconds)
    print(
        f"{folder.name}: first picture after {terminal.start:.2f} s, runs listed after {terminal.listed:.2f} s",
        flush=True,
    )
    found = []
    try:
        for number, key in enumerate(KEYS, 1):
            wait = terminal.press(key)
            if wait is None:
                print(f"{folder.name}: key {number} ({key}) changes nothing")
            else:
                found.append((wait, f"{number} ({key})"))
            time.sleep(BETWEEN)
    finally:
        terminal.close()
    return sorted(found, reverse=True)


def show(folder: Path, seconds: float) -> None:
    """Be the UI."""
    from rotnet_tui.app import RotnetApp

    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp()
    if seconds:
        delay(folder, seconds)
    RotnetApp(folder).run()


def main() -> int:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--delay", type=float, default=0.005, help="of each question about a file, in seconds")
    parser.add_argument("--events", type=int, default=1_000_000, help="of the newest run")
    parser.add_argument("--show", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.show:
        show(options.folder, options.delay)
        return 0

    small, large = options.folder / "small", options.folder / "large"
    make_runs(small, SMALL, 100)
    make_runs(large, options.runs, options.events)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {processor()}", flush=True)
    medians = []
    for folder, seconds in ((small, 0.0), (large, options.delay)):
        found = waits(folder, seconds)
        medians.append(statistics.median(wait for wait, _ in found))
        slowest = ", ".join(f"{key} {1000 * wait:.0f} ms" for wait, key in found[:5])
        print(f"{folder.name}: {len(found)} keys, median {1000 * medians[-1]:.0f} ms; slowest {slowest}", flush=True)
    return int(medians[1] > MOST_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
