"""The run folder: its files, and the state that follows from them.

The process of the run is the only writer. Everybody else reads, and may drop a file called `stop`.
"""

import json
import os
import re
import secrets
import shlex
import shutil
import time
import tomllib
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rotnet_keras.errors import RunError
from rotnet_keras.runs import processes
from rotnet_keras.runs.events import (
    NEWEST_STEPS,
    STEP_START,
    TAIL_BYTES,
    Event,
    EventReader,
    parse_event,
    usual_pause,
)

# Grows when a run folder changes in a way that an older reader would misunderstand.
FORMAT = 1
# A run without a process is given this long to come up.
START_SECONDS = 60.0
# A run counts as stalled when it is silent for this many of its usual pauses between two step events.
STALL_PAUSES = 10
STALL_SECONDS = 120.0


def default_runs_dir() -> Path:
    """`ROTNET_RUNS_DIR`, else `runs` in the current folder."""
    return Path(os.environ.get("ROTNET_RUNS_DIR", "runs"))


class RunFolder:
    """Names of the files in a run folder, and what can be read from them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.recipe = path / "recipe.toml"
        self.facts_file = path / "run.json"
        self.events_file = path / "events.jsonl"
        self.log = path / "log.txt"
        self.stop_file = path / "stop"
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.figures = path / "figures"
        self.export = path / "export"
        self.backbone = path / "export" / "backbone.keras"

    def facts(self) -> dict[str, Any]:
        """What `run.json` says; empty before the run has started."""
        try:
            facts = json.loads(self.facts_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def settings(self) -> dict[str, Any]:
        """What `recipe.toml` says, unchecked; empty where it cannot be read."""
        try:
            return tomllib.loads(self.recipe.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def newer(self) -> bool:
        """Whether a newer version of this package wrote the folder, in a format that this one does not know."""
        return _number(self.facts().get("format"), FORMAT) > FORMAT

    def refuse_newer(self) -> None:
        """Keep this version's hands off a folder of a newer format.

        Raises:
            RunError: it is one.
        """
        if self.newer():
            raise RunError(
                f"{self.name} was written by a newer version of rotnet-keras: upgrade rotnet-keras to use it"
            )

    def queued(self) -> float | None:
        """The time since which the run waits in the queue; None if it does not."""
        facts = self.facts()
        return None if "pid" in facts or "queued" not in facts else _number(facts["queued"], 0.0)

    def events(self) -> list[Event]:
        """All events so far, without those after a checkpoint that the run went back to."""
        events: list[Event] = []
        for event in EventReader(self.events_file).new():
            if event["kind"] == "resume":
                events = [each for each in events if _stays(each, event)]
            events.append(event)
        return events

    def milestones(self) -> list[Event]:
        """The newest steps, and then all other events: enough for a verdict, however long the run."""
        steps: deque[bytes] = deque(maxlen=NEWEST_STEPS)
        others: list[Event] = []
        for line in EventReader(self.events_file).lines():
            if line.startswith(STEP_START):
                steps.append(line)
            elif event := parse_event(line):
                if event["kind"] == "resume":
                    steps = deque((step for step in steps if _stays(parse_event(step), event)), NEWEST_STEPS)
                    others = [each for each in others if _stays(each, event)]
                others.append(event)
        return [*filter(None, map(parse_event, steps)), *others]

    def tail(self) -> list[Event]:
        """The last events, from the file's last 64 KiB: enough for the state, however long the run."""
        try:
            size = self.events_file.stat().st_size
        except OSError:
            return []
        return list(EventReader(self.events_file, max(0, size - TAIL_BYTES)).new())

    def alive(self) -> bool:
        """Whether the process that `run.json` names is running on this machine."""
        facts = self.facts()
        if facts.get("host") != os.uname().nodename:
            return False
        return processes.runs(facts)

    def state(self, tail: list[Event] | None = None) -> str:
        """One of: queued, starting, running, stopping, stopped, finished, failed, killed, stalled."""
        facts = self.facts()
        tail = self.tail() if tail is None else tail
        if "pid" not in facts:
            if tail and tail[-1]["kind"] == "end":
                return str(tail[-1]["outcome"])  # Others' results, without their process.
            if "queued" in facts:
                return "queued"
            return "starting" if time.time() - _number(facts.get("created"), 0.0) < START_SECONDS else "killed"
        here = facts.get("host") == os.uname().nodename
        alive = here and processes.runs(facts)
        last = tail[-1] if tail else None
        if last and last["kind"] == "end":
            return str(last["outcome"])
        if here and not alive:
            return "killed"
        if last and _stalled(tail):
            return "stalled"
        if self.stop_file.exists():
            return "stopping"
        return "running" if any(e["kind"] in ("step", "probe", "epoch") for e in tail) else "starting"


