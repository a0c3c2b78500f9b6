"""How well a model of rotations separates images unlike those of its training: one class against the others."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rotnet_keras.config.sections import Augment
from rotnet_keras.data.batches import center_crop
from rotnet_keras.data.datasets import Dataset
from rotnet_keras.data.sources import class_numbers
from rotnet_keras.engine import keras
from rotnet_keras.evaluation.suitability.ambiguity import SMALLEST_PROBABILITY, log_probabilities_by_image
from rotnet_keras.models.rotation import rotate_batch
from rotnet_keras.models.rotnet import RotNet
from rotnet_keras.models.translation import DIRECTIONS, SHIFTS, TranslationRotNet, shift


def measure_novelty(
    dataset: Dataset,
    only: list[str],
    model: RotNet,
    augment: Augment,
    batch: int,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Any] | None:
    """Score all test images by how well their rotations are predicted, and compare the classes of the training.

    An image is unlike those of the training if the rotations of its copies are predicted badly. Its score is the mean
    over the copies of the probability of the right rotation (Golan and El-Yaniv, NeurIPS 2018; Hendrycks et al.,
    NeurIPS 2019), or of the logarithm of it. A model of rotations and translations is asked for both, of every copy
    that is shifted and rotated.

    Args:
        dataset: its labelled test images are scored.
        only: the names of the classes that the model was trained on.
        model: the trained rotation model.
        augment: crops of the evaluation.
        batch: images whose copies the model predicts at a time.
        progress: called after each batch.

    Returns:
        The fields of a `novelty` event: `classes`, those of the training; `images`, the number of test images; `known`,
        the number of these that are of these classes; and the areas under the ROC curves, `auroc` for probabilities and
        `auroc_log` for their logarithms: 1 if each image of other classes scores below all of these, 0.5 for chance.
        None if there are no labelled test images of both kinds.
    """
    from sklearn.metrics import roc_auc_score

    if dataset.test is None or dataset.test.labels is None:
        return None
    test = dataset.test.labelled()
    known = np.isin(test.required_labels(), class_numbers(only, dataset.class_names))
    if len(set(known.tolist())) < 2:
        return None
    parts, exported = [], model.exported() if isinstance(model, TranslationRotNet) else None
    for start in range(0, len(test), batch):
        images = test.images(np.arange(start, min(start + batch, len(test))))
        crops = center_crop(images, augment, test.values)
        if exported is not None:
            right = right_log_probabilities(exported, crops, model.angles, model.translation)
            parts.append(right.reshape(len(crops), -1))
        else:
            logits = np.asarray(model.predict_on_batch(rotate_batch(crops, model.angles)[0]), np.float32)
            logarithms = log_probabilities_by_image(np.asarray(keras.ops.softmax(logits)))
            parts.append(np.einsum("nii->ni", logarithms))
        progress("scoring test images", start + len(images), len(test))
    right = np.concatenate(parts)
    return {
        "classes": only,
        "images": len(test),
        "known": int(known.sum()),
        "auroc": float(roc_auc_score(known, np.exp(right).mean(axis=1))),
        "auroc_log": float(roc_auc_score(known, right.mean(axis=1))),
    }


def right_log_probabilities(model: keras.Model, images: np.ndarray, angles: Sequence[int], pixels: int) -> np.ndarray:
    """What a model thinks of the right answers for all shifted and rotated copies of images.

    Args:
        model: of `TranslationRotNet.exported`.
        images: (N, H, W, C).
        angles: the K angles that the model knows.
        pixels: the length of the shifts that it was trained with.

    Returns:
        (N, 9 K, 3) float64: the logarithms of the probabilities of the angle, the vertical and the horizontal direction
        of each copy.
    """
    count, found = len(images), []
    for vertical, horizontal in SHIFTS:
        copies, labels = rotate_batch(shift(images, pixels, vertical, horizontal), angles)
        probabilities = np.asarray(model.predict_on_batch(copies), np.float64)
        rows, first = np.arange(len(labels)), len(angles)
        columns = labels.numpy(), first + vertical, first + len(DIRECTIONS) + horizontal
        right = np.stack([probabilities[rows, column] for column in columns], axis=1)
        logarithms = np.log(np.maximum(right, SMALLEST_PROBABILITY))
        found.append(logarithms.reshape(len(angles), count, 3).transpose(1, 0, 2))
    return np.concatenate(found, axis=1)
