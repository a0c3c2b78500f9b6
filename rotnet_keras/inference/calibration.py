"""Calibration of probabilities by a temperature, fitted on validation images (Guo et al., 2017)."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from rotnet_keras.config.sections import Augment
from rotnet_keras.data.stores import Split
from rotnet_keras.errors import DataError
from rotnet_keras.evaluation.suitability.ambiguity import SMALLEST_PROBABILITY
from rotnet_keras.runs.exports.classifier_card import ClassifierCard

# Temperatures that calibration tries. Where every image is predicted correctly the likelihood has no maximum, and the
# lower bound decides.
TEMPERATURES = np.geomspace(0.5, 20, 300)
# Images that calibration needs, and uses at most. Of fewer, all may be predicted correctly by chance.
MIN_CALIBRATION_IMAGES, MAX_CALIBRATION_IMAGES = 100, 2000
# Images that a classifier is given at once.
BATCH = 64


def best_temperature(loss: Callable[[float], float], images: int) -> float:
    """The temperature with the lowest loss, from 0.5 to 20.

    Args:
        loss: of a temperature, for example the mean negative log-likelihood of the true classes.
        images: that the loss is computed on.

    Raises:
        DataError: there are fewer than 100 images.
    """
    if images < MIN_CALIBRATION_IMAGES:
        raise DataError(f"{images} images are too few to calibrate with: expected {MIN_CALIBRATION_IMAGES} or more")
    return float(TEMPERATURES[int(np.argmin([loss(float(each)) for each in TEMPERATURES]))])


def at_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities whose logarithms are divided by a temperature: (N, K) to (N, K), rows that sum to 1.

    Args:
        probabilities: (N, K), 0 to 1.
        temperature: above 1 it lowers the confidence; the order of the classes stays.
    """
    scaled = np.log(np.asarray(probabilities, np.float64) + SMALLEST_PROBABILITY) / temperature
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    result: np.ndarray = scaled / scaled.sum(axis=1, keepdims=True)
    return result


def fit_class_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature at which the true classes have the highest likelihood.

    Args:
        probabilities: (N, K) of validation images.
        labels: (N,) indices of their classes.

    Raises:
        DataError: there are fewer than 100 images.
    """
    rows = np.arange(len(labels))

    def loss(temperature: float) -> float:
        return float(-np.log(at_temperature(probabilities, temperature)[rows, labels] + SMALLEST_PROBABILITY).mean())

    return best_temperature(loss, len(labels))


def describe_classifier(
    model: Any,
    classes: list[str],
    validation: Split | None,
    augment: Augment,
    image_shape: tuple[int, int, int],
    exclusive: bool = True,
    fit: Literal["crop", "stretch", "letterbox"] = "crop",
) -> ClassifierCard:
    """The card of a classifier that was just trained, with the temperature that fits its validation images.

    Args:
        model: the exported Keras model, from pixels (N, H, W, C) to probabilities (N, K).
        classes: K names, in the order of the outputs.
        validation: labelled images that it was not trained on; None if there are none.
        augment: how its images were cropped.
        image_shape: (H, W, C) of the images before the crop.
        exclusive: whether an image has exactly one class; others are not calibrated.
        fit: how images are brought to their shape, as of a recipe.
    """
    from rotnet_keras.data.batches import center_crop, crop_shape

    side = crop_shape(augment, image_shape)
    size = max(image_shape[0], side[0]), max(image_shape[1], side[1])
    validation = validation and validation.labelled()
    temperature, why, used = None, "", 0
    if not exclusive:
        why = "an image can have several classes"
    elif validation is None or not len(validation):
        why = "its run had no validation images"
    else:
        positions = np.arange(0, len(validation), -(-len(validation) // MAX_CALIBRATION_IMAGES))
        used = len(positions)
        batches = np.array_split(positions, -(-used // BATCH))
        crops = (center_crop(validation.images(batch), augment, validation.values) for batch in batches)
        parts = [np.asarray(model(images, training=False)) for images in crops]
        try:
            temperature = fit_class_temperature(np.concatenate(parts), validation.required_labels()[positions])
        except DataError as error:
            why, used = str(error), 0
    resized, cropped = (shape[0] if shape[0] == shape[1] else list(shape) for shape in (size, side))
    return ClassifierCard(classes, temperature, why, used, resized, cropped, fit)
