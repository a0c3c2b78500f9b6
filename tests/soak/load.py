"""Drills of size: many run folders, and a very long run."""

import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from support.command_line import run_cli
from support.fake_runs import fake_run

from soak.tally import Tally

# What a person waits for a list of thousands of runs, and for the state of the longest one.
LIST_SECONDS, STATUS_SECONDS = 30.0, 5.0


def folders(folder: Path, rng: Random, count: int) -> Iterator[Tally]:
    """A runs folder with thousands of runs is listed."""
    tally = Tally("run folders in one list", tried=count)
    for number in range(count):
        outcome = rng.choice(["finished", "failed", "stopped"])
        fake_run(folder / "runs", f"run{number}", epochs=1, age=60, outcome=outcome)
    start = time.monotonic()
    result = run_cli("runs", "--json", "--runs-dir", folder / "runs")
    took = time.monotonic() - start
    listed = json.loads(result.stdout) if not result.returncode else []
    tally.lost += [f"run {n} is not listed" for n in range(count - len(listed))]
    if took > LIST_SECONDS:
        tally.lost.append(f"the list took {took:.0f} s")
    tally.note = f"listed in {took:.1f} s"
    yield tally


def events(folder: Path, rng: Random, count: int) -> Iterator[Tally]:
    """An events file of millions of lines: status, report and list."""
    tally = Tally("lines in one events file", tried=count)
    run = fake_run(folder / "runs", "long", epochs=1, age=60)
    (first, *_) = (line for line in run.events_file.read_text().splitlines(True) if '"kind":"step"' in line)
    with run.events_file.open("a") as file:
        file.writelines(first.replace('"step":10,', f'"step":{number},') for number in range(count))
    for arguments, most in ((("status", "long", "--json"), STATUS_SECONDS), (("runs",), STATUS_SECONDS)):
        start = time.monotonic()
        result = run_cli(*arguments, "--runs-dir", folder / "runs")
        took = time.monotonic() - start
        if result.returncode or took > most:
            tally.lost.append(f"{arguments[0]}: exit code {result.returncode} after {took:.1f} s")
        tally.note += f"{arguments[0]} in {took:.1f} s; "
    tally.note += f"{run.events_file.stat().st_size / 1e6:.0f} MB, "
    tally.note += f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3:.0f} MB of memory"
    yield tally
