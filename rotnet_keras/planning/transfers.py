"""What a transfer trains, on what, and how its pictures are looked at, whatever its task: for plans of one."""

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
from rotnet_keras.data.batches import training_images
from rotnet_keras.data.datasets import Dataset
from rotnet_keras.data.sources import find_annotated
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


def load_transfer_data(recipe: TransferRecipe) -> tuple[Dataset | AnnotatedDataset, bool]:
    """The pictures, or noise where they are not there, and whether they are; for classification with labels.

    Raises:
        DataError: they are not there, and nothing is known of them.
    """
    there = True
    try:
        find_annotated(recipe.data)
    except DataError:
        if not has_published_sizes(recipe.data):
            raise
        there = False
    if there:
        annotated = load_annotated(recipe.data, isinstance(recipe, SegmentationRecipe))
    else:
        annotated = placeholder_voc(recipe.data)
    return as_multi_label(annotated) if isinstance(recipe, ClassificationRecipe) else annotated, there


def build_transfer_model(recipe: TransferRecipe, dataset: Any) -> TrainingModel:
    """What is trained, but for other values of weights where the recipe rescales them, which takes a while."""
    recipe = recipe.model_copy(update={"rescale": False})
    if isinstance(recipe, ClassificationRecipe):
        return build_classifier(recipe, dataset, starting_backbone(recipe, dataset))
    if isinstance(recipe, DetectionRecipe):
        return build_detector(recipe, dataset)
    assert isinstance(recipe, SegmentationRecipe)
    return build_segmenter(recipe, dataset)


def transfer_batches(recipe: TransferRecipe, dataset: Any, last: int) -> tf.data.Dataset:
    """What is trained on in the first steps."""
    steps: dict[str, Any] = {"first": 0, "last": last}
    if isinstance(recipe, ClassificationRecipe):
        steps |= {"batch": recipe.train.batch, "seed": recipe.seed, "labelled": True}
        return training_images(dataset.train, recipe.augment, **steps)
    if isinstance(recipe, DetectionRecipe):
        return detection_batches(recipe, dataset.train, **steps)
    assert isinstance(recipe, SegmentationRecipe)
    return segmentation_batches(recipe, dataset.train, **steps)


def passes_per_image(recipe: TransferRecipe) -> tuple[int, int]:
    """How often a picture is shown to the network in validation and in the test."""
    if isinstance(recipe, ClassificationRecipe):
        return 2, 2 + recipe.views
    return (2, 2) if isinstance(recipe, DetectionRecipe) else (1, 1)


def evaluate_one_image(recipe: CanvasRecipe, dataset: AnnotatedDataset, model: TrainingModel) -> None:
    """Do with a picture what validation and test do."""
    side, split = recipe.canvas.side, dataset.train
    where = letterbox.fitted(split.size(0), side)
    if isinstance(model, Detector):
        pixels, objects = letterboxed_batch(split, [(0, where)], side, model.objects)
        model.loss_and_accuracy(pixels, objects)
        model.inference_model.predict_on_batch(pixels)
    else:
        model.predict_on_batch(letterbox.lay(split.picture(0), where, side)[None])
