"""The session of a run: its folder, recipe, events, console and stop requests, as every task needs them."""

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
    """One process's work on one run folder, from start or resume to its end.

    Attributes:
        folder: the run folder.
        recipe: its resolved recipe.
        process: the rank of this process among those that train together.
        earlier: the events of the run before this session; empty at the first start.
        console: shows progress on the terminal and in `log.txt`.
        stop: knows whether a stop was requested.
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
        """The recipe's seed."""
        assert isinstance(self.recipe, RunRecipe)
        return self.recipe.seed

    def event(self, kind: str, **values: Any) -> None:
        """Append an event to `events.jsonl`."""
        self._events.write(kind, **values)

    def record(self, **facts: Any) -> None:
        """Add facts to `run.json`; a fact that is None is removed."""
        known = {key: value for key, value in (self.folder.facts() | facts).items() if value is not None}
        write_atomically(self.folder.facts_file, json.dumps(known, indent=2).encode(), self.folder.path)

    def say(self, text: str) -> None:
        """Print a line on the terminal and in `log.txt`."""
        self.console.line(text)

    def warn(self, text: str) -> None:
        """Print a warning, and write it as an event."""
        self.event("warning", message=text)
        self.console.line(f"Warning: {text}")

    def progress(self, label: str, done: int, total: int, text: str = "") -> None:
        """Update a progress bar.

        Args:
            label: the name of the bar; a new label starts a new bar.
            done: of `total`.
            total: where the bar ends.
            text: shown beside it.

        Raises:
            RunStopped: a stop was requested.
        """
        self.console.progress(label, done, total, text)
        self.stop.check()

    @contextmanager
    def timed(self) -> Iterator[dict[str, float]]:
        """A dictionary that has, after the block, the seconds it took under "seconds"."""
        took: dict[str, float] = {}
        start = time.perf_counter()
        yield took
        took["seconds"] = round(time.perf_counter() - start, 2)
