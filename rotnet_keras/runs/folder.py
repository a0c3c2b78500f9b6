"""The run folder: its files, and the state that is derived from them.

The run's own process is the only writer. Others read, and ask it to stop by creating a file called `stop`.
"""

import math
import os
import stat
import time
from collections import deque
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rotnet_keras.errors import RunError
from rotnet_keras.files import has_file, read_json, read_toml, written_at
from rotnet_keras.runs import processes
from rotnet_keras.runs.cluster.jobs import JOB_FILE, Job, job_of
from rotnet_keras.runs.events import (
    KIND_PREFIX,
    NEWEST_STEPS,
    SIDE_KIND,
    SIDE_PREFIX,
    STEP_PREFIX,
    TAIL_BYTES,
    Event,
    EventReader,
    is_locked,
    lines_from_end,
    median_step_interval,
    parse_event,
)
from rotnet_keras.runs.values import MAX_FACTS_BYTES, known_facts, known_recipe_values, outcome_of

# Raised when the format of run folders changes in a way that older versions would misread.
FORMAT = 1
# A run without a process counts as starting for this long after it was created.
START_SECONDS = 60.0
# A run counts as stalled after this many of its own median step intervals without an event, and at least these seconds.
STALL_INTERVALS = 10
STALL_SECONDS = 120.0
# A run whose process cannot be seen from here counts as stalled after so many seconds in which it wrote nothing.
ELSEWHERE_SECONDS = 600.0
# What a process on another machine has written is seen here after so many seconds at the latest.
GONE_SECONDS = 60.0


def default_runs_dir() -> Path:
    """Return the folder that `ROTNET_RUNS_DIR` names, or `runs` in the current folder."""
    return Path(os.environ.get("ROTNET_RUNS_DIR", "runs"))