def create_run(runs_dir: Path, name: str, recipe_toml: str, facts: Mapping[str, Any]) -> RunFolder:
    """Make a new run folder that holds its recipe and first facts; `name` gets a number where it is taken.

    Raises:
        RunError: the name is not a plain file name, or the folder cannot be written.
    """
    if not re.fullmatch(r"\w[\w.+-]{0,99}", name):
        raise RunError(f"{name!r} cannot name a run: use letters, digits, '-', '_', '+' and '.'")
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        # The recipe arrives with the folder, in one rename: no half-made run is ever seen.
        staging = runs_dir / f".new-{secrets.token_hex(4)}"
        staging.mkdir()
        (staging / "recipe.toml").write_text(recipe_toml, encoding="utf-8")
        (staging / "run.json").write_text(json.dumps({"format": FORMAT, **facts}, indent=2), encoding="utf-8")
        number = 1
        while True:
            target = runs_dir / (name if number == 1 else f"{name}-{number}")
            if not target.exists():
                try:
                    staging.rename(target)
                    return RunFolder(target)
                except OSError:
                    if not target.exists():
                        raise
            number += 1
    except OSError as error:
        raise RunError(f"{runs_dir}: cannot make a run folder here: {error.strerror}") from None


def find_run(name: str, runs_dir: Path) -> RunFolder:
    """The run of this name, or at this path.

    Raises:
        RunError: there is none; the message lists the nearest.
    """
    from rotnet_keras.config.finder import did_you_mean

    for path in (Path(name), runs_dir / name):
        if (path / "recipe.toml").is_file():
            return RunFolder(path.resolve())
    names = [run.name for run in list_runs(runs_dir)]
    raise RunError(f"no run called {name!r} in {runs_dir}{did_you_mean(name, names)}")


def list_runs(runs_dir: Path) -> list[RunFolder]:
    """The run folders in a folder, the oldest first."""
    try:
        paths = [p for p in runs_dir.iterdir() if not p.name.startswith(".")]
    except OSError:
        return []
    found = []
    for path in paths:
        # What is no run folder has no recipe, nor has one that is being deleted.
        with suppress(OSError):
            found.append(((path / "recipe.toml").stat().st_mtime, path.name, path))
    return [RunFolder(path) for _, _, path in sorted(found)]


def remove_run(run: RunFolder) -> None:
    """Delete a run folder. Readers see it whole or not at all: it is renamed before it is emptied."""
    going = run.path.with_name(f".gone-{secrets.token_hex(4)}")
    run.path.rename(going)
    shutil.rmtree(going)


def command_line(words: str, run: RunFolder) -> str:
    """The command that does something with a run, for messages: `resume` becomes `rotnet-keras resume NAME`."""
    return f"rotnet-keras {words} {run.name}{runs_dir_option(run.path.parent)}"


def runs_dir_option(runs_dir: Path) -> str:
    """The option ` --runs-dir X` of a command line, or nothing where X is the default."""
    if runs_dir.resolve() == default_runs_dir().resolve():
        return ""
    return f" --runs-dir {shlex.quote(str(runs_dir))}"


def _stays(event: Event | None, resume: Event) -> bool:
    """Whether an event is of the time before the checkpoint that the run went back to."""
    return event is not None and event.get("step", 0) <= resume.get("step", 0)


def _stalled(tail: list[Event]) -> bool:
    pause = usual_pause(tail)
    silence = time.time() - float(tail[-1]["time"])
    return tail[-1]["kind"] == "step" and pause > 0 and silence > max(STALL_SECONDS, STALL_PAUSES * pause)


def _number(value: Any, otherwise: float) -> float:
    return value if isinstance(value, (int, float)) else otherwise
