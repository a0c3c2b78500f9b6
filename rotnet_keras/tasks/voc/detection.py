"""Transfer to detection: PASCAL VOC 2007's task, scored as there, and as COCO scores."""

from typing import Any

import numpy as np

from rotnet_keras.config.transfer import DetectionRecipe
from rotnet_keras.data import letterbox
from rotnet_keras.data.annotations import AnnotatedDataset, AnnotatedSplit, load_annotated
from rotnet_keras.data.batches import Spec
from rotnet_keras.data.boxes import Boxes
from rotnet_keras.engine import tf
from rotnet_keras.evaluation.metrics import coco_average_precision, detection_average_precision, mean_over_classes
from rotnet_keras.models.backbones.registry import freeze_up_to
from rotnet_keras.models.detectors.base import NO_OBJECT, BatchNormMode, Detector
from rotnet_keras.models.detectors.faster_rcnn import FasterRCNN
from rotnet_keras.models.detectors.retinanet import RetinaNet
from rotnet_keras.models.export import first_kernels, save_model
from rotnet_keras.reports.figures import draw_filters
from rotnet_keras.tasks.voc.common import backbone_for, letterboxed_batches, scale_pretrained_learning_rate
from rotnet_keras.tasks.voc.figures import DetectionExample, draw_detections
from rotnet_keras.training.session import Session
from rotnet_keras.training.setup import record_data
from rotnet_keras.training.trainer import Trainer, configure_tensorflow

# Of an object, what has to be left on a canvas for it to count.
LEFT = 0.3
# Test pictures that are shown: as many of the best as of the worst. Less sure boxes are drawn only as long as there are
# fewer than objects.
SHOWN, DRAWN = 4, 0.5


def transfer_detection(session: Session) -> None:
    """Run a recipe of the kind `transfer`, task `detection`."""
    recipe = session.recipe
    assert isinstance(recipe, DetectionRecipe)
    strategy = configure_tensorflow(session, recipe)
    dataset = load_annotated(recipe.data, False, session.progress)
    side = recipe.canvas.side
    record_data(session, dataset, (side, side, 3), dataset.class_names)
    training = DetectorTrainer(session, recipe, dataset, strategy)
    training.run()


def build_detector(recipe: DetectionRecipe, dataset: AnnotatedDataset) -> Detector:
    """The model that a recipe trains.

    A pretrained backbone's batch normalisation stays as it is, for batches of few pictures; one from scratch learns it.
    """
    side, classes = recipe.canvas.side, len(dataset.class_names)
    backbone = backbone_for(recipe, side, dataset.train)
    scratch: BatchNormMode = "synchronized" if recipe.devices.sync_batch_norm else "trained"
    norm = "fixed" if recipe.pretrained else scratch
    rest: Any = {"objects": max_objects_per_image(dataset.train), "seed": recipe.seed, "norm": norm}
    found: Detector
    if recipe.detector == "retinanet":
        found = RetinaNet(backbone, recipe.taps, classes, side, **rest)
    else:
        after = recipe.after or recipe.taps[0]
        found = FasterRCNN(backbone, recipe.taps[0], after, recipe.cells, classes, side, **rest)
    if recipe.pretrained and recipe.pretrained.frozen:
        freeze_up_to(found.networks[0], recipe.pretrained.frozen)
    return found


def max_objects_per_image(split: AnnotatedSplit) -> int:
    """Objects in the fullest picture, 1 at least."""
    assert split.objects is not None
    return max(1, *(len(objects.classes) for objects in split.objects))


def training_batches(recipe: DetectionRecipe, split: AnnotatedSplit, **options: Any) -> tf.data.Dataset:
    """Canvases (N, S, S, 3) uint8 and their objects (N, M, 5) float32, M those of the fullest picture.

    Args:
        **options: `first`, `last` and `replicas` of `shared_batches`.
    """
    side, most = recipe.canvas.side, max_objects_per_image(split)
    specs: list[Spec] = [((side, side, 3), tf.uint8), ((most, 5), tf.float32)]
    return letterboxed_batches(
        recipe, split, lambda chosen: letterboxed_batch(split, chosen, side, most), specs, **options
    )