class RunFolder:
    """The files of a run, and what can be read from them.

    Nothing here needs Keras or TensorFlow, and nothing writes.

    Attributes:
        path: the folder.
        name: the name of the folder, which is the name of the run.
        recipe: `recipe.toml`, the resolved recipe.
        facts_file: `run.json`, what was fixed at the start.
        events_file: `events.jsonl`.
        log: `log.txt`, standard output and error.
        tags_file: `tags.jsonl`, tags and a note that people gave to the run.
        stop_file: a file whose presence asks the run to stop.
        job_file: `job.json`, which exists if the run was submitted to a cluster.
        checkpoints: folder of checkpoints.
        samples: folder of small images.
        figures: folder of figures for the report.
        export: folder of the exported `.keras` files.
        backbone: `export/backbone.keras`, which exists once the backbone is trained.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.recipe = path / "recipe.toml"
        self.facts_file = path / "run.json"
        self.events_file = path / "events.jsonl"
        self.log = path / "log.txt"
        self.tags_file = path / "tags.jsonl"
        self.stop_file = path / "stop"
        self.job_file = path / JOB_FILE
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.figures = path / "figures"
        self.export = path / "export"
        self.backbone = path / "export" / "backbone.keras"

    def facts(self) -> dict[str, Any]:
        """Return what `run.json` says, without values of a wrong type; empty if it is missing or unreadable."""
        try:
            facts = read_json(self.facts_file, MAX_FACTS_BYTES, self.path)
        except (OSError, ValueError):
            return {}
        return known_facts(facts)

    def recipe_values(self) -> dict[str, Any]:
        """Return what `recipe.toml` says, without values of a wrong type; empty if it is missing or unreadable."""
        return known_recipe_values(self.all_recipe_values())

    def all_recipe_values(self) -> dict[str, Any]:
        """Return what `recipe.toml` says, of any type; empty if it is missing or unreadable."""
        try:
            return read_toml(self.recipe, self.path)
        except (OSError, ValueError):
            return {}

    def has_newer_format(self) -> bool:
        """Return whether a newer version of rotnet-keras wrote the folder, in a format unknown to this version."""
        return _number(self.facts().get("format"), FORMAT) > FORMAT

    def require_known_format(self) -> None:
        """Refuse a folder whose format this version does not know.

        Raises:
            RunError: a newer version of rotnet-keras wrote the folder.
        """
        if self.has_newer_format():
            raise RunError(
                f"{self.name} was written by a newer version of rotnet-keras: upgrade rotnet-keras to use it"
            )

    def require_own_files(self) -> None:
        """Refuse a folder in which something is not a file or folder of its own: writing there could write elsewhere.

        Raises:
            RunError: it holds a link, a hard link, a pipe or a device, or a folder that may not be read.
        """

        def refuse(error: OSError) -> None:
            if isinstance(error, PermissionError):
                raise RunError(f"{error.filename} may not be read by this user, so that {self.name} cannot be used")

        for folder, folders, files in os.walk(self.path, onerror=refuse):
            for name in (*folders, *files):
                found = os.lstat(os.path.join(folder, name))  # noqa: PTH118 - a folder may hold many files
                mode = found.st_mode
                shared = stat.S_ISREG(mode) and found.st_nlink > 1
                if shared or not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                    what = "a link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
                    what = "a hard link, a file with another name elsewhere," if shared else what
                    raise RunError(
                        f"{Path(folder, name)} is {what}, and a run folder holds only files and folders of its own: "
                        "replace it by a copy of what it stands for, or delete it"
                    )

    def queued_since(self) -> float | None:
        """Return when the run was queued, in seconds since the epoch; None if it does not wait in the queue."""
        facts = self.facts()
        return None if "pid" in facts or "queued" not in facts else _number(facts["queued"], 0.0)

    def events(self) -> list[Event]:
        """Return all events, except those of steps that were repeated after the run resumed from a checkpoint."""
        events: list[Event] = []
        for event in EventReader(self.events_file).new_events():
            if event["kind"] == "resume":
                events = [each for each in events if _is_kept(each, event)]
            events.append(event)
        return events

    def thinned_events(self) -> list[Event]:
        """Return the last few step events, followed by all events of other kinds but `system`.

        This is enough for a verdict, and stays small however long the run is.
        """
        steps: deque[bytes] = deque(maxlen=NEWEST_STEPS)
        others: list[Event] = []
        for line in EventReader(self.events_file).new_lines():
            if line.startswith(STEP_PREFIX):
                steps.append(line)
            elif line.startswith(SIDE_PREFIX):
                continue
            elif event := parse_event(line):
                if event["kind"] == "resume":
                    steps = deque((step for step in steps if _is_kept(parse_event(step), event)), NEWEST_STEPS)
                    others = [each for each in others if _is_kept(each, event)]
                others.append(event)
        return [*filter(None, map(parse_event, steps)), *others]

    def last_events(self) -> list[Event]:
        """Return the events in the last 64 KiB of the file, at least one: enough for the state of any run.

        Those of the kind `system` are left out: they go on while a run hangs.
        """
        events: list[Event] = []
        read = 0
        for line in lines_from_end(self.events_file):
            if line.startswith(SIDE_PREFIX):
                continue
            if (event := parse_event(line)) and event["kind"] != SIDE_KIND:
                events.append(event)
            read += len(line) + 1
            if events and read >= TAIL_BYTES:
                break
        return events[::-1]

    def newest_events(self, kinds: Collection[str]) -> list[Event]:
        """Return the last event, and the newest ones of some kinds however far back they are, in the order of the file.

        These are the last step events, all probes of the step that was probed last, and one event of any other kind.
        Events of steps that were repeated after the run resumed from a checkpoint are left out.

        Args:
            kinds: what is looked for; the whole file is read if there is no event of one of them.
        """
        missing = {kind: NEWEST_STEPS if kind == "step" else 1 for kind in kinds}
        found: list[Event] = []
        probed: float | None = None
        resumed_at = math.inf
        for line in lines_from_end(self.events_file):
            if found and "step" not in missing and line.startswith(STEP_PREFIX):
                continue  # Of a long run these are nearly all lines.
            if line.startswith(SIDE_PREFIX):
                continue
            known = KIND_PREFIX.match(line)
            kind = known[1].decode() if known else ""
            if known and found and kind != "resume" and kind not in missing:
                continue  # Its JSON need not be parsed.
            event = parse_event(line)
            if event is None:
                continue
            kind, step = event["kind"], event.get("step", 0)
            if kind == SIDE_KIND:
                continue
            if kind == "resume":
                resumed_at = min(resumed_at, step)
            if step > resumed_at or (found and kind not in missing):
                continue
            if kind == "probe" and kind in missing:
                probed = step if probed is None else probed
                if step < probed:
                    del missing[kind]
                    continue
            elif kind in missing:
                missing[kind] -= 1
                if not missing[kind]:
                    del missing[kind]
            found.append(event)
            if not missing:
                break
        return found[::-1]

    def process(self) -> processes.Process:
        """Return what can be seen from here of the process that `run.json` names.

        `run.json` may be a copy, or name any process: one that runs here holds the lock of the events as well.
        """
        found = processes.find(self.facts())
        if found is processes.Process.RUNNING and not is_locked(self.events_file):
            return processes.Process.GONE
        return found

    def alive(self) -> bool:
        """Return whether the process that `run.json` names is running on this machine."""
        return self.process() is processes.Process.RUNNING

    def host(self) -> str:
        """Return the name of the host on which the run's process was started, for messages."""
        return str(self.facts().get("host") or "another machine")

    def job(self) -> Job | None:
        """Return the run's job on a cluster; None if it was not submitted to one."""
        return job_of(self.path)

    def silence(self) -> float:
        """Return the seconds since anything was written to the events or the log; infinite if there are none."""
        written = [-math.inf]
        for file in (self.events_file, self.log, self.facts_file):
            with suppress(OSError):
                written.append(file.stat().st_mtime)
        return time.time() - max(written)

    def state(self, process: processes.Process | None = None, tail: list[Event] | None = None) -> str:
        """Return one of: queued, pending, starting, running, stopping, stopped, finished, failed, killed, stalled.

        A process that cannot be seen from here counts as running as long as it writes. A run that is a job of a
        cluster is pending before its job begins, and again when the job has made room for another one.

        Args:
            process: what `process` returned before `tail` was read; a run that ends between the two has an end event.
            tail: what `last_events` returns; both are read when not given.
        """
        facts, job = self.facts(), self.job()
        if process is None or tail is None:
            process, tail = self.process(), self.last_events()
        if job and job.state == "pending" and process is not processes.Process.RUNNING and not _has_ended(tail):
            return "pending"
        if "pid" not in facts:
            if tail and tail[-1]["kind"] == "end":
                return outcome_of(tail[-1])  # Collected results, published without the facts of a process.
            if job:
                return _state_of_job(job, facts)
            if "queued" in facts:
                return "queued"
            return "starting" if time.time() - _number(facts.get("created"), 0.0) < START_SECONDS else "killed"
        last = tail[-1] if tail else None
        # A job that lives may go on with the run, on this machine or on another one.
        job_lives = job is not None and job.state in ("running", "ending")
        if last and last["kind"] == "end":
            if job and job_lives and outcome_of(last) == "stopped":
                recent = time.time() - _number(last["time"], 0.0) < START_SECONDS
                return "stopping" if recent or job.state == "ending" else "starting"
            return outcome_of(last)
        if process is processes.Process.GONE:
            # Another process may have resumed the run since its facts were read.
            now = self.facts()
            if not processes.same(now, facts):
                return self.state()
            return "stopping" if job_lives else "killed"
        if job and job.state == "gone" and process is processes.Process.ELSEWHERE and self.silence() > GONE_SECONDS:
            return "killed"
        if process is processes.Process.ELSEWHERE and self.silence() > ELSEWHERE_SECONDS:
            return "stalled"
        if last and _stalled(tail):
            return "stalled"
        if self.stop_file.exists():
            return "stopping"
        return "running" if any(e["kind"] in ("step", "probe", "epoch") for e in tail) else "starting"


