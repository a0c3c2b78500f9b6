"""The base of the detectors in training.

They train on batches of images (N, S, S, 3) and their objects (N, M, 5) float32: top, left, bottom and right in pixels,
and the class, which is `NO_OBJECT` in rows without an object.
"""

from typing import Any, Literal

import numpy as np

from rotnet_keras.engine import keras, tf
from rotnet_keras.models.base import TrainingModel
from rotnet_keras.models.fused_batch_norm import with_fused_batch_norm
from rotnet_keras.models.step_dropout import use_step_seeds

layers = keras.layers

# What the backbone's batch normalisation does in training: nothing changes; or it uses the statistics of the batch of a
# device; or those of the batch of all devices.
BatchNormMode = Literal["fixed", "trained", "synchronized"]

# The class of rows without an object.
NO_OBJECT = -1
# Detections per image, at most; their least confidence; and the overlap from which NMS drops a box of the same class.
MAX_DETECTIONS, MIN_CONFIDENCE, NMS_IOU = 100, 0.05, 0.3


class Detector(TrainingModel):
    """A detector in training.

    Args:
        side: S, the side of the images in pixels.
        objects: M, the most objects in an image.
        seed: of the step's random numbers.

    Attributes:
        inference_model: the detector as users call it, with the same variables: from pixels (N, S, S, 3) in [0, 255] to
            "boxes" (N, 100, 4), "classes" (N, 100) and "confidence" (N, 100), all -1 behind the last detection.
    """

    inference_model: keras.Model

    def __init__(self, side: int, objects: int, seed: int) -> None:
        super().__init__("detector", seed)
        self.side, self.objects = side, objects
        # Keras would cast the boxes to the compute dtype of the layers.
        self.autocast = False

    @property
    def rows(self) -> int:
        """The rows of an image's objects, M, and of what else stands behind them."""
        return self.objects

    def inference_inputs(self, pixels: Any, objects: Any) -> Any:
        """The inputs of `inference_model` for images (N, S, S, 3), given what training takes for their objects."""
        return pixels

    @property
    def new_variables(self) -> list[keras.Variable]:
        """The trained variables that are not the backbone's."""
        raise NotImplementedError

    def exported(self) -> keras.Model:
        """A copy of `inference_model` for export: float32, made of built-in layers and keras-cv's."""
        raise NotImplementedError

    def compile_for(self, optimizer: keras.optimizers.Optimizer, label_smoothing: float) -> None:
        """Compile with the losses that `call` computes."""
        use_step_seeds(self.networks, self.step_seed)
        self.compile(optimizer, loss=_first_column, metrics=[RegionAccuracy()])

    def training_inputs(self, data: Any, positions: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
        """Images with boxes, classes and positions. The targets are unused zeros: `call` computes the losses."""
        pixels, objects, *weights = data
        count = tf.shape(pixels)[0]
        positions = tf.range(count) if positions is None else positions
        boxes, classes = objects[..., :4], tf.cast(objects[..., 4], tf.int32)
        return (tf.cast(pixels, tf.float32), boxes, classes, positions), tf.zeros(count), *weights

    def example_batch(self) -> tuple[Any, ...]:
        """The inputs of an image of zeros without objects."""
        no_object = tf.constant([0.0, 0.0, 0.0, 0.0, NO_OBJECT])
        objects = tf.tile(no_object[None, None], (1, self.rows, 1))
        return self.training_inputs((tf.zeros((1, self.side, self.side, 3)), objects, tf.ones(1)))

    def loss_and_accuracy(self, pixels: np.ndarray, objects: np.ndarray) -> tuple[float, float]:
        """The mean loss and the accuracy on images, computed as in training, except for batch normalisation.

        Args:
            pixels: (N, S, S, 3).
            objects: (N, M, 5).
        """
        outputs = self.predict_on_batch(self.training_inputs((pixels, objects))[0])
        losses, correct, counted = np.asarray(outputs).T
        return float(losses.mean()), float(correct.sum() / max(1.0, counted.sum()))


class RegionAccuracy(keras.metrics.Mean):
    """The share of correctly classified regions among those that count."""

    def __init__(self) -> None:
        super().__init__(name="accuracy")

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        """Add a batch of outputs of `Detector.call`, (N, 3)."""
        correct, counted = y_pred[:, 1], y_pred[:, 2]
        if sample_weight is not None:
            counted *= tf.cast(sample_weight, counted.dtype)
        super().update_state(tf.math.divide_no_nan(correct, y_pred[:, 2]), counted)


def _first_column(_: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    return outputs[:, 0]


def non_max_suppression(boxes: Any, probabilities: Any) -> dict[str, Any]:
    """Non-maximum suppression: the most confident boxes of each class without those that overlap a more confident one.

    Args:
        boxes: (N, B, 4).
        probabilities: (N, B, K).

    Returns:
        "boxes" (N, 100, 4), "classes" (N, 100) and "confidence" (N, 100); -1 behind the last detection.
    """
    from keras_cv.layers import MultiClassNonMaxSuppression

    suppress = MultiClassNonMaxSuppression(
        "yxyx",
        from_logits=False,
        iou_threshold=NMS_IOU,
        confidence_threshold=MIN_CONFIDENCE,
        max_detections=MAX_DETECTIONS,
        max_detections_per_class=MAX_DETECTIONS,
        dtype="float32",
    )
    found = suppress(boxes, probabilities)
    return {key: found[key] for key in ("boxes", "classes", "confidence")}


def prepare_trunk(model: keras.Model, norm: BatchNormMode) -> keras.Model:
    """A copy of a backbone that computes in the present dtype policy, with batch normalisation as `norm` says."""
    copy = with_fused_batch_norm(model, keras.config.dtype_policy().name, norm == "synchronized")
    for layer in copy._flatten_layers():
        if norm == "fixed" and isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    return copy
