"""The sample of validation images of a run, read from the files that its `projection` events name."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from rotnet_keras.reports.projections import Projection, read_attention, read_projection
from rotnet_keras.reports.samples import read_strip
from rotnet_keras.runs.events import Event
from rotnet_keras.runs.folder import RunFolder
from rotnet_tui.state.history import History
from rotnet_tui.state.reading import Kept

# Files that are kept after they have been read: those of the epochs that people go through.
KEPT = 64
# What damaged files raise.
UNREADABLE = (OSError, ValueError, SyntaxError)

T = TypeVar("T")


class Sample:
    """The sample of a run, as far as `fetch` has read it. What is missing or damaged is None."""

    def __init__(self, run: RunFolder) -> None:
        self._folder = run.samples
        self._projections: Kept[Projection] = Kept(KEPT)
        self._attention: Kept[np.ndarray] = Kept(KEPT)
        self._strips: Kept[Image.Image] = Kept(KEPT)

    def fetch(self, event: Event) -> None:
        """Read the files of an epoch that have not been read, or could not be. This waits for the disk."""
        projection = self._projections.read(_key(event, "file"), lambda: self._read(event["file"], read_projection))
        self._strips.read(event["images"], lambda: self._read(event["images"], read_strip))
        if projection is not None and "attention" in event:
            shape = len(projection.points), len(projection.angles)
            self._attention.read(
                _key(event, "attention"),
                lambda: self._read(event["attention"], lambda path: read_attention(path, *shape)),
            )

    def fetched(self, event: Event) -> bool:
        """Whether `fetch` has read the files of an epoch, or found that they cannot be read."""
        name = "attention" if self.projection(event) is not None and "attention" in event else "file"
        found = self._attention if name == "attention" else self._projections
        return _key(event, name) in found and event["images"] in self._strips

    def projection(self, event: Event) -> Projection | None:
        """What the model made of the images after an epoch."""
        return self._projections.get(_key(event, "file"))

    def image(self, event: Event, number: int) -> Image.Image | None:
        """An image of the sample, in RGB."""
        projection, strip = self.projection(event), self._strips.get(event["images"])
        if projection is None or strip is None or strip.width % len(projection.points):
            return None
        width = strip.width // len(projection.points)
        return strip.crop((number * width, 0, (number + 1) * width, strip.height)).convert("RGB")

    def attention(self, event: Event, number: int) -> np.ndarray | None:
        """The attention maps of an image: (K, h, w) from 0 to 1, a map for each angle."""
        projection = self.projection(event)
        if projection is None or "attention" not in event:
            return None
        maps = self._attention.get(_key(event, "attention"))
        shape = len(projection.points), len(projection.angles)
        return maps[number] / 255 if maps is not None and maps.shape[:2] == shape else None

    def _read(self, name: str, read: Callable[[Path], T]) -> T | None:
        try:
            return read(self._folder / name)
        except UNREADABLE:
            return None


def _key(event: Event, name: str) -> tuple[str, float]:
    """A run that was resumed writes files of the same names again."""
    return event[name], event["time"]


def rotated(image: Image.Image, angle: int, angles: Sequence[int]) -> Image.Image:
    """The image rotated counter-clockwise, as training rotates it.

    Where some of the angles are not right ones, it is the largest square without an empty corner at any of them.
    """
    turned = image.rotate(angle, Image.Resampling.NEAREST if angle % 90 == 0 else Image.Resampling.BILINEAR)
    if all(each % 90 == 0 for each in angles):
        return turned
    side = math.floor(min(image.size) / math.sqrt(2))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return turned.crop((left, top, left + side, top + side))


def predicted_angles(projection: Projection, number: int) -> list[int]:
    """The predicted angle of an image rotated by each angle."""
    return [projection.angles[int(np.argmax(row))] for row in projection.probabilities[number]]


def all_correct(projection: Projection) -> np.ndarray:
    """Whether the model predicts all rotations of an image: (N,) bool."""
    return (projection.probabilities.argmax(axis=2) == np.arange(len(projection.angles))).all(axis=1)


def missing_projection(history: History) -> str:
    """Why a run has no projection, in a line."""
    if history.run.recipe_values().get("kind") != "pretrain":
        return "Only pretraining projects a sample of images."
    if not history.epochs:
        return "No projection yet. It comes with the validation at the end of every epoch."
    if "validation" not in history.epochs[-1]:
        return "This run has no validation images to project."
    return "An earlier version of rotnet-keras made this run and wrote no projections."
