"""The models in training: RotNet, which learns rotations, and a classifier, which learns labels."""

from collections.abc import Callable, Sequence
from typing import Any

from rotnet_keras.config.sections import Augment
from rotnet_keras.data.values.ranges import ValueRange
from rotnet_keras.engine import keras, tf
from rotnet_keras.models.base import TrainingModel
from rotnet_keras.models.color_jitter import color_jitter
from rotnet_keras.models.fused_batch_norm import with_fused_batch_norm
from rotnet_keras.models.heads import build_head
from rotnet_keras.models.rotation import RIGHT_ANGLES, rotate_batch, rotate_one_each


class ConfusionMatrix(keras.metrics.Metric):
    """Counts pairs of (true class, predicted class); its result is the balanced accuracy.

    Args:
        classes: K.

    Attributes:
        counts: (K, K) int32; rows are true classes, columns are predicted classes.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(name="balanced_accuracy")
        self.counts = self.add_variable((classes, classes), "zeros", dtype="int32", name="counts")

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        """Count a batch: labels (N,) and logits (N, K)."""
        predicted = tf.argmax(y_pred, axis=-1, output_type=tf.int32)
        true = tf.cast(tf.reshape(y_true, [-1]), tf.int32)
        self.counts.assign_add(tf.math.confusion_matrix(true, predicted, self.counts.shape[0]))

    def result(self) -> tf.Tensor:
        """The balanced accuracy: the mean recall over the classes, in [0, 1]. A class without samples counts as 0."""
        counts = tf.cast(self.counts.value, tf.float32)
        return tf.reduce_mean(tf.linalg.diag_part(counts) / tf.maximum(tf.reduce_sum(counts, axis=1), 1))


class Classifier(TrainingModel):
    """A backbone and a head, trained on images and labels with softmax cross-entropy.

    Args:
        backbone: a model from pixels to features.
        head: a model from these features to logits (N, K).
        name: of the Keras model.
        augment: the recipe's section, for colour jitter in training; none by default.
        seed: of the jitter, together with the step.
        classes: K; as many as the head has logits by default.

    Attributes:
        confusion: the confusion matrix since the metrics were last reset.
        values: the range of the values of images with more than 8 bits, for colour jitter; None by default.
    """

    def __init__(
        self,
        backbone: keras.Model,
        head: keras.Model,
        name: str = "classifier",
        augment: Augment | None = None,
        seed: int = 0,
        classes: int | None = None,
    ) -> None:
        super().__init__(name, seed)
        self.values: ValueRange | None = None
        self.backbone = backbone
        self.head = head
        self.augment = augment or Augment()
        self.classes = classes or head.output.shape[-1]
        self.confusion = ConfusionMatrix(self.classes)

    @property
    def networks(self) -> list[keras.Model]:
        """The backbone and the head."""
        return [self.backbone, self.head]

    def compile_for(self, optimizer: keras.optimizers.Optimizer, label_smoothing: float) -> None:
        """Compile with softmax cross-entropy, and accuracy as the metric."""
        self.compile(
            optimizer,
            loss=softmax_loss(label_smoothing),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        )

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits (N, K) of images (N, S, S, C)."""
        return self.head(self.backbone(inputs, training=training), training=training)

    def training_inputs(self, data: Any, positions: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
        """Images, with colour jitter where the recipe asks for it, and their labels."""
        images, labels, *weights = data
        return self.jittered(images, positions), labels, *weights

    def rotated_inputs(self, data: Any, positions: tf.Tensor | None, angles: Sequence[int]) -> tuple[tf.Tensor, ...]:
        """Rotated copies, their targets (class, label of the angle), (N, 2) int32, and any sample weights."""
        images, labels, *weights = data
        inputs, angle_labels = rotate_batch(self.jittered(images, positions), angles)
        copies = [len(angles)]
        targets = tf.stack([tf.cast(tf.tile(labels, copies), tf.int32), angle_labels], axis=1)
        return inputs, targets, *(tf.tile(weight, copies) for weight in weights)

    def example_batch(self) -> tuple[Any, ...]:
        """An image, a label and a sample weight, each of batch size 1."""
        return tf.zeros((1, *self.backbone.input.shape[1:])), tf.zeros(1, tf.int32), tf.ones(1)

    def jittered(self, images: tf.Tensor, positions: tf.Tensor | None) -> tf.Tensor:
        """The images with colour jitter, where the recipe asks for it."""
        if not (self.augment.jitter or self.augment.greyscale):
            return images
        seed = tf.random.fold_in(self.step_seed(), 1)
        strength = self.augment.jitter, self.augment.greyscale
        if self.values is None:
            return color_jitter(images, seed, *strength, positions)
        low, span = (tf.constant(each, tf.float32) for each in (self.values.low, self.values.span / 255))
        return color_jitter((images - low) / span, seed, *strength, positions) * span + low

    def compute_metrics(
        self, x: tf.Tensor, y: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """Keras's metrics; it updates the confusion matrix besides."""
        self.confusion.update_state(y, y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight)


class RotNet(Classifier):
    """RotNet: a backbone and a classifier of rotations, trained on unrotated images.

    `fit` and `evaluate` take batches of unrotated images (N, H, W, C), pixels in [0, 255]. The rotated copies and their
    labels are made on the device. Keras's own `train_step` does the rest, including loss scaling and distribution.

    Args:
        backbone: a model from pixels (N, T, U, C) to a feature map; (T, U) is `rotated_shape((H, W), angles)`.
        angles: the angles to tell apart, see `rotate_batch`; label k stands for the k-th angle.
        copies: "all" trains on every rotation of each image, "one" on one drawn at random.
        hidden: units of dense layers between the pooled features and the logits.
        augment: the recipe's section, for colour jitter in training; none by default.
        seed: of the drawn angles and of the jitter, together with the step.
        synchronized: batch normalisation of the hidden layers uses the statistics of the batch of all replicas.

    Example:
        >>> import keras, numpy as np
        >>> from rotnet_keras import backbone
        >>> model = RotNet(backbone("compact", (32, 32, 3), width=0.25))
        >>> model.compile_for(keras.optimizers.SGD(0.1), label_smoothing=0.0)
        >>> images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3)).astype("uint8")
        >>> sorted(model.fit(images, batch_size=8, verbose=0).history)
        ['accuracy', 'balanced_accuracy', 'loss']
    """

    def __init__(
        self,
        backbone: keras.Model,
        angles: Sequence[int] = RIGHT_ANGLES,
        copies: str = "all",
        hidden: Sequence[int] = (),
        augment: Augment | None = None,
        seed: int = 0,
        synchronized: bool = False,
    ) -> None:
        head = build_head("pool", backbone.output.shape[1:], len(angles), "rotation", hidden=hidden)
        super().__init__(backbone, with_fused_batch_norm(head, synchronized=synchronized), "rotnet", augment, seed)
        self.angles = tuple(angles)
        self.copies = copies

    def training_inputs(self, data: Any, positions: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
        """The rotated copies of a batch of unrotated images, the labels of their angles, and any sample weights."""
        pixels, _, weights = keras.utils.unpack_x_y_sample_weight(data)
        images = self.jittered(pixels, positions)
        if self.copies == "one":
            inputs = rotate_one_each(images, self.step_seed(), self.angles, positions)
        else:
            inputs = rotate_batch(images, self.angles)
            weights = None if weights is None else tf.tile(weights, [len(self.angles)])
        return inputs if weights is None else (*inputs, weights)

    def test_step(self, data: tf.Tensor) -> dict[str, tf.Tensor]:
        """The metrics of a batch of unrotated images over all rotated copies."""
        images = keras.utils.unpack_x_y_sample_weight(data)[0]
        return super().test_step(rotate_batch(images, self.angles))


def softmax_loss(label_smoothing: float = 0.0) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Softmax cross-entropy for integer labels.

    Args:
        label_smoothing: in [0, 1).

    Returns:
        A function of labels (N,) and logits (N, K) that gives the losses (N,).
    """

    def loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        targets = tf.one_hot(tf.cast(tf.reshape(labels, [-1]), tf.int32), logits.shape[-1])
        return keras.losses.categorical_crossentropy(targets, logits, from_logits=True, label_smoothing=label_smoothing)

    return loss