def letterboxed_batch(
    split: AnnotatedSplit, chosen: list[tuple[int, letterbox.Placement]], side: int, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures on canvases with their objects, without the difficult ones, which nobody has to find."""
    pixels = np.stack([letterbox.lay(split.picture(position), where, side) for position, where in chosen])
    objects_of = np.zeros((len(chosen), most, 5), np.float32)
    objects_of[..., 4] = NO_OBJECT
    assert split.objects is not None
    for row, (position, where) in enumerate(chosen):
        objects = split.objects[position]
        assert objects.difficult is not None
        boxes, left = letterbox.lay_boxes(objects.corners, where, side)
        kept = np.flatnonzero((left >= LEFT) & ~objects.difficult)[:most]
        objects_of[row, : len(kept)] = np.column_stack([boxes[kept], objects.classes[kept]])
    return pixels, objects_of


class DetectorTrainer(Trainer[AnnotatedDataset]):
    """A detector in training."""

    what = "training"
    recipe: DetectionRecipe
    evaluation_model: Detector

    def __init__(
        self, session: Session, recipe: DetectionRecipe, dataset: AnnotatedDataset, strategy: tf.distribute.Strategy
    ) -> None:
        images, batch = len(dataset.train), recipe.train.batch
        super().__init__(session, recipe, dataset, strategy, lambda: build_detector(recipe, dataset), images, batch)
        assert isinstance(self.model, Detector)
        scale_pretrained_learning_rate(self.model, recipe, self.model.new_variables)

    def batches(self, first: int, last: int) -> tf.data.Dataset:
        """Canvases (N, S, S, 3) uint8 and their objects (N, M, 5) float32."""
        options = {"first": first, "last": last, "replicas": self.replicas}
        return training_batches(self.recipe, self.dataset.train, **options)

    def evaluate(self, split: AnnotatedSplit, what: str = "") -> dict[str, Any]:
        """Loss and accuracy on canvases; VOC 2007's mean average precision (`score`) and that of each class.

        `score_area` is the mean of the areas under the curves, `score_coco` COCO's mean over ten overlaps. The worst
        and the best test pictures are drawn.
        """
        assert split.objects is not None
        found: list[Boxes] = []
        losses: list[float] = []
        hits: list[float] = []
        for position in range(len(split)):
            where = letterbox.fitted(split.size(position), self.recipe.canvas.side)
            pixels, objects = letterboxed_batch(
                split, [(position, where)], self.recipe.canvas.side, self.evaluation_model.objects
            )
            loss, right = self.evaluation_model.loss_and_accuracy(pixels, objects)
            losses.append(loss)
            hits.append(right)
            found.append(self._found(pixels, where))
            if what:
                self.session.console.progress(what, position + 1, len(split))
            self.session.stop.check()
        if what:
            self._draw(split, found)
        classes_there = range(len(self.dataset.class_names))
        of_classes = [detection_average_precision(found, split.objects, k) for k in classes_there]
        eleven = [None if pair is None else pair[0] for pair in of_classes]
        return {
            "loss": float(np.mean(losses)),
            "accuracy": float(np.mean(hits)),
            "score": mean_over_classes(eleven),
            "score_area": mean_over_classes([None if pair is None else pair[1] for pair in of_classes]),
            "score_coco": mean_over_classes([coco_average_precision(found, split.objects, k) for k in classes_there]),
            "per_class": eleven,
            "confusion": [],
        }

    def _found(self, pixels: np.ndarray, where: letterbox.Placement) -> Boxes:
        """What is found on a canvas (1, S, S, 3), in the picture's own pixels."""
        answer = self.evaluation_model.inference_model.predict_on_batch(pixels.astype(np.float32))
        there = answer["classes"][0] >= 0
        return Boxes(
            letterbox.boxes_taken_off(answer["boxes"][0][there].astype(np.float64), where),
            answer["classes"][0][there].astype(np.int64),
            scores=answer["confidence"][0][there].astype(np.float64),
        )

    def _draw(self, split: AnnotatedSplit, found: list[Boxes]) -> None:
        assert split.objects is not None
        count = len(self.dataset.class_names)

        def score(position: int) -> float:
            assert split.objects is not None
            alone = ([found[position]], [split.objects[position]])
            pairs = [detection_average_precision(*alone, k) for k in range(count)]
            return mean_over_classes([None if pair is None else pair[1] for pair in pairs])

        scores = [score(position) for position in range(len(split))]
        order = np.argsort(scores, kind="stable")
        shown = []
        for position in dict.fromkeys([*order[::-1][:SHOWN], *order[:SHOWN]]):
            boxes = found[position]
            assert boxes.scores is not None
            objects = split.objects[position]
            most = max(int((boxes.scores >= DRAWN).sum()), len(objects.classes))
            surest = np.argsort(-boxes.scores, kind="stable")[:most]
            drawn = Boxes(boxes.corners[surest], boxes.classes[surest], scores=boxes.scores[surest])
            shown.append(DetectionExample(split.picture(position), objects, drawn, scores[position]))
        self.session.folder.figures.mkdir(exist_ok=True)
        draw_detections(shown, self.dataset.class_names, self.session.folder.figures / "pictures.png")

    def export(self) -> None:
        """Write the model, the test and the first filters."""
        folder = self.session.folder
        save_model(self.evaluation_model.exported(), folder.export / "detector.keras")
        folder.figures.mkdir(exist_ok=True)
        draw_filters(first_kernels(self.evaluation_model.networks[0]), folder.figures / "filters.png")
        self.test("mAP on test")
