"""S4L (Zhai et al., ICCV 2019): rotation prediction as an auxiliary task of a classifier with few labels."""

from typing import Any

from rotnet_keras.config.schema import Auxiliary
from rotnet_keras.config.sections import Augment
from rotnet_keras.engine import keras, tf
from rotnet_keras.models.heads import build_head
from rotnet_keras.models.rotnet import Classifier

# The label of an image without a known class.
UNLABELLED = -1


class SemiSupervised(Classifier):
    """A classifier that also predicts the rotation of labelled and unlabelled images (S4L-Rotation).

    It trains on batches of images and labels; a label is `UNLABELLED` where the class is unknown. Every image is
    rotated by every angle. The loss is the mean cross-entropy of the class over the labelled copies, plus
    `auxiliary.weight` times the mean cross-entropy of the angle over all copies.

    Args:
        backbone: a model from pixels to features.
        head: a model from these features to the logits of the classes, (N, K).
        auxiliary: the recipe's section: the angles and the weight of the rotation loss.
        augment: the recipe's section, for colour jitter.
        seed: of the jitter, together with the step.
    """

    def __init__(
        self, backbone: keras.Model, head: keras.Model, auxiliary: Auxiliary, augment: Augment, seed: int
    ) -> None:
        super().__init__(backbone, head, augment=augment, seed=seed)
        self.auxiliary = auxiliary
        self.rotation_head = build_head("pool", backbone.output.shape[1:], len(auxiliary.angles), "rotation")

    @property
    def networks(self) -> list[keras.Model]:
        """The backbone, the head of the classes, and the head of the angles."""
        return [*super().networks, self.rotation_head]

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The logits of the classes, (N, K); in training those of the A angles beside them, (N, K + A)."""
        features = self.backbone(inputs, training=training)
        logits = self.head(features, training=training)
        return tf.concat([logits, self.rotation_head(features, training=True)], axis=1) if training else logits

    def training_inputs(self, data: Any, positions: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
        """Rotated copies, their targets (class or `UNLABELLED`, angle label), (N, 2) int32, and any sample weights."""
        return self.rotated_inputs(data, positions, self.auxiliary.angles)

    def compute_loss(
        self,
        x: tf.Tensor = None,
        y: tf.Tensor = None,
        y_pred: tf.Tensor = None,
        sample_weight: tf.Tensor | None = None,
        training: bool = True,
    ) -> tf.Tensor:
        """The sum of the losses of both tasks in training; the loss of the classes alone in evaluation."""
        if not training:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        classes, logits, weights = self._labelled(y, y_pred, sample_weight)
        class_loss = super().compute_loss(x, classes, logits, weights, training)
        cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return class_loss + self.auxiliary.weight * cross_entropy(y[:, 1], y_pred[:, self.classes :], sample_weight)

    def compute_metrics(
        self, x: tf.Tensor, y: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """The metrics of the classes, over the inputs whose class is known."""
        if len(y.shape) == 2:
            y, y_pred, sample_weight = self._labelled(y, y_pred, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _labelled(
        self, y: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """The classes, the logits and the sample weights of the inputs whose class is known."""
        known = tf.where(y[:, 0] != UNLABELLED)[:, 0]
        weights = None if sample_weight is None else tf.gather(sample_weight, known)
        return tf.gather(y[:, 0], known), tf.gather(y_pred[:, : self.classes], known), weights
