#!/usr/bin/env python3
"""Measure what the terminal UI takes from a training that it watches.

    python scripts/measure_ui_cost.py FOLDER [--rounds 5] [--steps 150]

Trains `cifar_cpu` for a few steps in FOLDER, by itself and with the UI open on its run in tmux at 120x36, in turns. The
figure of a training is the median of its images a second, without the first steps. Needs CIFAR-10 where
`rotnet-keras run cifar_cpu` finds it, or `--data-dir`. It exits with 1 if the UI takes more than 2 %.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rotnet_keras.host import processor, python_command

MOST_PERCENT = 2.0
# Steps in which TensorFlow still traces and allocates.
FIRST = 30


def rate(folder: Path, name: str, steps: int, settings: list[str], watched: bool) -> float:
    """Train once; return the median of images a second."""
    options = [f"train.steps={steps}", "train.log_every=10", "probe=[]", *settings]
    run = python_command("-m", "rotnet_keras", "run", "cifar_cpu", "--name", name, "--runs-dir", str(folder))
    training = subprocess.Popen([*run, *options], stdout=subprocess.DEVNULL)
    if watched:
        while not (folder / name / "events.jsonl").is_file() and training.poll() is None:
            time.sleep(0.1)
        ui = python_command("-m", "rotnet_tui", str(folder / name))
        subprocess.run(["tmux", "-L", name, "new-session", "-d", "-x", "120", "-y", "36", *ui], check=True)
    code = training.wait()
    if watched:
        shown = subprocess.run(["tmux", "-L", name, "capture-pane", "-p"], check=True, capture_output=True, text=True)
        subprocess.run(["tmux", "-L", name, "kill-server"], check=True)
        if "images/s" not in shown.stdout:
            raise SystemExit(f"the UI did not show the run:\n{shown.stdout}")
    if code:
        raise SystemExit(f"{name} ended with {code}: see {folder / name / 'log.txt'}")
    events = [json.loads(line) for line in (folder / name / "events.jsonl").read_text().splitlines()]
    return statistics.median(e["images_per_s"] for e in events if e["kind"] == "step" and e["step"] > FIRST)


def main() -> int:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    settings = [f"data.data_dir={options.data_dir}"] if options.data_dir else []
    options.folder.mkdir(parents=True, exist_ok=True)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {processor()}", flush=True)
    alone: list[float] = []
    watched: list[float] = []
    for number in range(options.rounds):
        for rates, ui in ((alone, False), (watched, True)):
            name = f"{'watched' if ui else 'alone'}-{os.getpid()}-{number}"
            rates.append(rate(options.folder, name, options.steps, settings, ui))
        print(f"round {number + 1}: alone {alone[-1]:.1f} images/s, watched {watched[-1]:.1f}", flush=True)
    ratios = [b / a for a, b in zip(alone, watched, strict=True)]
    lost = 100 * (1 - statistics.median(ratios))
    print(f"alone {statistics.median(alone):.1f} images/s, watched {statistics.median(watched):.1f}: {lost:.1f} % less")
    print(f"rounds from {100 * (1 - max(ratios)):.1f} to {100 * (1 - min(ratios)):.1f} %")
    return int(lost > MOST_PERCENT)


if __name__ == "__main__":
    sys.exit(main())
