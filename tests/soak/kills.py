"""Drills of runs that are killed, stopped and spoilt, and go on to the end that they would have had."""

import os
import signal
import subprocess
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import numpy as np
import psutil
from support.command_line import command, run_cli
from support.tiny import PROBES, TINY_RECIPE, upright_images
from support.tiny_recipes import PROBE, STUDY
from support.whole_runs import assert_same_end, events_of

from rotnet_keras.files import TEMPORARY
from rotnet_keras.runs.folder import RunFolder
from soak.tally import Tally
from soak.terminal import Terminal

# Runs at a time: as many as there are cores here.
TOGETHER = 2
CTRL_C = b"\x03"
# Blows fall within this share of what a whole run takes, so that most processes get one; what a run does late it
# does early in the process that goes on with it.
SOON = 0.75

# What Python runs first where a disk takes its time, as one on a network does: an event comes there in two halves.
SLOW_DISK = """\
import io, os, random, time

def late(call):
    def called(*arguments, **settings):
        time.sleep(random.uniform(0, 0.1))
        return call(*arguments, **settings)
    return called

class Halves:
    def __init__(self, file):
        self._file = file

    def write(self, line):
        self._file.write(line[: len(line) // 2])
        self._file.flush()
        time.sleep(random.uniform(0, 0.05))
        self._file.write(line[len(line) // 2 :])

    def __getattr__(self, name):
        return getattr(self._file, name)

plainly = io.open

def opened(path, mode="r", *arguments, **settings):
    file = plainly(path, mode, *arguments, **settings)
    return Halves(file) if mode == "ab" and str(path).endswith("events.jsonl") else file

os.fsync, os.replace, io.open = late(os.fsync), late(os.replace), opened
"""

Process = subprocess.Popen[bytes]
# Does something to a process or its terminal; the exit codes that may come of it, 0 where it was at its end already.
Blow = Callable[[Process, Terminal, Random], set[int]]


def kills(folder: Path, rng: Random, count: int) -> Iterator[Tally]:
    """SIGKILL at random moments."""

    yield _chains(folder, rng, count, "SIGKILL", _kill)


def slow(folder: Path, rng: Random, count: int) -> Iterator[Tally]:
    """SIGKILL at random moments of runs on a slow disk, so that many of them are in a write."""
    disk = folder / "disk"
    disk.mkdir()
    (disk / "sitecustomize.py").write_text(SLOW_DISK)
    yield _chains(folder, rng, count, "SIGKILL on a slow disk", _kill, {"PYTHONPATH": str(disk)})


