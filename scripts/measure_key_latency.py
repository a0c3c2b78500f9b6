"""Measure how long keys of the terminal UI wait where the runs folder is large and its disk is slow.

    python scripts/measure_key_latency.py FOLDER --runs 5000 --delay 0.005

FOLDER gets the runs, unless it has them: copies of one run that has no images. A question about one of their files,
such as whether it exists, then takes `--delay` seconds, as on the disk of a network; the disk itself is not slow. Fifty
keys go through the list, a filter, the recipes, the queue, and the tabs of a run, while the folder is being read. What
is measured is the time from a key to the screen that it leads to, which may say that files are being read. The same
keys in a folder of twenty runs without a delay show what the machine does by itself.

It exits with 1 if the median of the large folder is above 0.1 s.
"""

import argparse
import asyncio
import io
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from rotnet_tui.app import RotnetApp

from rotnet_keras.config.loading import to_toml
from rotnet_keras.runs.launch import create_run, load_for_run

QUESTIONS = ("stat", "lstat", "open", "scandir", "listdir", "access", "readlink")
KEYS = [
    *["down"] * 8, *["up"] * 3, "slash", *"state:failed", "escape", "2", "down", "down", "3", "1", "down", "enter",
    "2", "left", "4", "5", "6", "7", "8", "left", "right", "1", "left", "left", "escape", "escape", "down", "space",
    "down", "space",
]  # fmt: skip
# People do not press the next key sooner.
BETWEEN = 0.15
MOST_SECONDS = 0.1
SMALL = 20


def make_runs(folder: Path, count: int) -> None:
    """Write so many finished runs, those that exist left alone."""
    recipe, facts = load_for_run("quickstart", {}, folder)
    facts |= {"created": 1.7e9, "pid": 2**22, "since_boot": 1.0, "host": "host", "device": "CPU", "steps": 100}
    events = [{"kind": "start", "time": 1.7e9, "pid": 1}]
    for step in range(1, 101):
        figures = {"loss": 1 / step, "accuracy": 0.5, "learning_rate": 0.1, "images_per_s": 100.0, "data_wait": 0.0}
        events.append({"kind": "step", "time": 1.7e9 + step, "step": step, "epoch": step / 50, **figures})
    events.append({"kind": "end", "time": 1.7e9 + 101, "outcome": "finished", "exit_code": 0, "message": ""})
    text = "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events)
    first = folder / "run-00000"
    if not first.is_dir():
        run = create_run(folder, first.name, to_toml(recipe), facts)
        run.events_file.write_text(text)
        run.log.write_text("00:00:00 Starting TensorFlow; the first step takes longer.\n")
    for number in range(1, count):
        if not (other := folder / f"run-{number:05d}").is_dir():
            shutil.copytree(first, other)


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


async def waits(folder: Path) -> list[tuple[float, str, str]]:
    """Return how long each key waited, in seconds, with the key and the screen that it was pressed on."""
    found = []
    app = RotnetApp(folder)
    async with app.run_test(size=(120, 36)) as pilot:
        while not app.index.summaries:
            await pilot.pause(BETWEEN)
        for key in KEYS:
            screen = type(app.screen).__name__
            began = time.perf_counter()
            await pilot.press(key)
            found.append((time.perf_counter() - began, key, screen))
            await asyncio.sleep(BETWEEN)
        read = len(app.index.summaries)
    print(f"{folder.name}: {read} run folders read when the last key was pressed", flush=True)
    return found


def main() -> int:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--delay", type=float, default=0.005, help="of each question about a file, in seconds")
    options = parser.parse_args()
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp()
    os.environ["TEXTUAL_ANIMATIONS"] = "none"
    small, large = options.folder / "small", options.folder / "large"
    make_runs(small, SMALL)
    make_runs(large, options.runs)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    medians = []
    for folder, seconds in ((small, 0.0), (large, options.delay)):
        if seconds:
            delay(folder, seconds)
        found = sorted(asyncio.run(waits(folder)), reverse=True)
        medians.append(statistics.median(each[0] for each in found))
        slowest = ", ".join(f"{key} on {screen} {1000 * wait:.0f} ms" for wait, key, screen in found[:3])
        print(f"{folder.name}: {len(found)} keys, median {1000 * medians[-1]:.0f} ms; slowest {slowest}", flush=True)
    print(f"large over small: {medians[1] / medians[0]:.2f}")
    return int(medians[1] > MOST_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
