"""Classes and rotations predicted jointly (Lee, Hwang and Shin, ICML 2020: self-supervised label augmentation)."""

from typing import Any

from rotnet_keras.config.schema import Joint
from rotnet_keras.config.sections import Augment
from rotnet_keras.engine import keras, tf
from rotnet_keras.models.averaging import rotated_view
from rotnet_keras.models.export import joined
from rotnet_keras.models.rotation import rotate_batch
from rotnet_keras.models.rotnet import Classifier


class JointClassifier(Classifier):
    """A classifier with a logit for each pair of class and angle, trained on rotated copies of labelled images.

    A network that must give the same class at every angle loses what tells angles apart, and with it accuracy. This
    one need not: a cat on its head is a class of its own. The class of an image comes from the logits at the known
    angles of its copies.

    Args:
        backbone: a model from pixels to features.
        head: a model from these features to the logits (N, A * K) of A angles and K classes: all classes at the first
            angle, then all at the second, and so on.
        joint: the recipe's section: the A angles, and the copies that a prediction averages over.
        augment: the recipe's section, for colour jitter.
        seed: of the jitter, together with the step.
    """

    def __init__(self, backbone: keras.Model, head: keras.Model, joint: Joint, augment: Augment, seed: int) -> None:
        super().__init__(backbone, head, augment=augment, seed=seed, classes=head.output.shape[-1] // len(joint.angles))
        self.joint = joint

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """In training the logits (N, A * K) of classes and angles; else those of the classes, (N, K)."""
        if training:
            return super().call(inputs, training=True)
        angles = self.joint.predicted_angles
        copies, _ = rotate_batch(inputs, angles)
        logits = tf.split(super().call(copies), len(angles))
        known = [self._at(each, angle) for each, angle in zip(logits, angles, strict=True)]
        return tf.add_n(known) / len(known)

    def training_inputs(self, data: Any, positions: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
        """Rotated copies, their targets (class, label of the angle), (N, 2) int32, and any sample weights."""
        return self.rotated_inputs(data, positions, self.joint.angles)

    def compute_loss(
        self,
        x: tf.Tensor = None,
        y: tf.Tensor = None,
        y_pred: tf.Tensor = None,
        sample_weight: tf.Tensor | None = None,
        training: bool = True,
    ) -> tf.Tensor:
        """The cross-entropy of class and angle in training; that of the class in evaluation."""
        targets = y[:, 1] * self.classes + y[:, 0] if training else y
        return super().compute_loss(x, targets, y_pred, sample_weight, training)

    def compute_metrics(
        self, x: tf.Tensor, y: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """The metrics of the classes; in training at the angle of each copy."""
        if len(y.shape) == 2:
            logits = tf.reshape(y_pred, [-1, len(self.joint.angles), self.classes])
            y, y_pred = y[:, 0], tf.gather(logits, y[:, 1], batch_dims=1)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def exported(self) -> keras.Model:
        """A model of built-in layers from pixels (N, H, W, C) to probabilities (N, K), averaged as in evaluation."""
        joint = joined(self.backbone, self.head, "class_and_angle")
        inputs = keras.Input(joint.input.shape[1:], dtype=joint.input.dtype, name=joint.input.name)
        logits = [self._at(joint(rotated_view(inputs, angle)), angle) for angle in self.joint.predicted_angles]
        mean = keras.layers.Average(name="logits")(logits) if len(logits) > 1 else logits[0]
        return keras.Model(inputs, keras.layers.Softmax(name="probabilities")(mean), name="classifier")

    def _at(self, logits: Any, angle: int) -> Any:
        """The logits (N, K) of the classes at an angle in degrees."""
        first = self.joint.angles.index(angle) * self.classes
        return logits[:, first : first + self.classes]