def signals(folder: Path, rng: Random, count: int) -> Iterator[Tally]:
    """Signals that ask, once and twice, and a closed terminal."""

    def ask(number: int, times: int) -> Blow:
        def blow(process: Process, terminal: Terminal, rng: Random) -> set[int]:
            for _ in range(times):
                if number == signal.SIGINT:
                    terminal.type(CTRL_C)
                else:
                    process.send_signal(number)
                time.sleep(rng.uniform(0, 0.5))
            # Python itself is ended by a signal that comes before the run listens.
            return {128 + number, -number, 0}

        return blow

    def hang_up(process: Process, terminal: Terminal, rng: Random) -> set[int]:
        terminal.close()
        return {0, -signal.SIGHUP}

    blows = {
        "SIGTERM": ask(signal.SIGTERM, 1),
        "SIGTERM, and again": ask(signal.SIGTERM, 2),
        "Ctrl-C in a terminal": ask(signal.SIGINT, 1),
        "Ctrl-C, and again": ask(signal.SIGINT, 2),
        "the terminal closed (SIGHUP)": hang_up,
    }
    for what, blow in blows.items():
        yield _chains(folder / what, rng, max(1, count // len(blows)), what, blow)


def studies(folder: Path, rng: Random, count: int) -> Iterator[Tally]:
    """A study's own process, or that of its run, is killed."""
    tally = Tally("SIGKILL of a study or of the run that it waits for")
    small_recipe(folder)
    (folder / "probe.toml").write_text(PROBE.format(data=folder / "tiny.npz"))
    study = folder / "study.toml"
    study.write_text(STUDY.replace("train.steps = 2", "train.steps = 20"))
    number = 0
    while tally.tried < count:
        number += 1
        home = folder / f"study{number}"
        home.mkdir()
        arguments = ["run", study, "scale=cpu", "--name", "study"]
        for _ in range(20):
            process = _start(arguments, home)
            if _ended(process, rng.uniform(0, 30)):
                break
            children = _children(process.pid)
            tally.tried += 1
            if children and rng.random() < 0.5:
                end(children[0])
                _ended(process, 60)
            else:
                # What it was waiting for goes on without it.
                process.kill()
                process.wait()
            there = (home / "runs" / "study" / "recipe.toml").exists()
            arguments = ["resume", "study"] if there else arguments
        told = (home / "output.txt").read_text()
        run = RunFolder(home / "runs" / "study")
        if run.state() != "finished" or not (run.path / "report.md").is_file():
            tally.lost.append(f"the study is {run.state()}: {told[-500:]}")
    yield tally


def damage(folder: Path, rng: Random, count: int) -> Iterator[Tally]:
    """The newest checkpoint of a killed run loses its end, or has a bit turned."""
    tally = Tally("newest checkpoint cut off or with a bit turned")
    recipe = small_recipe(folder)
    whole = _whole(recipe)
    for number in range(count):
        name = f"run{number}"
        process = _start(["run", recipe, "--name", name], folder)
        run = RunFolder(folder / "runs" / name)
        while process.poll() is None and len(list(run.checkpoints.glob("step-*.npz"))) < 2:
            time.sleep(0.01)
        process.kill()
        process.wait()
        newest = max(run.checkpoints.glob("step-*.npz"))
        content = bytearray(newest.read_bytes())
        position = rng.randrange(len(content))
        if rng.random() < 0.5:
            content = content[:position]
        else:
            content[position] ^= 1 << rng.randrange(8)
        newest.write_bytes(content)
        tally.tried += 1
        result = run_cli("resume", name, cwd=folder)
        word = _differs(run, whole) if result.returncode == 0 else result.stdout[-500:]
        if word:
            tally.lost.append(f"{name}, byte {position} of {len(content)}: {word}")
    yield tally


def _kill(process: Process, terminal: Terminal, rng: Random) -> set[int]:
    process.kill()
    return {-signal.SIGKILL, 0}


def _chains(
    folder: Path, rng: Random, count: int, what: str, blow: Blow, environment: Mapping[str, str] | None = None
) -> Tally:
    """Runs that are dealt blows at random moments and go on each time, until they are finished."""
    folder.mkdir(exist_ok=True)
    recipe = small_recipe(folder)
    start = time.monotonic()
    whole = _whole(recipe, environment)
    usual = time.monotonic() - start
    tally, stages, lock = Tally(what), Counter[str](), threading.Lock()

    def chain(number: int) -> None:
        own, name = Random(f"{rng.random()}{number}"), f"run{number}"
        run, arguments = RunFolder(folder / "runs" / name), ["run", recipe, "--name", name]
        while True:
            terminal = Terminal()
            process = _start(arguments, folder, environment, terminal)
            if _ended(process, own.uniform(0, SOON * usual)):
                terminal.close()
                break
            stage = _stage(run)
            codes = blow(process, terminal, own)
            code = process.wait(120)
            terminal.close()
            with lock:
                tally.tried += 1
                stages[_write(run) or stage] += 1
            if code not in codes:
                with lock:
                    tally.lost.append(f"{name}, in {stage}: exit code {code}")
                return
            if code == 0:
                break
            arguments = ["resume", name] if run.recipe.exists() else arguments
        word = _differs(run, whole)
        if process.returncode or word:
            with lock:
                tally.lost.append(f"{name}: exit code {process.returncode}, {word}")

    number = 0
    with ThreadPoolExecutor(TOGETHER) as pool:
        while tally.tried < count:
            list(pool.map(chain, range(number, number + TOGETHER)))
            number += TOGETHER
    moments = ", ".join(f"{stage} {times}" for stage, times in stages.most_common())
    tally.note = f"{number} runs, each with the uninterrupted one's weights, events and exports; in {moments}"
    return tally


def small_recipe(folder: Path) -> Path:
    """A small run with every kind of probe that takes some ten seconds."""
    images, labels = upright_images(200)
    others, their_labels = upright_images(40, seed=1)
    np.savez(folder / "tiny.npz", x_train=images, y_train=labels, x_test=others, y_test=their_labels)
    recipe = folder / "tiny.toml"
    longer = TINY_RECIPE.replace("epochs = 3", "epochs = 20")
    recipe.write_text(longer.format(data=folder / "tiny.npz") + PROBES)
    return recipe


def _whole(recipe: Path, environment: Mapping[str, str] | None = None) -> RunFolder:
    result = run_cli("run", recipe, "--name", "whole", cwd=recipe.parent, **(environment or {}))
    assert result.returncode == 0, result.stdout + result.stderr
    return RunFolder(recipe.parent / "runs" / "whole")


def _start(
    arguments: list, folder: Path, environment: Mapping[str, str] | None = None, terminal: Terminal | None = None
) -> Process:
    if terminal:
        return terminal.start(command(*arguments), cwd=folder, env={**os.environ, **(environment or {})})
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            command(*arguments),
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


def _ended(process: Process, seconds: float) -> bool:
    """Whether a process ends within some seconds."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def end(pid: int) -> None:
    """Kill a process that may be gone already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _stage(run: RunFolder) -> str:
    """What a run is at, by its events."""
    tail = run.last_events()
    kinds = [event["kind"] for event in tail]
    if not kinds or "start" not in kinds:
        return "start"
    since = kinds[len(kinds) - kinds[::-1].index("start") :]
    if "probe" in since:
        return "probes"
    if "test" in since or run.export.exists():
        return "export and probes"
    return "training" if "step" in since else "tracing"


def _write(run: RunFolder) -> str:
    """What a run was writing when it ended, by what that left; empty where it was writing nothing."""
    left = [path.name for path in run.path.rglob(TEMPORARY)]
    if any(name.endswith(".npz") for name in left):
        return "a checkpoint's write"
    if any(name.endswith(".keras") for name in left):
        return "an export's write"
    if left:
        return "another file's write"
    torn = run.events_file.exists() and run.events_file.read_bytes()[-1:] not in (b"", b"\n")
    return "an event's write" if torn else ""


def _differs(run: RunFolder, whole: RunFolder) -> str:
    """In what a run that went on is unlike the one that was never interrupted; empty where it is not."""
    try:
        assert_same_end(run, whole)
    except (AssertionError, OSError, ValueError) as error:
        return f"another end: {error!s:.200}"
    for kind, key in (("step", "loss"), ("probe", "top1"), ("epoch", "accuracy")):
        ours, theirs = ([(e["step"], e[key]) for e in events_of(each, kind)] for each in (run, whole))
        if ours != theirs:
            return f"other {kind} events: {ours!s:.200}"
    if [e["outcome"] for e in events_of(run, "end")][-1:] != ["finished"]:
        return "no end"
    for path in whole.export.iterdir():
        ours = run.export / path.name
        if not ours.is_file() or (path.suffix == ".keras" and zipfile.ZipFile(ours).testzip()):
            return f"no whole {path.name}"
    if litter := [path.name for path in run.path.rglob(".*")]:
        return f"left over: {litter}"
    return ""
