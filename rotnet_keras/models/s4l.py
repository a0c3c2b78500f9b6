"""Rotation as an auxiliary task beside labels: S4L (Zhai et al., ICCV 2019), for many images with few labels."""

from typing import Any

from rotnet_keras.config.schema import Auxiliary
from rotnet_keras.config.sections import Augment
from rotnet_keras.engine import keras, tf
from rotnet_keras.models.heads import build_head
from rotnet_keras.models.rotation import rotate_batch
from rotnet_keras.models.rotnet import Classifier

UNLABELLED = -1


class SemiSupervised(Classifier):
    """A classifier that is also asked for the angles of its images, labelled and unlabelled ones.

    It trains on batches of images and labels, `UNLABELLED` where there is none. Every image is shown at every angle;
    the labelled ones have their class at each (S4L-Rotation). The loss is the mean over these of the
    class's cross-entropy, plus `weight` times the mean over all of the angle's.

    Args:
        auxiliary: the recipe's section.
    """

    def __init__(
        self, backbone: keras.Model, head: keras.Model, auxiliary: Auxiliary, augment: Augment, seed: int
    ) -> None:
        super().__init__(backbone, head, augment=augment, seed=seed)
        self.auxiliary = auxiliary
        self.classes = head.output.shape[-1]
        self.rotation_head = build_head("pool", backbone.output.shape[1:], len(auxiliary.angles), "rotation")

    @property
    def networks(self) -> list[keras.Model]:
        """What is trained."""
        return [*super().networks, self.rotation_head]

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits of the classes, and in training of the angles beside them: (N, K) or (N, K + A)."""
        features = self.backbone(inputs, training=training)
        logits = self.head(features, training=training)
        return tf.concat([logits, self.rotation_head(features, training=True)], axis=1) if training else logits

    def training_inputs(self, data: Any, positions: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
        """The copies of images; (class or `UNLABELLED`, angle) of each, (N, 2); and what each counts, if said."""
        images, labels, *weights = data
        inputs, angles = rotate_batch(self.jittered(images, positions), self.auxiliary.angles)
        copies = [len(self.auxiliary.angles)]
        answers = tf.stack([tf.cast(tf.tile(labels, copies), tf.int32), angles], axis=1)
        return inputs, answers, *(tf.tile(weight, copies) for weight in weights)

    def compute_loss(
        self,
        x: tf.Tensor = None,
        y: tf.Tensor = None,
        y_pred: tf.Tensor = None,
        sample_weight: tf.Tensor | None = None,
        training: bool = True,
    ) -> tf.Tensor:
        """The sum of both tasks' losses in training; the class's alone in evaluation."""
        if not training:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        known, of_known, weights = self._labelled(y, y_pred, sample_weight)
        of_classes = super().compute_loss(x, known, of_known, weights, training)
        cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return of_classes + self.auxiliary.weight * cross_entropy(y[:, 1], y_pred[:, self.classes :], sample_weight)

    def compute_metrics(
        self, x: tf.Tensor, y: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """Those of the classes, on what has one."""
        if len(y.shape) == 2:
            y, y_pred, sample_weight = self._labelled(y, y_pred, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _labelled(
        self, y: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """Of the inputs whose class is known, this class, its logits and what they count."""
        known = tf.where(y[:, 0] != UNLABELLED)[:, 0]
        weights = None if sample_weight is None else tf.gather(sample_weight, known)
        return tf.gather(y[:, 0], known), tf.gather(y_pred[:, : self.classes], known), weights
