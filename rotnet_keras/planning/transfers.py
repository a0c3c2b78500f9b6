"""Data, models, batches and evaluation of a transfer, whatever its task, for estimates of its cost."""

from typing import Any

from rotnet_keras.config.transfer import (
    CanvasRecipe,
    ClassificationRecipe,
    DetectionRecipe,
    SegmentationRecipe,
    TransferRecipe,
)
from rotnet_keras.data import letterbox
from rotnet_keras.data.annotations import AnnotatedDataset, load_annotated
from rotnet_keras.data.batches import training_batches
from rotnet_keras.data.datasets import Dataset
from rotnet_keras.data.sources import find_annotated
from rotnet_keras.data.stores import Progress
from rotnet_keras.engine import tf
from rotnet_keras.errors import DataError
from rotnet_keras.models.base import TrainingModel
from rotnet_keras.models.detectors.base import Detector
from rotnet_keras.planning.published_voc import has_published_sizes, placeholder_voc
from rotnet_keras.tasks.finetune import build_classifier, starting_backbone
from rotnet_keras.tasks.voc.classification import as_multi_label
from rotnet_keras.tasks.voc.detection import build_detector, letterboxed_batch
from rotnet_keras.tasks.voc.detection import training_batches as detection_batches
from rotnet_keras.tasks.voc.segmentation import build_segmenter
from rotnet_keras.tasks.voc.segmentation import training_batches as segmentation_batches


def load_transfer_data(recipe: TransferRecipe, progress: Progress) -> tuple[Dataset | AnnotatedDataset, bool]:
    """Load the images of a transfer, or make a placeholder with random pixels if they are missing.

    Args:
        recipe: of the transfer.
        progress: called now and then while images are read.

    Returns:
        The data set, with labels if the task is classification, and whether the images are on this machine.

    Raises:
        DataError: the images are missing, and the size of this data set is unknown.
    """
    available = True
    try:
        find_annotated(recipe.data)
    except DataError:
        if not has_published_sizes(recipe.data):
            raise
        available = False
    if available:
        annotated = load_annotated(recipe.data, isinstance(recipe, SegmentationRecipe), progress)
    else:
        annotated = placeholder_voc(recipe.data)
    return as_multi_label(annotated) if isinstance(recipe, ClassificationRecipe) else annotated, available


def build_transfer_model(recipe: TransferRecipe, dataset: Any) -> TrainingModel:
    """Build the model that a transfer trains, without rescaling its weights, which is slow and changes no cost."""
    recipe = recipe.model_copy(update={"rescale": False})
    if isinstance(recipe, ClassificationRecipe):
        return build_classifier(recipe, dataset, starting_backbone(recipe, dataset))
    if isinstance(recipe, DetectionRecipe):
        return build_detector(recipe, dataset)
    assert isinstance(recipe, SegmentationRecipe)
    return build_segmenter(recipe, dataset)


def transfer_batches(recipe: TransferRecipe, dataset: Any, last: int) -> tf.data.Dataset:
    """Return the training batches of the steps before `last`."""
    steps: dict[str, Any] = {"first": 0, "last": last}
    if isinstance(recipe, ClassificationRecipe):
        steps |= {"batch": recipe.train.batch, "seed": recipe.seed, "labelled": True}
        return training_batches(dataset.train, recipe.augment, **steps)
    if isinstance(recipe, DetectionRecipe):
        return detection_batches(recipe, dataset.train, **steps)
    assert isinstance(recipe, SegmentationRecipe)
    return segmentation_batches(recipe, dataset.train, **steps)


def passes_per_image(recipe: TransferRecipe) -> tuple[int, int]:
    """Return how many forward passes an image takes in validation, and in the test."""
    if isinstance(recipe, ClassificationRecipe):
        return 2, 2 + recipe.views
    return (2, 2) if isinstance(recipe, DetectionRecipe) else (1, 1)


def evaluate_one_image(recipe: CanvasRecipe, dataset: AnnotatedDataset, model: TrainingModel) -> None:
    """Do the work of evaluation for the first training image."""
    side, split = recipe.canvas.side, dataset.train
    where = letterbox.fitted_placement(split.size(0), side)
    if isinstance(model, Detector):
        pixels, objects = letterboxed_batch(split, [(0, where)], side, model.objects, model.rows - model.objects)
        model.loss_and_accuracy(pixels, objects)
        model.inference_model.predict_on_batch(model.inference_inputs(pixels.astype("float32"), objects))
    else:
        model.predict_on_batch(letterbox.letterbox_image(split.image(0), where, side)[None])
