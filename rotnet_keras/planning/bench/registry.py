"""What this machine makes of training, probes and data: `rotnet-keras bench`.

Nothing here is imported by what a run does. Rates are medians over rounds; whatever is compared takes turns
within one process, so that a machine that slows down slows both.
"""

import importlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from rotnet_keras.config.finder import did_you_mean
from rotnet_keras.config.sections import Backbone, Train
from rotnet_keras.errors import RecipeError

PARTS = ("startup", "memory", "training", "data", "probes")
PRECISIONS = get_args(Train.model_fields["precision"].annotation)


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        backbone, blocks, width, batch, precision: as in a recipe.
        size: side of the images for training and probes, in pixels.
        rounds: how often each measurement is repeated.
        images: a folder of JPEG files; pictures of our own making when not given.
        against: a command that prints a line of JSON with `rotated_images_per_s`, for comparison.
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

    @property
    def spec(self) -> Backbone:
        """The backbone as a recipe describes it."""
        return Backbone.model_validate({"name": self.backbone, "blocks": self.blocks, "width": self.width})


@dataclass(frozen=True)
class Measurement:
    """One number: the median of what was measured, and all of it.

    Attributes:
        unit: of the value, for example "images/s" or "%".
        values: one a round.
    """

    part: str
    name: str
    value: float
    unit: str
    values: list[float] = field(default_factory=list)


def measured(part: str, name: str, values: Sequence[float], unit: str, scale: float = 1.0) -> Measurement:
    """The median of some values, rounded to four digits."""
    scaled = [float(f"{scale * value:.4g}") for value in values]
    return Measurement(part, name, float(f"{statistics.median(scaled):.4g}"), unit, scaled)


def chosen_parts(parts: Sequence[str] | None, settings: Settings) -> list[str]:
    """The parts asked for, all by default, in the order in which they run.

    Raises:
        RecipeError: a part or the precision does not exist.
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


def measure(parts: Sequence[str], settings: Settings, tell: Callable[[str], None]) -> dict[str, Any]:
    """Run some of `PARTS`.

    Args:
        tell: hears what is measured next.

    Returns:
        The machine, the settings and the measurements, ready for JSON.
    """
    from rotnet_keras.planning.bench.machine import facts

    found: list[Measurement] = []
    for part in parts:
        tell(f"measuring {part} ...")
        found += importlib.import_module(f"rotnet_keras.planning.bench.{part}").measure(settings)
    return {
        "machine": facts(),
        "settings": asdict(settings),
        "measurements": [asdict(measurement) for measurement in found],
    }


def as_table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The measurements as a table: what, the median, its unit and the range."""
    rows = []
    for one in found["measurements"]:
        low, high = min(one["values"]), max(one["values"])
        spread = f"{low:.4g} to {high:.4g}" if len(one["values"]) > 1 else ""
        rows.append([one["part"], one["name"], f"{one['value']:.4g}", one["unit"], spread])
    return ["part", "what", "median", "unit", "range"], rows
