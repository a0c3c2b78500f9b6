"""How a network that tells turns sees single pictures: their turns, how sure they are, how unusual that makes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from rotnet_keras.config.loading import load_recipe
from rotnet_keras.config.schema import PretrainRecipe
from rotnet_keras.data.batches import centred
from rotnet_keras.data.datasets import load
from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import DataError
from rotnet_keras.evaluation.suitability.ambiguity import LEAST, logarithms, turn_probabilities
from rotnet_keras.inference.loading import BATCH, Progress, Viewer, batches, viewer
from rotnet_keras.models.export import load_backbone
from rotnet_keras.models.rotation import RIGHT_ANGLES, rotate_batch, rotated_size
from rotnet_keras.runs.folder import RunFolder

TEMPERATURES = np.geomspace(0.02, 20, 300)
# Images of a run's validation that calibrate it, at most.
CALIBRATED = 2000


@dataclass(frozen=True)
class Judge:
    """A network that tells turns.

    Attributes:
        model: from (N, T, T, C) pixels, 0 to 255, to (N, K) probabilities.
        angles: K, in degrees, counter-clockwise.
        viewer: shows it pictures of side S, of which turned copies have side T.
    """

    model: keras.Model
    angles: tuple[int, ...]
    viewer: Viewer

    def log_probabilities(self, pictures: np.ndarray) -> np.ndarray:
        """Of every copy of the pictures for every turn.

        Args:
            pictures: (N, S, S, C), 0 to 255.

        Returns:
            (N, K, K) float64: [n, i, j] is the logarithm of how probable the network finds it that picture n, turned by
            angle i, was turned by angle j.
        """
        starts = range(0, len(pictures), BATCH)
        return np.concatenate([self._of_batch(pictures[start : start + BATCH]) for start in starts])

    def _of_batch(self, pictures: np.ndarray) -> np.ndarray:
        copies, _ = rotate_batch(tf.constant(pictures, tf.float32), self.angles)
        return logarithms(np.asarray(self.model(copies, training=False)))


def judge(source: RunFolder | Path) -> Judge:
    """The network of a pretraining run, or of a `rotnet.keras` file that knows right angles.

    Raises:
        DataError: there is none, or it tells something else.
    """
    if isinstance(source, RunFolder):
        recipe = load_recipe(str(source.recipe))
        file = source.export / "rotnet.keras"
        if not isinstance(recipe, PretrainRecipe) or not file.is_file():
            raise DataError(f"{source.name} has no export/rotnet.keras: expected a finished pretraining")
        model, angles = load_backbone(file), tuple(recipe.rotation.angles)
    else:
        recipe, model, angles = None, load_backbone(source), RIGHT_ANGLES
    side, _, channels = model.input_shape[1:]
    if model.output_shape[1:] != (len(angles),):
        raise DataError(f"{source}: expected {len(angles)} probabilities, one for each turn, got {model.output_shape}")
    shown = viewer(recipe, side, channels)
    if rotated_size(shown.side, angles) != side:
        raise DataError(f"{source}: its network sees {side} pixels, which its recipe does not lead to")
    return Judge(model, angles, shown)


def unlikeliness(log_probabilities: np.ndarray) -> np.ndarray:
    """How badly the turns of pictures are recognised (Hendrycks et al., 2019): the mean cross-entropy of their copies.

    Args:
        log_probabilities: (N, K, K), see `Judge`.

    Returns:
        (N,) in nats, 0 for a picture that is surely recognised in every turn.
    """
    return -np.einsum("nii->ni", log_probabilities).mean(axis=1)


def turns_of(log_probabilities: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """How probable each turn of pictures is, by what is said of all their copies.

    Args:
        log_probabilities: (N, 4, 4) for right angles, see `Judge`.
        temperature: the larger, the less sure.

    Returns:
        (N, 4), their sum 1.
    """
    return turn_probabilities(log_probabilities, RIGHT_ANGLES, temperature)[1]


def fitted_temperature(log_probabilities: np.ndarray) -> float:
    """What makes the probabilities of turns as high as they are often right, by pictures known to be upright.

    Args:
        log_probabilities: (N, 4, 4), see `Judge`. Turning the pictures would only exchange their copies.
    """
    losses = [-np.log(turns_of(log_probabilities, t)[:, 0] + LEAST).mean() for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def temperature_of(run: RunFolder, judge: Judge) -> float:
    """The same by the validation images of a run.

    Raises:
        DataError: they are not there any more, or the run had none.
    """
    recipe = load_recipe(str(run.recipe))
    assert isinstance(recipe, PretrainRecipe)
    validation = load(recipe.data).validation
    if validation is None:
        raise DataError(f"{run.name} held no images out to calibrate with")
    every = -(-len(validation) // CALIBRATED)
    images = validation.images(np.arange(0, len(validation), every))
    return fitted_temperature(judge.log_probabilities(centred(images, recipe.augment)))


@dataclass(frozen=True)
class Seen:
    """Pictures that a network was shown.

    Attributes:
        files: N that could be read.
        log_probabilities: (N, K, K), see `Judge`.
        unreadable: the others, and why.
    """

    files: list[Path]
    log_probabilities: np.ndarray
    unreadable: list[tuple[Path, str]]


def see(
    judge: Judge,
    files: Sequence[Path],
    progress: Progress = lambda what, done, total: None,
    quarters: Mapping[Path, int] = MappingProxyType({}),
) -> Seen:
    """Show a network pictures.

    Args:
        quarters: turns by 90 degrees, counter-clockwise, that some are given first.
    """
    count = len(judge.angles)
    readable: list[Path] = []
    unreadable: list[tuple[Path, str]] = []
    parts = [np.zeros((0, count, count))]
    for batch in batches(judge.viewer, files, progress):
        readable += batch.files
        unreadable += batch.unreadable
        if batch.files:
            lying = [
                np.rot90(each, quarters.get(file, 0)) for file, each in zip(batch.files, batch.pictures, strict=True)
            ]
            parts.append(judge.log_probabilities(np.stack(lying)))
    return Seen(readable, np.concatenate(parts), unreadable)


@dataclass(frozen=True)
class Turn:
    """What a picture needs to be upright.

    Attributes:
        clockwise: 0, 90, 180 or 270 degrees.
        confidence: how probable it is that this is right, 0 to 1.
        sure: whether that is enough.
    """

    file: Path
    clockwise: int
    confidence: float
    sure: bool

    @property
    def needed(self) -> bool:
        """Whether the picture is surely not upright."""
        return self.sure and self.clockwise > 0


def needed_turns(seen: Seen, temperature: float, min_confidence: float) -> list[Turn]:
    """The turn of each picture that was seen."""
    found = []
    for file, each in zip(seen.files, turns_of(seen.log_probabilities, temperature), strict=True):
        confidence = round(float(each.max()), 4)
        found.append(Turn(file, 90 * int(each.argmax()), confidence, confidence >= min_confidence))
    return found
