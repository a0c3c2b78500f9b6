"""Transfer to segmentation: PASCAL VOC 2012's task, scored by mean intersection over union."""

from typing import Any

import numpy as np

from rotnet_keras.config.transfer import SegmentationRecipe
from rotnet_keras.data import letterbox
from rotnet_keras.data.annotations import AnnotatedDataset, AnnotatedSplit, load_annotated
from rotnet_keras.data.batches import Spec
from rotnet_keras.engine import keras, tf
from rotnet_keras.evaluation.metrics import class_ious, mean_over_classes
from rotnet_keras.models.backbones.registry import freeze_up_to
from rotnet_keras.models.export import first_kernels, save_model
from rotnet_keras.models.fused_batch_norm import with_fused_batch_norm, with_stock_layers
from rotnet_keras.models.segmenters import VOID, Segmenter, deeplab, fcn, new_variables
from rotnet_keras.reports.figures import draw_filters
from rotnet_keras.tasks.voc.common import backbone_for, letterboxed_batches, scale_pretrained_learning_rate
from rotnet_keras.tasks.voc.figures import SegmentationExample, draw_segmentations
from rotnet_keras.training.session import Session
from rotnet_keras.training.setup import record_data
from rotnet_keras.training.trainer import Trainer, configure_tensorflow

# Test pictures that are shown: as many of the best as of the worst.
SHOWN = 4
BACKGROUND = "background"


def transfer_segmentation(session: Session) -> None:
    """Run a recipe of the kind `transfer`, task `segmentation`."""
    recipe = session.recipe
    assert isinstance(recipe, SegmentationRecipe)
    strategy = configure_tensorflow(session, recipe)
    dataset = load_annotated(recipe.data, True, session.progress)
    side = recipe.canvas.side
    record_data(session, dataset, (side, side, 3), [BACKGROUND, *dataset.class_names])
    training = SegmenterTrainer(session, recipe, dataset, strategy)
    training.run()


def build_segmenter(recipe: SegmentationRecipe, dataset: AnnotatedDataset) -> Segmenter:
    """The model that a recipe trains."""
    side = recipe.canvas.side
    backbone = backbone_for(recipe, side, dataset.train)
    classes = len(dataset.class_names) + 1
    if recipe.decoder == "deeplab":
        network = deeplab(backbone, recipe.tap, str(recipe.low), classes, side)
    else:
        network = fcn(backbone, recipe.tap, classes, side)
    network = with_fused_batch_norm(network, keras.config.dtype_policy().name, recipe.devices.sync_batch_norm)
    if recipe.pretrained and recipe.pretrained.frozen:
        freeze_up_to(network, recipe.pretrained.frozen)
    return Segmenter(network, recipe.seed)


def training_batches(recipe: SegmentationRecipe, split: AnnotatedSplit, **options: Any) -> tf.data.Dataset:
    """Canvases (N, S, S, 3) uint8 and masks (N, S, S) uint8.

    Args:
        **options: `first`, `last` and `replicas` of `shared_batches`.
    """
    side = recipe.canvas.side

    def make_arrays(chosen: list[tuple[int, letterbox.Placement]]) -> tuple[np.ndarray, np.ndarray]:
        pictures = [letterbox.lay(split.picture(p), where, side) for p, where in chosen]
        masks = [letterbox.lay_mask(split.mask(p), where, side, VOID) for p, where in chosen]
        return np.stack(pictures), np.stack(masks)

    specs: list[Spec] = [((side, side, 3), tf.uint8), ((side, side), tf.uint8)]
    return letterboxed_batches(recipe, split, make_arrays, specs, **options)


class SegmenterTrainer(Trainer[AnnotatedDataset]):
    """A segmenter in training."""

    what = "training"
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
        scale_pretrained_learning_rate(self.model, recipe, new_variables(self.model.networks[0]))

    def batches(self, first: int, last: int) -> tf.data.Dataset:
        """Canvases (N, S, S, 3) uint8 and masks (N, S, S) uint8."""
        options = {"first": first, "last": last, "replicas": self.replicas}
        return training_batches(self.recipe, self.dataset.train, **options)

    def evaluate(self, split: AnnotatedSplit, what: str = "") -> dict[str, Any]:
        """Loss and accuracy on canvases; VOC's mean IoU (`score`) and that of each class on pictures in their own size.

        The worst and the best test pictures are drawn.
        """
        side, model = self.recipe.canvas.side, self.evaluation_model
        classes = len(self.dataset.class_names) + 1
        counts = np.zeros((classes, classes), np.int64)
        losses, of_pictures = [], []
        for position in range(len(split)):
            where = letterbox.fitted(split.size(position), side)
            canvas = letterbox.lay(split.picture(position), where, side)[None]
            laid = letterbox.lay_mask(split.mask(position), where, side, VOID)[None]
            logits = model.predict_on_batch(canvas)
            losses.append(float(model.loss(laid, logits)[0]))
            found = letterbox.taken_off(np.argmax(logits[0], axis=-1).astype(np.uint8), where)
            mine = pixel_counts(split.mask(position), found, classes)
            counts += mine
            of_pictures.append(mean_over_classes(class_ious(mine)))
            if what:
                self.session.console.progress(what, position + 1, len(split))
            self.session.stop.check()
        if what:
            self._draw(split, of_pictures)
        each = class_ious(counts)
        return {
            "loss": float(np.mean(losses)),
            "accuracy": float(np.trace(counts) / max(1, counts.sum())),
            "score": mean_over_classes(each),
            "per_class": each,
            "confusion": counts.tolist(),
        }

    def _draw(self, split: AnnotatedSplit, scores: list[float]) -> None:
        order = np.argsort(scores, kind="stable")
        side = self.recipe.canvas.side
        shown = []
        for position in dict.fromkeys([*order[::-1][:SHOWN], *order[:SHOWN]]):
            where = letterbox.fitted(split.size(position), side)
            canvas = letterbox.lay(split.picture(position), where, side)[None]
            found = np.argmax(self.evaluation_model.predict_on_batch(canvas)[0], axis=-1).astype(np.uint8)
            shown.append(
                SegmentationExample(
                    split.picture(position),
                    split.mask(position),
                    letterbox.taken_off(found, where),
                    scores[position],
                )
            )
        self.session.folder.figures.mkdir(exist_ok=True)
        names = [BACKGROUND, *self.dataset.class_names]
        draw_segmentations(shown, names, self.session.folder.figures / "pictures.png")

    def export(self) -> None:
        """Write the model, the test and the first filters."""
        folder = self.session.folder
        network = with_stock_layers(self.evaluation_model.network)
        inputs = keras.Input(network.input.shape[1:], name="pixels")
        probabilities = keras.layers.Softmax(name="probabilities")(network(inputs))
        save_model(keras.Model(inputs, probabilities, name="segmenter"), folder.export / "segmenter.keras")
        folder.figures.mkdir(exist_ok=True)
        draw_filters(first_kernels(network), folder.figures / "filters.png")
        self.test("mean IoU on test")


def pixel_counts(truth: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """Counts of (true, predicted), (K, K), of two masks (H, W), void left out."""
    known = truth != VOID
    pairs = truth[known].astype(np.int64) * classes + found[known]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
