"""Transfer to semantic segmentation, scored as in PASCAL VOC 2012 by mean intersection over union (IoU)."""

from typing import Any

import numpy as np

from rotnet_keras.config.transfer import SegmentationRecipe
from rotnet_keras.data import letterbox
from rotnet_keras.data.annotations import AnnotatedDataset, AnnotatedSplit, load_annotated
from rotnet_keras.data.batches import Spec
from rotnet_keras.engine import keras, tf
from rotnet_keras.evaluation.metrics import class_ious, mean_over_classes
from rotnet_keras.files import make_folder
from rotnet_keras.models.backbones.registry import freeze_up_to
from rotnet_keras.models.export import first_kernels, save_model
from rotnet_keras.models.fused_batch_norm import with_fused_batch_norm, with_stock_layers
from rotnet_keras.models.segmenters import VOID, Segmenter, deeplab, fcn, new_variables
from rotnet_keras.reports.figures import draw_filters
from rotnet_keras.tasks.voc.common import backbone_for, letterboxed_batches, scale_learning_rates
from rotnet_keras.tasks.voc.figures import SegmentationExample, draw_segmentations
from rotnet_keras.training.session import Session
from rotnet_keras.training.setup import record_data
from rotnet_keras.training.trainer import Trainer, configure_tensorflow

# The figure shows this many of the best and of the worst test images.
SHOWN_IMAGES = 4
# Class 0 of the masks.
BACKGROUND = "background"


def transfer_segmentation(session: Session) -> None:
    """Run a recipe of the kind `transfer` with the task `segmentation`."""
    recipe = session.recipe
    assert isinstance(recipe, SegmentationRecipe)
    strategy = configure_tensorflow(session, recipe)
    dataset = load_annotated(recipe.data, True, session.progress)
    side = recipe.canvas.side
    record_data(session, dataset, (side, side, 3), [BACKGROUND, *dataset.class_names])
    trainer = SegmenterTrainer(session, recipe, dataset, strategy)
    trainer.run()


def build_segmenter(recipe: SegmentationRecipe, dataset: AnnotatedDataset) -> Segmenter:
    """Build the segmenter that a recipe trains."""
    side = recipe.canvas.side
    backbone = backbone_for(recipe, side, dataset.train)
    classes = len(dataset.class_names) + 1
    if recipe.decoder == "deeplab":
        network = deeplab(backbone, recipe.tap, str(recipe.low), classes, side)
    else:
        network = fcn(backbone, recipe.tap, classes, side, recipe.dropout)
    network = with_fused_batch_norm(network, keras.config.dtype_policy().name, recipe.devices.sync_batch_norm)
    if recipe.pretrained and recipe.pretrained.frozen:
        freeze_up_to(network, recipe.pretrained.frozen)
    return Segmenter(network, recipe.seed)


def training_batches(recipe: SegmentationRecipe, split: AnnotatedSplit, **options: Any) -> tf.data.Dataset:
    """Return batches of letterboxed images (N, S, S, 3) uint8 and masks (N, S, S) uint8.

    Args:
        **options: `first`, `last` and `replicas` of `step_batches`.
    """
    side = recipe.canvas.side

    def make_arrays(chosen: list[tuple[int, letterbox.Placement]]) -> tuple[np.ndarray, np.ndarray]:
        images = [letterbox.letterbox_image(split.image(index), where, side) for index, where in chosen]
        masks = [letterbox.letterbox_mask(split.mask(index), where, side, VOID) for index, where in chosen]
        return np.stack(images), np.stack(masks)

    specs: list[Spec] = [((side, side, 3), tf.uint8), ((side, side), tf.uint8)]
    return letterboxed_batches(recipe, split, make_arrays, specs, **options)


