"""A drill of the queue: its worker, its runs and the UI that shows them are killed while it is drained."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from support.command_line import run_cli
from support.whole_runs import events_of

from rotnet_keras.runs import queue
from rotnet_keras.runs.folder import list_runs
from rotnet_keras.runs.launch import load_for_run
from soak.kills import end, small_recipe
from soak.tally import Tally
from soak.terminal import Terminal

# Keys of the UI: to the queue, and start its worker.
START_WORKER = b"3g"
# Seconds that a worker is given to come up after its key was pressed.
COMES_UP = 30.0
# Seconds without a start after which the drill is given up.
STANDSTILL = 300.0


class _Screen:
    """The terminal UI on a runs folder, as somebody has it open."""

    def __init__(self, folder: Path, runs_dir: Path) -> None:
        ours = {"TERM": "xterm-256color", "XDG_STATE_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        self.terminal = Terminal()
        command = [sys.executable, "-m", "rotnet_tui", "--runs-dir", str(runs_dir)]
        self.process = self.terminal.start(command, env=os.environ | ours)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.terminal.close()


def drained(folder: Path, rng: Random, count: int) -> Iterator[Tally]:
    """Many short runs wait; now and then the worker, the run that it has started, or the UI is killed."""
    tally = Tally("queued runs, with kills of worker, UI and runs")
    recipe, runs_dir = small_recipe(folder), folder / "runs"
    # A worker starts only what was queued with the key in this folder, which is that of the UI too.
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "XDG_STATE_HOME": str(folder)}
    killed: Counter[str] = Counter()
    by_key = 0
    for number in range(count):
        loaded, facts = load_for_run(str(recipe), {"train.steps": 4, "data.validation": 0, "probe": []}, runs_dir)
        queue.enqueue(loaded, facts, f"run{number}", runs_dir)
    screen = _Screen(folder, runs_dir)
    waiting, since = count, time.monotonic()
    while queued := queue.queued_runs(runs_dir):
        if len(queued) < waiting:
            waiting, since = len(queued), time.monotonic()
        elif time.monotonic() - since > STANDSTILL:
            said = (runs_dir / ".queue.log").read_text()[-500:]
            tally.lost.append(f"no run was started in {STANDSTILL:.0f} s: {said}")
            break
        if queue.worker_pid(runs_dir) is None:
            screen.terminal.type(START_WORKER)
            if _comes(lambda: queue.worker_pid(runs_dir)):
                by_key += 1
            else:
                queue.start_worker(runs_dir)
        time.sleep(rng.uniform(0, 8))
        worker, alive = queue.worker_pid(runs_dir), [run for run in list_runs(runs_dir) if run.alive()]
        victim = rng.choice(["worker", "UI", "run"])
        if victim == "worker" and worker:
            end(worker)
        elif victim == "run" and alive:
            end(alive[0].facts()["pid"])
        elif victim == "UI":
            screen.kill()
            if worker and queue.worker_pid(runs_dir) is None and queue.queued_runs(runs_dir):
                tally.lost.append("with the UI its worker ended")
            screen = _Screen(folder, runs_dir)
        else:
            continue
        killed[victim] += 1
    screen.kill()
    while queue.worker_pid(runs_dir) or any(run.alive() for run in list_runs(runs_dir)):
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
    tally.note += f"; {killed['worker']} kills of the worker, {killed['UI']} of the UI and {killed['run']} of runs; "
    tally.note += f"{by_key} workers were started by the UI's key"
    yield tally


def _comes(condition: Callable[[], Any]) -> bool:
    """Whether something becomes true before long."""
    deadline = time.monotonic() + COMES_UP
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
