"""Transfer to object detection, scored as in PASCAL VOC 2007 and as in COCO."""

from typing import Any

import numpy as np

from rotnet_keras.config.transfer import DetectionRecipe
from rotnet_keras.data import letterbox
from rotnet_keras.data.annotations import AnnotatedDataset, AnnotatedSplit, load_annotated
from rotnet_keras.data.batches import Spec
from rotnet_keras.data.boxes import Boxes
from rotnet_keras.engine import tf
from rotnet_keras.evaluation.metrics import coco_average_precision, detection_average_precision, mean_over_classes
from rotnet_keras.files import make_folder
from rotnet_keras.models.backbones.registry import freeze_up_to
from rotnet_keras.models.detectors.base import NO_OBJECT, BatchNormMode, Detector
from rotnet_keras.models.detectors.fast_rcnn import FastRCNN
from rotnet_keras.models.detectors.faster_rcnn import FasterRCNN
from rotnet_keras.models.detectors.retinanet import RetinaNet
from rotnet_keras.models.export import first_kernels, save_model
from rotnet_keras.reports.figures import draw_filters
from rotnet_keras.tasks.voc.common import backbone_for, letterboxed_batches, scale_learning_rates
from rotnet_keras.tasks.voc.figures import DetectionExample, draw_detections
from rotnet_keras.tasks.voc.proposals import with_proposals
from rotnet_keras.training.session import Session
from rotnet_keras.training.setup import record_data
from rotnet_keras.training.trainer import Trainer, configure_tensorflow

# An object counts in a letterboxed image if at least this share of its area is inside.
MIN_VISIBLE_SHARE = 0.3
# The figure shows this many of the best and of the worst test images.
SHOWN_IMAGES = 4
# Boxes of a lower confidence are drawn only while an image has fewer boxes than objects.
DRAWN_CONFIDENCE = 0.5


def transfer_detection(session: Session) -> None:
    """Run a recipe of the kind `transfer` with the task `detection`."""
    recipe = session.recipe
    assert isinstance(recipe, DetectionRecipe)
    strategy = configure_tensorflow(session, recipe)
    dataset = load_annotated(recipe.data, False, session.progress)
    if recipe.most_proposals:
        dataset = with_proposals(dataset, recipe.most_proposals, session.progress)
    side = recipe.canvas.side
    record_data(session, dataset, (side, side, 3), dataset.class_names)
    trainer = DetectorTrainer(session, recipe, dataset, strategy)
    trainer.run()


def build_detector(recipe: DetectionRecipe, dataset: AnnotatedDataset) -> Detector:
    """Build the detector that a recipe trains.

    The batch normalisation of a pretrained backbone stays fixed, because batches have few images. A backbone with
    random weights trains its batch normalisation.
    """
    side, classes = recipe.canvas.side, len(dataset.class_names)
    backbone = backbone_for(recipe, side, dataset.train)
    scratch: BatchNormMode = "synchronized" if recipe.devices.sync_batch_norm else "trained"
    norm = "fixed" if recipe.pretrained else scratch
    options: Any = {"objects": max_objects_per_image(dataset.train), "seed": recipe.seed, "norm": norm}
    model: Detector
    if recipe.detector == "retinanet":
        model = RetinaNet(backbone, recipe.taps, classes, side, **options)
    else:
        after = recipe.after or recipe.taps[0]
        options["dropout"] = recipe.dropout
        if recipe.most_proposals:
            options["proposals"] = recipe.most_proposals
        region_detector = FastRCNN if recipe.most_proposals else FasterRCNN
        model = region_detector(backbone, recipe.taps[0], after, recipe.cells, classes, side, **options)
    if recipe.pretrained and recipe.pretrained.frozen:
        freeze_up_to(model.networks[0], recipe.pretrained.frozen)
    return model


def max_objects_per_image(split: AnnotatedSplit) -> int:
    """Return the largest number of objects in an image, at least 1."""
    assert split.objects is not None
    return max(1, *(len(objects.classes) for objects in split.objects))


