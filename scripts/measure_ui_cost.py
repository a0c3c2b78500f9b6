#!/usr/bin/env python3
"""Measure what the terminal UI takes from a training that it watches.

    python scripts/measure_ui_cost.py FOLDER [--pairs 15] [--seconds 12]

Trains `cifar_cpu` in FOLDER. For some seconds the UI is open on the run, in tmux at 120x36, for as many it is not, and
so on. Of each stretch of time, after the first seconds, in which the UI starts, the steps a second are counted. The
figure is the median over the pairs, because a machine that is shared is faster at one time than at another. Needs
CIFAR-10 where `rotnet-keras run cifar_cpu` finds it, or `--data-dir`. It exits with 1 if the UI takes more than 2 %.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rotnet_keras.host import processor, python_command

MOST_PERCENT = 2.0
# Steps in which TensorFlow still traces and allocates.
FIRST = 30
# Seconds in which the UI starts.
START = 3.0
COLUMNS, ROWS = "120", "36"


def step_times(run: Path) -> list[tuple[int, float]]:
    """The steps of a run that have an event, with their times."""
    if not (run / "events.jsonl").is_file():
        return []
    lines = (run / "events.jsonl").read_text().splitlines(keepends=True)
    events = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(event["step"], event["time"]) for event in events if event["kind"] == "step"]


def stretch(run: Path, seconds: float, watched: bool) -> float:
    """Wait for some seconds, with the UI open or not; the steps a second after its start."""
    # A server of its own each time: the one before may not have ended yet.
    tmux = ["tmux", "-L", f"{run.name}-{time.time_ns()}"]
    if watched:
        ui = python_command("-m", "rotnet_tui", str(run))
        subprocess.run([*tmux, "new-session", "-d", "-x", COLUMNS, "-y", ROWS, *ui], check=True)
    time.sleep(START)
    since = time.time()
    time.sleep(seconds)
    if watched:
        shown = subprocess.run([*tmux, "capture-pane", "-p"], check=True, capture_output=True, text=True)
        subprocess.run([*tmux, "kill-server"], check=True)
        if "images/s" not in shown.stdout:
            raise SystemExit(f"the UI did not show the run:\n{shown.stdout}")
    (first, began), *_, (last, ended) = [each for each in step_times(run) if each[1] >= since]
    return (last - first) / (ended - began)


def main() -> int:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    run = options.folder / f"watched-{os.getpid()}"
    settings = [f"data.data_dir={options.data_dir}"] if options.data_dir else []
    settings += ["train.steps=1000000", "train.log_every=1", "probe=[]"]
    options.folder.mkdir(parents=True, exist_ok=True)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {processor()}", flush=True)
    words = ["-m", "rotnet_keras", "run", "cifar_cpu", "--name", run.name, "--runs-dir", str(options.folder)]
    training = subprocess.Popen([*python_command(*words), *settings], stdout=subprocess.DEVNULL)
    try:
        while len(step_times(run)) < FIRST:
            if training.poll() is not None:
                raise SystemExit(f"the training ended: see {run / 'log.txt'}")
            time.sleep(0.5)
        pairs = []
        for number in range(options.pairs):
            # Now the one comes first, now the other, so that a drift of the machine cancels.
            order = (False, True) if number % 2 else (True, False)
            rates = {watched: stretch(run, options.seconds, watched) for watched in order}
            pairs.append((rates[False], rates[True]))
            print(f"pair {number + 1}: alone {rates[False]:.2f} steps/s, watched {rates[True]:.2f}", flush=True)
    finally:
        training.send_signal(signal.SIGTERM)
        training.wait()
    lost = sorted(100 * (alone - watched) / alone for alone, watched in pairs)
    low, high = lost[len(lost) // 4], lost[-1 - len(lost) // 4]
    print(f"the UI takes {statistics.median(lost):.1f} %; half of the pairs lie from {low:.1f} to {high:.1f} %")
    return int(statistics.median(lost) > MOST_PERCENT)


if __name__ == "__main__":
    sys.exit(main())
