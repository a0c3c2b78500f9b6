"""The parts of `rotnet-keras bench`, their settings and their results.

Values are medians over rounds. Things that are compared alternate within one process, so that a machine that slows down
slows both.
"""

import importlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from rotnet_keras.config.finder import did_you_mean
from rotnet_keras.config.sections import Backbone, Train
from rotnet_keras.errors import RecipeError
from rotnet_keras.text import duration

# The modules of this package that can be measured, in the order in which they run.
PARTS = ("startup", "memory", "training", "data", "probes")
PRECISIONS = get_args(Train.model_fields["precision"].annotation)


@dataclass(frozen=True)
class Settings:
    """What is measured, and how.

    Attributes:
        backbone, blocks, width, batch, precision: as in a recipe.
        size: height and width of the images for training and probes, in pixels.
        rounds: how often each measurement is repeated.
        images: a folder of JPEG files; by default, generated ones.
        against: a command to compare with, whose last line of output is JSON with `rotated_images_per_s`.
        round_seconds: how long the part training trains in each round, about.
    """

    backbone: str = "nin"
    blocks: int | None = None
    width: float = 1.0
    size: int = 32
    batch: int = 128
    precision: str = "auto"
    rounds: int = 5
    images: str | None = None
    against: str | None = None
    round_seconds: float = 8.0

    @property
    def spec(self) -> Backbone:
        """Return the backbone as a recipe describes it."""
        return Backbone.model_validate({"name": self.backbone, "blocks": self.blocks, "width": self.width})


@dataclass(frozen=True)
class Measurement:
    """One measured quantity.

    Attributes:
        part: the part of the benchmark.
        name: what was measured.
        value: the median over the rounds.
        unit: the unit of the value, for example "images/s" or "%".
        values: the value of each round.
    """

    part: str
    name: str
    value: float
    unit: str
    values: list[float] = field(default_factory=list)


class Progress:
    """Prints what is known so far, a line for each value, with the time that the part still takes.

    Args:
        part: the part that is measured.
        rounds: the rounds that it measures.
        say: prints a line.
    """

    def __init__(self, part: str, rounds: int, say: Callable[[str], None]) -> None:
        self.part, self.rounds, self.say = part, rounds, say
        self._round, self._started = 0, 0.0

    def note(self, what: str) -> None:
        """Print what is done now, or what is known already."""
        self.say(f"{self.part}: {what}")

    def next_round(self) -> None:
        """Begin the next round; from the second on, print how long the remaining ones take."""
        now = time.perf_counter()
        self._started = self._started or now
        if self._round:
            left = (now - self._started) / self._round * (self.rounds - self._round)
            self.say(f"{self.part}: round {self._round} of {self.rounds} done, ETA {duration(left)}")
        self._round += 1

    def value(self, name: str, value: float, unit: str) -> float:
        """Print a value of this round, and return it."""
        self.say(f"{self.part}, round {self._round} of {self.rounds}: {name}, {value:.4g} {unit}")
        return value


def measurement(part: str, name: str, values: Sequence[float], unit: str, scale: float = 1.0) -> Measurement:
    """Make a measurement from the values of all rounds, times `scale`, rounded to four digits."""
    scaled = [float(f"{scale * value:.4g}") for value in values]
    return Measurement(part, name, float(f"{statistics.median(scaled):.4g}"), unit, scaled)


def chosen_parts(parts: Sequence[str] | None, settings: Settings) -> list[str]:
    """Return the requested parts, all by default, in the order in which they run.

    Raises:
        RecipeError: there is no such part or precision.
    """
    for what, given, known in (
        ("part", parts or [], PARTS),
        ("--precision", [settings.precision], PRECISIONS),
    ):
        for name in given:
            if name not in known:
                raise RecipeError(
                    f"{what}: expected one of {', '.join(known)}, got {name!r}{did_you_mean(name, known)}"
                )
    return [part for part in PARTS if not parts or part in parts]


def measure(parts: Sequence[str], settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    """Run some of `PARTS`.

    Args:
        parts: the parts to run.
        settings: what is measured, and how.
        say: called with a line before each part, and for each value as soon as it is known.

    Returns:
        The machine, the settings and the measurements, ready for JSON.
    """
    from rotnet_keras.planning.bench.machine import machine_facts

    found: list[Measurement] = []
    for part in parts:
        say(f"measuring {part} ...")
        progress = Progress(part, settings.rounds, say)
        found += importlib.import_module(f"rotnet_keras.planning.bench.{part}").measure(settings, progress)
    return {
        "machine": machine_facts(),
        "settings": asdict(settings),
        "measurements": [asdict(each) for each in found],
    }


def as_table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of a table with the median, unit and range of each measurement."""
    rows = []
    for one in found["measurements"]:
        low, high = min(one["values"]), max(one["values"])
        spread = f"{low:.4g} to {high:.4g}" if len(one["values"]) > 1 else ""
        rows.append([one["part"], one["name"], f"{one['value']:.4g}", one["unit"], spread])
    return ["part", "what", "median", "unit", "range"], rows
