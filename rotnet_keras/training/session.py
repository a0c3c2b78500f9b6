"""One process's work on one run folder: what it reads, where it writes, how it is stopped."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rotnet_keras.config.schema import Recipe, RunRecipe
from rotnet_keras.files import write_atomically
from rotnet_keras.runs.events import Event, EventWriter
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.training.cluster import training_process
from rotnet_keras.training.console import Console
from rotnet_keras.training.stopping import Stop


class Session:
    """What the stages of a run share.

    Attributes:
        folder: the run folder.
        recipe: its resolved recipe.
        place: this process's among those that train together.
        earlier: the events that former processes of this run left.
    """

    def __init__(self, folder: RunFolder, recipe: Recipe, events: EventWriter, console: Console, stop: Stop) -> None:
        self.folder = folder
        self.recipe = recipe
        self.process = training_process(recipe)
        self.earlier: list[Event] = folder.events()
        self.console = console
        self.stop = stop
        self._events = events

    @property
    def seed(self) -> int:
        """The recipe's."""
        assert isinstance(self.recipe, RunRecipe)
        return self.recipe.seed

    def event(self, kind: str, **values: Any) -> None:
        """Append an event to `events.jsonl`."""
        self._events.write(kind, **values)

    def record(self, **facts: Any) -> None:
        """Add facts to `run.json`; one that is None is taken out."""
        known = {key: value for key, value in (self.folder.facts() | facts).items() if value is not None}
        write_atomically(self.folder.facts_file, json.dumps(known, indent=2).encode())

    def say(self, text: str) -> None:
        """Tell the user."""
        self.console.line(text)

    def warn(self, text: str) -> None:
        """Tell the user, and keep it among the events."""
        self.event("warning", message=text)
        self.console.line(f"Warning: {text}")

    def progress(self, what: str, done: int, total: int, text: str = "") -> None:
        """Show how far long work has come.

        Raises:
            RunStopped: a stop was asked for.
        """
        self.console.progress(what, done, total, text)
        self.stop.check()

    @contextmanager
    def timed(self) -> Iterator[dict[str, float]]:
        """A dictionary whose "seconds" holds, after the block, how long it took."""
        took: dict[str, float] = {}
        start = time.perf_counter()
        yield took
        took["seconds"] = round(time.perf_counter() - start, 2)
