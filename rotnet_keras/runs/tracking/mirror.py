"""Mirrors a run folder to a tracker: what is new in its events, and at its end the report and the exported models."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from rotnet_keras.errors import RunError
from rotnet_keras.files import has_file, make_folder, open_to_append, read_json, write_atomically
from rotnet_keras.runs.events import SIDE_KIND, Event, EventReader, lock
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.processes import Process
from rotnet_keras.runs.tracking.trackers import TRACKERS, Point, Tracker
from rotnet_keras.runs.tracking.values import metrics
from rotnet_keras.runs.values import outcome_of

FOLDER = "tracking"
# Events that are sent at once, and the size of a file that says how far a mirror has come.
MOST_EVENTS, MAX_STATE_BYTES = 500, 1 << 16
# Between two looks at the events of a run, and between two tries to become its only mirror.
POLL_SECONDS, RETRY_SECONDS = 2.0, 0.5
# What is attached in the end, beside everything in `figures` and `export`.
ATTACHED = ("recipe.toml", "run.json", "report.html", "report.md")


class Mirror:
    """One run in one tracker. `tracking/NAME.json` in the run folder says which tracked run that is, and how far it is.

    A tracker at another place than before gets the run from its start.

    Args:
        run: the run folder.
        name: of the tracker.
        tracker: an open connection.
    """

    def __init__(self, run: RunFolder, name: str, tracker: Tracker) -> None:
        self.run, self._tracker = run, tracker
        self._file = run.path / FOLDER / f"{name}.json"
        self._state: dict[str, Any] = {}
        self._reader = EventReader(run.events_file)
        self._last: Event | None = None
        self._title = TRACKERS[name].title

    def begin(self) -> str:
        """Create the tracked run, or go on with it; return a sentence that says where it is."""
        known = self._known_state()
        at = self._tracker.place  # Not known of every tracker before it has begun.
        if known.get("at", at) != at:
            known = {}
        self._state = {
            "run": known.get("run"),
            "at": at,
            "offset": known.get("offset", 0),
            "step": known.get("step", 0),
        }
        self._reader.offset = self._state["offset"]
        before = self._state["run"]
        self._state["run"] = self._tracker.begin(before, self.run.name, self.run.all_recipe_values())
        self._save()
        how = "goes on in" if before else "mirrored to"
        return f"{self._title}: {how} run {self._state['run']} at {self._tracker.place}"

    def send_new(self) -> bool:
        """Send what is new in the events, and return whether there may be more already."""
        events = list(islice(self._reader.new_events(), MOST_EVENTS))
        points = []
        for event in events:
            self._state["step"] = event.get("step", self._state["step"])
            if found := metrics(event):
                points.append(Point(int(self._state["step"]), event["time"], found))
        if points:
            self._tracker.log(points)
        self._last = next((event for event in reversed(events) if event["kind"] != SIDE_KIND), self._last)
        if events:
            self._state["offset"] = self._reader.offset
            self._save()
        return len(events) == MOST_EVENTS

    def send_all(
        self, watched: Callable[[], AbstractContextManager[None]] = nullcontext, sent: Callable[[], None] = lambda: None
    ) -> None:
        """Send what is new in the events until the run has ended.

        Args:
            watched: entered around the calls of the tracker.
            sent: called whenever the tracker has all events so far.
        """
        while True:
            gone = self.run.process() is Process.GONE
            with watched():
                while self.send_new():
                    pass
            sent()
            if self.end_event() or gone:
                return
            time.sleep(POLL_SECONDS)

    def end_event(self) -> Event | None:
        """The end event if it is the last one that was sent, so that the run has ended and was not resumed."""
        if self._last is None:  # Everything had been sent before.
            self._last = next(iter(self.run.last_events()[-1:]), None)
        return self._last if self._last and self._last["kind"] == "end" else None

    def end(self) -> str:
        """Attach report and exported models, close the tracked run, and return a sentence about it."""
        event = self.end_event()
        files = [(self.run.path / name, "") for name in ATTACHED]
        for folder in (self.run.figures, self.run.export):
            files += [(file, folder.name) for file in sorted(folder.glob("[!.]*"))]
        self._tracker.attach([(file, folder) for file, folder in files if has_file(file)])
        outcome = outcome_of(event) if event else "killed"
        self._tracker.end(outcome, int(event.get("exit_code", 1)) if event else 137)
        return f"{self._title}: has everything of {self.run.name}, which is {outcome}."

    def _known_state(self) -> dict[str, Any]:
        try:
            state = read_json(self._file, MAX_STATE_BYTES, self.run.path)
        except (OSError, ValueError):
            return {}
        known = state if isinstance(state, dict) and isinstance(state.get("run"), str) else {}
        if not all(isinstance(known.get(key, 0), int) for key in ("offset", "step")):
            return {}
        return known

    def _save(self) -> None:
        write_atomically(self._file, json.dumps(self._state).encode(), self.run.path)


def log_of(run: RunFolder, name: str) -> Path:
    """The file that keeps what a tracker's package prints while the run goes on."""
    return run.path / FOLDER / f"{name}.log"


@contextmanager
def only_mirror(run: RunFolder, name: str, wait: float = 0.0) -> Iterator[None]:
    """Keep a second process from mirroring a run to the same tracker for the block.

    Args:
        run: the run folder.
        name: of the tracker.
        wait: seconds to wait for another process that does.

    Raises:
        RunError: one does, or the run folder cannot be written.
    """
    try:
        make_folder(run.path / FOLDER, run.path)
        file = open_to_append(log_of(run, name), run.path)
    except OSError as error:
        raise RunError(f"{run.path / FOLDER} cannot be written: {error.strerror or error}") from None
    until = time.monotonic() + wait
    with file:
        while True:
            try:
                lock(file, log_of(run, name))
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise RunError(f"another process mirrors {run.name} to {TRACKERS[name].title}") from None
                time.sleep(RETRY_SECONDS)
        yield
