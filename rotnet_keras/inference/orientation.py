"""Which way is up in single images, as a rotation model predicts it, with calibrated confidences and anomaly scores.

Every image is rotated by each angle that the model knows, and the predictions for all copies are combined.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from rotnet_keras.config.loading import load_recipe
from rotnet_keras.config.schema import ClassifyRecipe, PretrainRecipe, Recipe
from rotnet_keras.data.batches import center_crop
from rotnet_keras.data.datasets import load
from rotnet_keras.data.stores import known_places
from rotnet_keras.data.values.ranges import known_range
from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import DataError
from rotnet_keras.evaluation.novelty import right_log_probabilities
from rotnet_keras.evaluation.suitability.ambiguity import (
    SMALLEST_PROBABILITY,
    log_probabilities_by_image,
    rotation_probabilities,
)
from rotnet_keras.inference.calibration import MAX_CALIBRATION_IMAGES, best_temperature
from rotnet_keras.inference.loading import BATCH, ImageLoader, Progress, image_loader, load_batches
from rotnet_keras.models.export import load_backbone
from rotnet_keras.models.rotation import RIGHT_ANGLES, rotate_batch, rotated_shape
from rotnet_keras.models.translation import TRANSFORMATIONS
from rotnet_keras.runs.exports.backbone_file import VALUES
from rotnet_keras.runs.folder import RunFolder

# The angles of a model for images that can only be upside down.
HALF_TURN = (0, 180)


@dataclass(frozen=True)
class OrientationModel:
    """A model that predicts by which angle an image is rotated.

    Attributes:
        model: Keras model from (N, T, U, C) pixels to (N, K) probabilities.
        angles: the K angles that it knows, in degrees, counter-clockwise.
        loader: reads image files as (H, W, C).
        classifier: of the same run, where it learned classes and rotations together: Keras model from (N, H, W, C)
            pixels to the probabilities (N, C) of C classes.
        mirrored: whether the training mirrored images at random, and the mirror image of each copy is among the copies.
            `predict` then averages over an image and its mirror image.
        transformations: of the same run, where it learned translations beside rotations: see
            `models.translation.TranslationRotNet.exported`.
        translation: pixels that this model's images are shifted by.
    """

    model: keras.Model
    angles: tuple[int, ...]
    loader: ImageLoader
    classifier: keras.Model | None = None
    mirrored: bool = False
    transformations: keras.Model | None = None
    translation: int = 0

    def log_probabilities(self, images: np.ndarray) -> np.ndarray:
        """Rotate images by every angle and predict the angle of each copy.

        Args:
            images: (N, H, W, C), as `loader` reads them.

        Returns:
            (N, K, K) float64, natural logarithms. Entry [n, i, j] belongs to the probability that image n, rotated by
            `angles[i]`, was rotated by `angles[j]`.
        """
        starts = range(0, len(images), BATCH)
        return np.concatenate([self._predict_batch(images[start : start + BATCH]) for start in starts])

    def averaged_log_probabilities(self, images: np.ndarray) -> np.ndarray:
        """As `log_probabilities`; of the mean probabilities of an image and its mirror image, if `mirrored`."""
        found = self.log_probabilities(images)
        if not self.mirrored:
            return found
        # The mirror image of an image rotated by an angle is the mirror image rotated by the opposite angle.
        opposite = [self.angles.index(-angle % 360) for angle in self.angles]
        mirrored = self.log_probabilities(images[:, :, ::-1])[:, opposite][:, :, opposite]
        return np.logaddexp(found, mirrored) - np.log(2)

    def _predict_batch(self, images: np.ndarray) -> np.ndarray:
        copies, _ = rotate_batch(tf.constant(images, tf.float32), self.angles)
        return log_probabilities_by_image(np.asarray(self.model(copies, training=False)))


def load_orientation_model(source: RunFolder | Path) -> OrientationModel:
    """Load the rotation model of a pretraining run or of a file.

    Args:
        source: the folder of a finished run that learned rotations, alone or beside classes (`[auxiliary]`), or a
            `rotnet.keras` file that predicts 0, 90, 180 and 270 degrees, or 0 and 180.

    Raises:
        DataError: there is no such model, or the file holds another kind of model.

    Example:
        ```python
        from pathlib import Path

        from rotnet_keras.inference.corrections import find_corrections
        from rotnet_keras.inference.orientation import load_orientation_model, predict
        from rotnet_keras.runs.zoo import find_pretrained

        model = load_orientation_model(find_pretrained("airbench4_photos"))
        predictions = predict(model, sorted(Path("photos").glob("*.jpg")))
        for correction in find_corrections(predictions, temperature=1.0).images:
            print(correction.file, correction.clockwise, correction.confidence)
        ```
    """
    classifier, transformations, translation = None, None, 0
    if isinstance(source, RunFolder):
        recipe = load_recipe(str(source.recipe))
        file, known = source.export / "rotnet.keras", _angles(recipe)
        if known is None or not file.is_file():
            raise DataError(f"{source.name} has no export/rotnet.keras: expected a finished pretraining run")
        model, angles = load_backbone(file), known
        if isinstance(recipe, ClassifyRecipe) and (source.export / "classifier.keras").is_file():
            classifier = load_backbone(source.export / "classifier.keras")
        if isinstance(recipe, PretrainRecipe) and recipe.rotation.translation:
            transformations = load_backbone(source.export / TRANSFORMATIONS)
            translation = recipe.rotation.translation
    else:
        recipe, model, angles = None, load_backbone(source), RIGHT_ANGLES
        if model.output_shape[1:] == (len(HALF_TURN),):
            angles = HALF_TURN
    height, width, channels = model.input_shape[1:]
    if model.output_shape[1:] != (len(angles),):
        raise DataError(
            f"{source}: expected {len(angles)} probabilities, one for each rotation, got an output of shape "
            f"{model.output_shape}: name a rotnet.keras file"
        )
    loader = image_loader(recipe, (height, width), channels, model.input.name == VALUES)
    given = rotated_shape(loader.shape, angles)
    if given != (height, width):
        raise DataError(
            f"{source}: the model takes images of {height} x {width} pixels, but its recipe gives "
            f"{given[0]} x {given[1]}"
        )
    flipped = isinstance(recipe, PretrainRecipe | ClassifyRecipe) and recipe.augment.flip
    mirrored = flipped and all(-angle % 360 in angles for angle in angles)
    return OrientationModel(model, angles, loader, classifier, mirrored, transformations, translation)


def _angles(recipe: Recipe) -> tuple[int, ...] | None:
    """Return the angles that the runs of a recipe learn to tell apart; None if they learn none."""
    if isinstance(recipe, PretrainRecipe):
        return tuple(recipe.rotation.angles)
    if isinstance(recipe, ClassifyRecipe) and recipe.auxiliary:
        return tuple(recipe.auxiliary.angles)
    return None


def anomaly_score(log_probabilities: np.ndarray) -> np.ndarray:
    """How badly the rotations of images are recognised: the mean cross-entropy over their copies.

    Images unlike those of the training have a high score (Hendrycks et al., 2019, "Using self-supervised learning can
    improve model robustness and uncertainty").

    Args:
        log_probabilities: (N, K, K), from `OrientationModel.log_probabilities` or `predict`.

    Returns:
        (N,) in nats; 0 for an image of which every rotation is recognised with certainty.
    """
    return -np.einsum("nii->ni", log_probabilities).mean(axis=1)


def joint_anomaly_score(log_probabilities: np.ndarray, class_probabilities: np.ndarray) -> np.ndarray:
    """The anomaly score of rotations and classes together, of a model that learned both (Hendrycks et al., 2019).

    It is the `anomaly_score` minus the divergence KL(uniform || p) of the class probabilities p, which is large where
    the classifier is sure.

    Args:
        log_probabilities: (N, K, K), from `OrientationModel.log_probabilities` or `predict`.
        class_probabilities: (N, C), from `predict`.

    Returns:
        (N,) in nats, of either sign; high for unusual images.
    """
    logarithms = np.log(np.maximum(class_probabilities.astype(np.float64), SMALLEST_PROBABILITY))
    divergence = -np.log(class_probabilities.shape[1]) - logarithms.mean(axis=1)
    return anomaly_score(log_probabilities) - divergence


def orientation_probabilities(log_probabilities: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """How probable it is that images are rotated by 0, 90, 180 or 270 degrees, from the predictions for all copies.

    Args:
        log_probabilities: (N, 4, 4), from a model that knows these four angles, or (N, 2, 2) from one that knows 0 and
            180 degrees: the other two get a probability of 0, then.
        temperature: divides the log-probabilities; above 1 it lowers the confidence.

    Returns:
        (N, 4), rows that sum to 1. Column k is a rotation by 90 k degrees, counter-clockwise.
    """
    if log_probabilities.shape[1] == len(HALF_TURN):
        both = rotation_probabilities(log_probabilities, HALF_TURN, temperature)[1]
        return np.stack([both[:, 0], np.zeros(len(both)), both[:, 1], np.zeros(len(both))], axis=1)
    return rotation_probabilities(log_probabilities, RIGHT_ANGLES, temperature)[1]


def fit_temperature(log_probabilities: np.ndarray) -> float:
    """The temperature at which upright images have the highest likelihood (Guo et al., 2017), from 0.5 to 20.

    Args:
        log_probabilities: (N, 4, 4) or (N, 2, 2) of images known to be upright. Rotating them first would only exchange
            their copies, and give the same temperature.

    Raises:
        DataError: there are fewer than 100 images.
    """

    def loss(temperature: float) -> float:
        upright = orientation_probabilities(log_probabilities, temperature)[:, 0]
        return float(-np.log(upright + SMALLEST_PROBABILITY).mean())

    return best_temperature(loss, len(log_probabilities))


def calibrate_temperature(run: RunFolder, model: OrientationModel) -> float:
    """The temperature that fits the validation images of a run.

    Args:
        run: a run that learned rotations.
        model: its model.

    Raises:
        DataError: the run's data are gone, or the run had no validation images, or too few.
    """
    recipe = load_recipe(str(run.recipe))
    assert isinstance(recipe, PretrainRecipe | ClassifyRecipe)
    validation = load(recipe.data, kept=known_places(run.facts()), values=known_range(run.facts())).validation
    if validation is None:
        raise DataError(f"{run.name} has no validation images to calibrate with")
    step = -(-len(validation) // MAX_CALIBRATION_IMAGES)
    images = validation.images(np.arange(0, len(validation), step))
    return fit_temperature(model.averaged_log_probabilities(center_crop(images, recipe.augment, validation.values)))


@dataclass(frozen=True)
class Predictions:
    """What a model predicts for some image files.

    Attributes:
        files: the N files that could be read.
        log_probabilities: (N, K, K), see `OrientationModel.averaged_log_probabilities`.
        unreadable: the files that could not be read, each with the reason.
        class_probabilities: (N, C), of a model that learned classes too; else None.
        shifted: (N, 9 K, 3), of a model that learned translations too, where they were asked for; else None. See
            `evaluation.novelty.right_log_probabilities`.
    """

    files: list[Path]
    log_probabilities: np.ndarray
    unreadable: list[tuple[Path, str]]
    class_probabilities: np.ndarray | None = None
    shifted: np.ndarray | None = None


def predict(
    model: OrientationModel,
    files: Sequence[Path],
    progress: Progress = lambda what, done, total: None,
    quarters: Mapping[Path, int] = MappingProxyType({}),
    shifts: bool = False,
) -> Predictions:
    """Predict the rotations of image files.

    Args:
        model: from `load_orientation_model`.
        files: images of any size.
        progress: called after each batch.
        quarters: how many times to rotate some of the files by 90 degrees, counter-clockwise, before the prediction.
        shifts: also predict the directions of shifted copies, of a model that learned translations. It takes
            several times as long.

    Returns:
        The predictions; files that cannot be read are listed in them and raise nothing.
    """
    count = len(model.angles)
    readable: list[Path] = []
    unreadable: list[tuple[Path, str]] = []
    parts = [np.zeros((0, count, count))]
    classes: list[np.ndarray] = []
    shifted: list[np.ndarray] = []
    for batch in load_batches(model.loader, files, progress):
        readable += batch.files
        unreadable += batch.unreadable
        if batch.files:
            rotated = [
                np.rot90(image, quarters.get(file, 0)) for file, image in zip(batch.files, batch.images, strict=True)
            ]
            images = np.stack(rotated)
            parts.append(model.averaged_log_probabilities(images))
            if model.classifier is not None:
                classes.append(np.asarray(model.classifier(images, training=False)))
            if shifts and model.transformations is not None:
                shifted.append(right_log_probabilities(model.transformations, images, model.angles, model.translation))
    return Predictions(readable, np.concatenate(parts), unreadable, _whole(classes), _whole(shifted))


def _whole(parts: list[np.ndarray]) -> np.ndarray | None:
    return np.concatenate(parts) if parts else None