def training_batches(recipe: DetectionRecipe, split: AnnotatedSplit, **options: Any) -> tf.data.Dataset:
    """Return batches of letterboxed images (N, S, S, 3) uint8 and their objects (N, M + R, 5) float32.

    M is the largest number of objects in an image, R that of proposals. See `letterboxed_batch` for the columns.

    Args:
        **options: `first`, `last` and `replicas` of `step_batches`.
    """
    side, most, proposals = recipe.canvas.side, max_objects_per_image(split), recipe.most_proposals
    specs: list[Spec] = [((side, side, 3), tf.uint8), ((most + proposals, 5), tf.float32)]
    return letterboxed_batches(
        recipe, split, lambda chosen: letterboxed_batch(split, chosen, side, most, proposals), specs, **options
    )


def letterboxed_batch(
    split: AnnotatedSplit, chosen: list[tuple[int, letterbox.Placement]], side: int, most: int, proposals: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Letterbox images with their objects and proposals.

    Difficult objects are left out: the benchmark ignores them.

    Args:
        split: the images and their objects.
        chosen: the index in the split and the placement of each image.
        side: S, height and width of the letterboxed images.
        most: M, the number of rows for objects.
        proposals: R, the number of rows for proposals, behind those for objects.

    Returns:
        Images (N, S, S, 3) uint8, and objects (N, M + R, 5) float32: top, left, bottom, right in pixels, and the class,
        which is `NO_OBJECT` in rows that no object fills.
    """
    pixels = np.stack([letterbox.letterbox_image(split.image(index), where, side) for index, where in chosen])
    targets = np.zeros((len(chosen), most + proposals, 5), np.float32)
    targets[..., 4] = NO_OBJECT
    assert split.objects is not None
    for row, (index, where) in enumerate(chosen):
        objects = split.objects[index]
        assert objects.difficult is not None
        boxes, visible = letterbox.letterbox_boxes(objects.corners, where, side)
        kept = np.flatnonzero((visible >= MIN_VISIBLE_SHARE) & ~objects.difficult)[:most]
        targets[row, : len(kept)] = np.column_stack([boxes[kept], objects.classes[kept]])
        if split.proposals is not None:
            proposed, _ = letterbox.letterbox_boxes(split.proposals[index], where, side)
            targets[row, most : most + len(proposed), :4] = proposed
    return pixels, targets


class DetectorTrainer(Trainer[AnnotatedDataset]):
    """Trains a detector."""

    progress_label = "training"
    recipe: DetectionRecipe
    evaluation_model: Detector

    def __init__(
        self, session: Session, recipe: DetectionRecipe, dataset: AnnotatedDataset, strategy: tf.distribute.Strategy
    ) -> None:
        images, batch = len(dataset.train), recipe.train.batch
        super().__init__(session, recipe, dataset, strategy, lambda: build_detector(recipe, dataset), images, batch)
        assert isinstance(self.model, Detector)
        scale_learning_rates(self.model, recipe, self.model.new_variables)

    def batches(self, first: int, last: int) -> tf.data.Dataset:
        """Return batches of letterboxed images (N, S, S, 3) uint8 and their objects: see `training_batches`."""
        options = {"first": first, "last": last, "replicas": self.replicas}
        return training_batches(self.recipe, self.dataset.train, **options)

    def evaluate(self, split: AnnotatedSplit, label: str = "") -> dict[str, Any]:
        """Return the loss and accuracy on letterboxed images and the average precision on the original images.

        `score` is VOC 2007's mAP and `per_class` the AP of each class. `score_area` is the mean area under the
        precision-recall curves, `score_coco` the mean over COCO's ten IoU thresholds. On the test split, the best and
        the worst images are drawn.

        Args:
            split: the images to evaluate on.
            label: the label of the progress bar; given for the test split only.
        """
        assert split.objects is not None
        predicted: list[Boxes] = []
        losses: list[float] = []
        accuracies: list[float] = []
        for index in range(len(split)):
            where = letterbox.fitted_placement(split.size(index), self.recipe.canvas.side, self.recipe.canvas.short)
            model = self.evaluation_model
            pixels, objects = letterboxed_batch(
                split, [(index, where)], self.recipe.canvas.side, model.objects, model.rows - model.objects
            )
            loss, accuracy = model.loss_and_accuracy(pixels, objects)
            losses.append(loss)
            accuracies.append(accuracy)
            predicted.append(self._predicted(pixels, objects, where))
            if label:
                self.session.console.progress(label, index + 1, len(split))
            self.session.stop.check()
        if label:
            self._draw(split, predicted)
        classes = range(len(self.dataset.class_names))
        per_class = [detection_average_precision(predicted, split.objects, k) for k in classes]
        eleven_point = [None if pair is None else pair[0] for pair in per_class]
        return {
            "loss": float(np.mean(losses)),
            "accuracy": float(np.mean(accuracies)),
            "score": mean_over_classes(eleven_point),
            "score_area": mean_over_classes([None if pair is None else pair[1] for pair in per_class]),
            "score_coco": mean_over_classes([coco_average_precision(predicted, split.objects, k) for k in classes]),
            "per_class": eleven_point,
            "confusion": [],
        }

    def _predicted(self, pixels: np.ndarray, objects: np.ndarray, where: letterbox.Placement) -> Boxes:
        """Return the boxes predicted in a letterboxed image, in pixels of the original image.

        Args:
            pixels: (1, S, S, 3).
            objects: (1, M + R, 5), of which only the proposals are used.
            where: how the image was placed.
        """
        inputs = self.evaluation_model.inference_inputs(pixels.astype(np.float32), objects)
        outputs = self.evaluation_model.inference_model.predict_on_batch(inputs)
        real = outputs["classes"][0] >= 0
        return Boxes(
            letterbox.unletterbox_boxes(outputs["boxes"][0][real].astype(np.float64), where),
            outputs["classes"][0][real].astype(np.int64),
            scores=outputs["confidence"][0][real].astype(np.float64),
        )

    def _draw(self, split: AnnotatedSplit, predicted: list[Boxes]) -> None:
        assert split.objects is not None
        count = len(self.dataset.class_names)

        def score(index: int) -> float:
            assert split.objects is not None
            alone = ([predicted[index]], [split.objects[index]])
            pairs = [detection_average_precision(*alone, k) for k in range(count)]
            return mean_over_classes([None if pair is None else pair[1] for pair in pairs])

        scores = [score(index) for index in range(len(split))]
        order = np.argsort(scores, kind="stable")
        shown = []
        for index in dict.fromkeys([*order[::-1][:SHOWN_IMAGES], *order[:SHOWN_IMAGES]]):
            boxes = predicted[index]
            assert boxes.scores is not None
            objects = split.objects[index]
            most = max(int((boxes.scores >= DRAWN_CONFIDENCE).sum()), len(objects.classes))
            most_confident = np.argsort(-boxes.scores, kind="stable")[:most]
            drawn = Boxes(
                boxes.corners[most_confident], boxes.classes[most_confident], scores=boxes.scores[most_confident]
            )
            shown.append(DetectionExample(split.image(index), objects, drawn, scores[index]))
        folder = self.session.folder
        make_folder(folder.figures, folder.path)
        draw_detections(shown, self.dataset.class_names, folder.figures / "pictures.png", folder.path)

    def export(self) -> None:
        """Save the model, draw the filters of the first layer and evaluate on the test split."""
        folder = self.session.folder
        save_model(self.evaluation_model.exported(), folder.export / "detector.keras", folder.path)
        make_folder(folder.figures, folder.path)
        draw_filters(first_kernels(self.evaluation_model.networks[0]), folder.figures / "filters.png", folder.path)
        self.test("mAP on test")
