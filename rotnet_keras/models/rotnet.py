"""The models that are trained, on rotations or on labels."""

from collections.abc import Callable, Sequence
from typing import Any

from rotnet_keras.config.sections import Augment
from rotnet_keras.engine import keras, tf
from rotnet_keras.models.base import TrainingModel
from rotnet_keras.models.color_jitter import color_jitter
from rotnet_keras.models.fused_batch_norm import with_fused_batch_norm
from rotnet_keras.models.heads import build_head
from rotnet_keras.models.rotation import RIGHT_ANGLES, rotate_batch, rotate_one_each


class ConfusionMatrix(keras.metrics.Metric):
    """Counts of (true, predicted), `counts` (K, K); its result is the balanced accuracy: the mean recall."""

    def __init__(self, classes: int) -> None:
        super().__init__(name="balanced_accuracy")
        self.counts = self.add_variable((classes, classes), "zeros", dtype="int32", name="counts")

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        """Add a batch: labels (N,) and logits (N, K)."""
        predicted = tf.argmax(y_pred, axis=-1, output_type=tf.int32)
        true = tf.cast(tf.reshape(y_true, [-1]), tf.int32)
        self.counts.assign_add(tf.math.confusion_matrix(true, predicted, self.counts.shape[0]))

    def result(self) -> tf.Tensor:
        """A number in [0, 1]; a class that was never there counts as 0."""
        counts = tf.cast(self.counts.value, tf.float32)
        return tf.reduce_mean(tf.linalg.diag_part(counts) / tf.maximum(tf.reduce_sum(counts, axis=1), 1))


class Classifier(TrainingModel):
    """A backbone under a head, trained on images and labels.

    Args:
        backbone: a model from pixels to features.
        head: a model from those to logits (N, K).
        augment: says what happens to colours in training; nothing by default.
        seed: of that, together with the step.

    Attributes:
        confusion: what was taken for what since the metrics were last reset.
    """

    def __init__(
        self,
        backbone: keras.Model,
        head: keras.Model,
        name: str = "classifier",
        augment: Augment | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(name, seed)
        self.backbone = backbone
        self.head = head
        self.augment = augment or Augment()
        self.confusion = ConfusionMatrix(head.output.shape[-1])

    @property
    def networks(self) -> list[keras.Model]:
        """What is trained."""
        return [self.backbone, self.head]

    def compile_for(self, optimizer: keras.optimizers.Optimizer, label_smoothing: float) -> None:
        """Compile it with softmax cross-entropy."""
        self.compile(
            optimizer,
            loss=softmax_loss(self.head.output.shape[-1], label_smoothing),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        )

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits (N, K) of images (N, S, S, C)."""
        return self.head(self.backbone(inputs, training=training), training=training)

    def training_inputs(self, data: Any, positions: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
        """Images with the random colours that are asked for, and their labels."""
        images, labels, *weights = data
        return self.jittered(images, positions), labels, *weights

    def example_batch(self) -> tuple[Any, ...]:
        """An image, its label and its weight."""
        return tf.zeros((1, *self.backbone.input.shape[1:])), tf.zeros(1, tf.int32), tf.ones(1)

    def jittered(self, images: tf.Tensor, positions: tf.Tensor | None) -> tf.Tensor:
        """Training images with the random colours that are asked for."""
        if not (self.augment.jitter or self.augment.greyscale):
            return images
        seed = tf.random.fold_in(self.step_seed(), 1)
        return color_jitter(images, seed, self.augment.jitter, self.augment.greyscale, positions)

    def compute_metrics(
        self, x: tf.Tensor, y: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """Keras's metrics, and the confusion beside them."""
        self.confusion.update_state(y, y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight)


class RotNet(Classifier):
    """A backbone under a rotation classifier, trained on unrotated images.

    `fit` and `evaluate` take batches of (N, S, S, C) pixels; the copies and their labels are made on the
    device, and Keras's own step does the rest, loss scaling and distribution included.

    Args:
        backbone: a model from pixels to a feature map.
        angles: see `rotate_batch`; label k is the k-th angle.
        copies: "all" turns of each image in a batch, or "one" drawn at random in training.
        hidden: units of layers between the features and the classifier of the angles.
        synchronized: the batch normalisations between those go by the batch of all replicas.
        augment: says what happens to colours in training; nothing by default.
        seed: of what is drawn, together with the step.
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
        """The copies of a batch of unrotated images, and the numbers of their angles."""
        pixels, _, weights = keras.utils.unpack_x_y_sample_weight(data)
        images = self.jittered(pixels, positions)
        if self.copies == "one":
            inputs = rotate_one_each(images, self.step_seed(), self.angles, positions)
        else:
            inputs = rotate_batch(images, self.angles)
            weights = None if weights is None else tf.tile(weights, [len(self.angles)])
        return inputs if weights is None else (*inputs, weights)

    def test_step(self, data: tf.Tensor) -> dict[str, tf.Tensor]:
        """Metrics over all copies of a batch of unrotated images, each copy scored by itself."""
        images = keras.utils.unpack_x_y_sample_weight(data)[0]
        return super().test_step(rotate_batch(images, self.angles))


def softmax_loss(classes: int, label_smoothing: float = 0.0) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Softmax cross-entropy between integer labels (N,) and logits (N, K), one number an input."""

    def loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        targets = tf.one_hot(tf.cast(tf.reshape(labels, [-1]), tf.int32), classes)
        return keras.losses.categorical_crossentropy(targets, logits, from_logits=True, label_smoothing=label_smoothing)

    return loss
