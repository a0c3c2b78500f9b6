"""What networks that find objects have in common, in training.

They train on batches of canvases (N, S, S, 3) and their objects (N, M, 5) float32: top, left, bottom and right in
pixels, and the class, `NO_OBJECT` where there are fewer than M.
"""

from typing import Any, Literal

import numpy as np

from rotnet_keras.engine import keras, tf
from rotnet_keras.models.base import TrainingModel
from rotnet_keras.models.fused_batch_norm import with_fused_batch_norm

layers = keras.layers

# Batch normalisation stays as it is, its statistics, factors and offsets; or goes by the batch of a device, or of all.
BatchNormMode = Literal["fixed", "trained", "synchronized"]

NO_OBJECT = -1
# What is told of a picture: so many boxes, each at least so sure; a box less sure of the same class overlaps no more.
MAX_DETECTIONS, MIN_CONFIDENCE, NMS_IOU = 100, 0.05, 0.3


class Detector(TrainingModel):
    """A network that finds objects, in training.

    Args:
        side: S, pixels of a canvas.
        objects: M, the most that there are on one.

    Attributes:
        inference_model: the network as others use it, sharing the weights: from pixels (N, S, S, 3) in [0, 255] to "boxes"
            (N, 100, 4), "classes" (N, 100) and "confidence" (N, 100), -1 behind the last of them.
    """

    inference_model: keras.Model

    def __init__(self, side: int, objects: int, seed: int) -> None:
        super().__init__("detector", seed)
        self.side, self.objects = side, objects
        # Keras would round the boxes to the precision that layers compute in.
        self.autocast = False

    @property
    def new_variables(self) -> list[keras.Variable]:
        """What is trained and not the backbone's."""
        raise NotImplementedError

    def exported(self) -> keras.Model:
        """`inference_model` with weights of its own, float32, of built-in layers and keras-cv's."""
        raise NotImplementedError

    def compile_for(self, optimizer: keras.optimizers.Optimizer, label_smoothing: float) -> None:
        """Compile it with its own losses, which `call` works out."""
        self.compile(optimizer, loss=_first_column, metrics=[RegionAccuracy()])

    def training_inputs(self, data: Any, positions: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
        """Canvases with boxes, classes and numbers; there is nothing else to answer."""
        pixels, objects, *weights = data
        count = tf.shape(pixels)[0]
        positions = tf.range(count) if positions is None else positions
        boxes, classes = objects[..., :4], tf.cast(objects[..., 4], tf.int32)
        return (tf.cast(pixels, tf.float32), boxes, classes, positions), tf.zeros(count), *weights

    def example_batch(self) -> tuple[Any, ...]:
        """What the network is shown of an empty canvas."""
        nothing = tf.constant([0.0, 0.0, 0.0, 0.0, NO_OBJECT])
        objects = tf.tile(nothing[None, None], (1, self.objects, 1))
        return self.training_inputs((tf.zeros((1, self.side, self.side, 3)), objects, tf.ones(1)))

    def loss_and_accuracy(self, pixels: np.ndarray, objects: np.ndarray) -> tuple[float, float]:
        """Mean loss and accuracy on some canvases, as in training, but for batch normalisation."""
        found = self.predict_on_batch(self.training_inputs((pixels, objects))[0])
        losses, right, counted = np.asarray(found).T
        return float(losses.mean()), float(right.sum() / max(1.0, counted.sum()))


class RegionAccuracy(keras.metrics.Mean):
    """Share of the counted regions whose class is right."""

    def __init__(self) -> None:
        super().__init__(name="accuracy")

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        """Add a batch: what `Detector.call` gives, (N, 3)."""
        right, counted = y_pred[:, 1], y_pred[:, 2]
        if sample_weight is not None:
            counted *= tf.cast(sample_weight, counted.dtype)
        super().update_state(tf.math.divide_no_nan(right, y_pred[:, 2]), counted)


def _first_column(_: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
    return found[:, 0]


def non_max_suppression(boxes: Any, probabilities: Any) -> dict[str, Any]:
    """The surest boxes, class by class, without those that overlap a surer one of their class too much.

    Args:
        boxes: (N, B, 4).
        probabilities: (N, B, K).
    """
    from keras_cv.layers import MultiClassNonMaxSuppression

    choose = MultiClassNonMaxSuppression(
        "yxyx",
        from_logits=False,
        iou_threshold=NMS_IOU,
        confidence_threshold=MIN_CONFIDENCE,
        max_detections=MAX_DETECTIONS,
        max_detections_per_class=MAX_DETECTIONS,
        dtype="float32",
    )
    found = choose(boxes, probabilities)
    return {key: found[key] for key in ("boxes", "classes", "confidence")}


def prepare_trunk(model: keras.Model, norm: BatchNormMode) -> keras.Model:
    """A copy that computes in the present precision and normalises batches so."""
    copy = with_fused_batch_norm(model, keras.config.dtype_policy().name, norm == "synchronized")
    for layer in copy._flatten_layers():
        if norm == "fixed" and isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    return copy