def find_run(name: str, runs_dir: Path) -> RunFolder:
    """Find the run with this name, or at this path.

    Raises:
        RunError: there is none; the message suggests the nearest name.
    """
    from rotnet_keras.config.finder import did_you_mean

    for path in (Path(name), runs_dir / name):
        if has_file(path / "recipe.toml"):
            return RunFolder(path.resolve())
        if os.path.lexists(path / "recipe.toml"):
            raise RunError(f"{path} cannot be read as a run: its recipe.toml is a link, a pipe or a folder, not a file")
    names = [run.name for run in list_runs(runs_dir)]
    raise RunError(f"no run called {name!r} in {runs_dir}{did_you_mean(name, names)}")


def list_runs(runs_dir: Path, closed: list[Path] | None = None) -> list[RunFolder]:
    """Return the run folders in a folder, oldest first.

    Args:
        runs_dir: the folder.
        closed: receives the folders in it that may not be read.
    """
    try:
        paths = [p for p in runs_dir.iterdir() if not p.name.startswith(".")]
    except OSError:
        return []
    found = []
    for path, written in zip(paths, written_at([path / "recipe.toml" for path in paths]), strict=True):
        if isinstance(written, float):
            found.append((written, path.name, path))
        # A folder without a recipe is not a run, or is being deleted.
        elif closed is not None and not isinstance(written, FileNotFoundError | NotADirectoryError):
            closed.append(path)
    return [RunFolder(path) for _, _, path in sorted(found)]


def _is_kept(event: Event | None, resume: Event) -> bool:
    """Return whether an event precedes the checkpoint from which the run resumed."""
    return event is not None and event.get("step", 0) <= resume.get("step", 0)


def _has_ended(tail: list[Event]) -> bool:
    """Return whether a run has come to an end that a job does not go on from."""
    return bool(tail) and tail[-1]["kind"] == "end" and outcome_of(tail[-1]) != "stopped"


def _state_of_job(job: Job, facts: Mapping[str, Any]) -> str:
    """Return the state of a run that has no process yet, by its job."""
    if job.cancelled:
        return "stopped"
    if job.state in ("pending", "unknown"):
        return "pending"
    young = time.time() - _number(facts.get("created"), 0.0) < START_SECONDS
    return "starting" if job.state == "running" or young else "killed"


def _stalled(tail: list[Event]) -> bool:
    interval = median_step_interval(tail)
    silence = time.time() - float(tail[-1]["time"])
    return tail[-1]["kind"] == "step" and interval > 0 and silence > max(STALL_SECONDS, STALL_INTERVALS * interval)


def _number(value: Any, default: float) -> float:
    return value if isinstance(value, (int, float)) else default
