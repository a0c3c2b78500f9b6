"""A drill of the queue: its worker and its runs are killed while it is drained."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

from command_line import run_cli
from whole_runs import events_of

from rotnet_keras import queue
from rotnet_keras.launch import load_for_run
from rotnet_keras.runs import list_runs
from soak.kills import end, small_recipe
from soak.tally import Tally


def drained(folder: Path, rng: Random, count: int) -> Iterator[Tally]:
    """Many short runs wait; now and then the worker, or the run that it has started, is killed."""
    tally = Tally("queued runs, with kills of worker and runs")
    recipe, runs_dir = small_recipe(folder), folder / "runs"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    killed: Counter[str] = Counter()
    for number in range(count):
        loaded, facts = load_for_run(str(recipe), {"train.steps": 4, "data.validation": 0, "probe": []}, runs_dir)
        queue.enqueue(loaded, facts, f"run{number}", runs_dir)
    while queue.queued_runs(runs_dir):
        if queue.worker(runs_dir) is None:
            queue.spawn_worker(runs_dir)
        time.sleep(rng.uniform(0, 15))
        worker, alive = queue.worker(runs_dir), [run for run in list_runs(runs_dir) if run.alive()]
        if rng.random() < 0.5 and worker:
            killed["worker"] += 1
            end(worker)
        elif alive:
            killed["run"] += 1
            end(alive[0].facts()["pid"])
    while queue.worker(runs_dir) or any(run.alive() for run in list_runs(runs_dir)):
        time.sleep(0.2)
    runs = list_runs(runs_dir)
    tally.tried = len(runs)
    for run in runs:
        starts, state = len(events_of(run, "start")), run.state()
        ends = [event["outcome"] for event in events_of(run, "end")]
        fine = starts <= 1 and (state, ends) in (("finished", ["finished"]), ("killed", []))
        if not fine:
            tally.lost.append(f"{run.name}: {state}, started {starts} times, ends {ends}")
    states = Counter(run.state() for run in runs)
    if len(runs) != count or states["killed"] > killed["run"]:
        tally.lost.append(f"{len(runs)} of {count} runs, {states}, but kills of {killed}")
    listed = run_cli("runs", "--runs-dir", runs_dir)
    if listed.returncode or listed.stdout.count("\n") < count:
        tally.lost.append(f"they cannot be listed: {listed.stderr[-300:]}")
    tally.note = ", ".join(f"{state} {times}" for state, times in states.items())
    tally.note += f"; {killed['worker']} kills of the worker and {killed['run']} of runs"
    yield tally