class SegmenterTrainer(Trainer[AnnotatedDataset]):
    """Trains a segmenter."""

    progress_label = "training"
    recipe: SegmentationRecipe
    evaluation_model: Segmenter

    def __init__(
        self, session: Session, recipe: SegmentationRecipe, dataset: AnnotatedDataset, strategy: tf.distribute.Strategy
    ) -> None:
        super().__init__(
            session,
            recipe,
            dataset,
            strategy,
            lambda: build_segmenter(recipe, dataset),
            len(dataset.train),
            recipe.train.batch,
        )
        scale_learning_rates(self.model, recipe, new_variables(self.model.networks[0]))

    def batches(self, first: int, last: int) -> tf.data.Dataset:
        """Return batches of letterboxed images (N, S, S, 3) uint8 and masks (N, S, S) uint8."""
        options = {"first": first, "last": last, "replicas": self.replicas}
        return training_batches(self.recipe, self.dataset.train, **options)

    def evaluate(self, split: AnnotatedSplit, label: str = "") -> dict[str, Any]:
        """Return the loss on letterboxed images and the pixel accuracy and IoU on images in their original size.

        `score` is the mean IoU, `per_class` the IoU of each class and `confusion` the confusion matrix of pixels. On
        the test split, the best and the worst images are drawn.

        Args:
            split: the images to evaluate on.
            label: the label of the progress bar; given for the test split only.
        """
        side, model = self.recipe.canvas.side, self.evaluation_model
        classes = len(self.dataset.class_names) + 1
        counts = np.zeros((classes, classes), np.int64)
        losses, image_scores = [], []
        for index in range(len(split)):
            where = letterbox.fitted_placement(split.size(index), side, self.recipe.canvas.short)
            letterboxed = letterbox.letterbox_image(split.image(index), where, side)[None]
            letterboxed_mask = letterbox.letterbox_mask(split.mask(index), where, side, VOID)[None]
            logits = model.predict_on_batch(letterboxed)
            losses.append(float(model.loss(letterboxed_mask, logits)[0]))
            predicted = letterbox.unletterbox_mask(np.argmax(logits[0], axis=-1).astype(np.uint8), where)
            image_confusion = pixel_confusion(split.mask(index), predicted, classes)
            counts += image_confusion
            image_scores.append(mean_over_classes(class_ious(image_confusion)))
            if label:
                self.session.console.progress(label, index + 1, len(split))
            self.session.stop.check()
        if label:
            self._draw(split, image_scores)
        per_class = class_ious(counts)
        return {
            "loss": float(np.mean(losses)),
            "accuracy": float(np.trace(counts) / max(1, counts.sum())),
            "score": mean_over_classes(per_class),
            "per_class": per_class,
            "confusion": counts.tolist(),
        }

    def _draw(self, split: AnnotatedSplit, scores: list[float]) -> None:
        order = np.argsort(scores, kind="stable")
        side = self.recipe.canvas.side
        shown = []
        for index in dict.fromkeys([*order[::-1][:SHOWN_IMAGES], *order[:SHOWN_IMAGES]]):
            where = letterbox.fitted_placement(split.size(index), side, self.recipe.canvas.short)
            letterboxed = letterbox.letterbox_image(split.image(index), where, side)[None]
            predicted = np.argmax(self.evaluation_model.predict_on_batch(letterboxed)[0], axis=-1).astype(np.uint8)
            shown.append(
                SegmentationExample(
                    split.image(index),
                    split.mask(index),
                    letterbox.unletterbox_mask(predicted, where),
                    scores[index],
                )
            )
        folder = self.session.folder
        make_folder(folder.figures, folder.path)
        names = [BACKGROUND, *self.dataset.class_names]
        draw_segmentations(shown, names, folder.figures / "pictures.png", folder.path)

    def export(self) -> None:
        """Save the model, draw the filters of the first layer and evaluate on the test split."""
        folder = self.session.folder
        network = with_stock_layers(self.evaluation_model.network)
        inputs = keras.Input(network.input.shape[1:], name="pixels")
        probabilities = keras.layers.Softmax(name="probabilities")(network(inputs))
        save_model(keras.Model(inputs, probabilities, name="segmenter"), folder.export / "segmenter.keras", folder.path)
        make_folder(folder.figures, folder.path)
        draw_filters(first_kernels(network), folder.figures / "filters.png", folder.path)
        self.test("mean IoU on test")


def pixel_confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return the confusion matrix (K, K) of two masks (H, W): rows are true classes; void pixels are left out."""
    known = truth != VOID
    pairs = truth[known].astype(np.int64) * classes + predicted[known]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
