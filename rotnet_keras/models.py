"""The models that are trained, on rotations or on labels, and the exports that people take home."""

import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from rotnet_keras.colours import recolour
from rotnet_keras.engine import keras, tf
from rotnet_keras.fused import stock
from rotnet_keras.heads import build_head
from rotnet_keras.rotation import RIGHT_ANGLES, rotate_batch, rotate_one_each
from rotnet_keras.schema import Augment

layers = keras.layers


class Confusion(keras.metrics.Metric):
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


class Classifier(keras.Model):
    """A backbone under a head, trained on images and labels, with a clock on the input pipeline.

    Args:
        backbone: a model from pixels to features.
        head: a model from those to logits (N, K).
        augment: says what happens to colours in training; nothing by default.
        seed: of that, together with the step.

    Attributes:
        confusion: what was taken for what since the metrics were last reset.
        waited: seconds that training has waited for its input pipeline so far.
    """

    train_function: Any

    def __init__(
        self,
        backbone: keras.Model,
        head: keras.Model,
        name: str = "classifier",
        augment: Augment | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(name=name)
        self.backbone = backbone
        self.head = head
        self.augment = augment or Augment()
        self.seed = seed
        self.confusion = Confusion(head.output.shape[-1])
        self.waited = 0.0

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits (N, K) of images (N, S, S, C)."""
        return self.head(self.backbone(inputs, training=training), training=training)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One update on a batch."""
        return super().train_step(self.training_inputs(data))

    def training_inputs(self, data: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """What the network is shown of a batch of images and labels, and what it is to answer."""
        images, labels = data
        return self.recoloured(images), labels

    def recoloured(self, images: tf.Tensor) -> tf.Tensor:
        """Training images with the random colours that are asked for."""
        if not (self.augment.jitter or self.augment.greyscale):
            return images
        seed = tf.random.fold_in(self.draw_seed(), 1)
        return recolour(images, seed, self.augment.jitter, self.augment.greyscale)

    def draw_seed(self) -> tf.Tensor:
        """(2,) int64: the seed of what is drawn in this step."""
        return tf.stack([self.seed, tf.cast(self.optimizer.iterations.value, tf.int64)])

    def make_train_function(self, force: bool = False) -> None:
        """Keras's function of an iterator, but the batch is fetched outside of the graph, against the clock.

        A distributed iterator is left to Keras, and its wait is not measured.
        """
        if self.train_function is not None and not force:
            return
        super().make_train_function(force)
        of_keras = self.train_function

        # One graph for all batches: the signature keeps a smaller last one from tracing another.
        @cache
        def step_on(element: Any) -> Callable[[Any], dict[str, tf.Tensor]]:
            if self.run_eagerly:
                return self.train_step
            return tf.function(
                self.train_step, input_signature=[element], autograph=False, jit_compile=self.jit_compile
            )

        def train_function(iterator: Any) -> dict[str, tf.Tensor]:
            if not isinstance(iterator, tf.data.Iterator) or self.steps_per_execution > 1:
                return of_keras(iterator)
            start = time.perf_counter()
            batch = next(iterator)
            self.waited += time.perf_counter() - start
            return step_on(iterator.element_spec)(batch)

        self.train_function = train_function

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
    ) -> None:
        head = build_head("pool", backbone.output.shape[1:], len(angles), "rotation", hidden=hidden)
        super().__init__(backbone, head, "rotnet", augment, seed)
        self.angles = tuple(angles)
        self.copies = copies

    def training_inputs(self, data: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """The copies of a batch of unrotated images, and the numbers of their angles."""
        images = self.recoloured(keras.utils.unpack_x_y_sample_weight(data)[0])
        if self.copies == "one":
            return rotate_one_each(images, self.draw_seed(), self.angles)
        return rotate_batch(images, self.angles)

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


def with_softmax(backbone: keras.Model, head: keras.Model, name: str) -> keras.Model:
    """One flat functional model from raw pixels to probabilities (N, K), of stock layers only.

    The parts are rebuilt and given the weights, so that the export shares nothing with the model in
    training and is float32 whatever the training's precision.
    """
    inputs = keras.Input(backbone.input.shape[1:], name="pixels")
    features = stock(backbone)(inputs)
    probabilities = layers.Softmax(name="probabilities")(stock(head)(features))
    return keras.Model(inputs, probabilities, name=name)


def first_kernels(backbone: keras.Model) -> np.ndarray:
    """The first convolution's kernels scaled by the batch normalisation after it: (k, k, C, filters).

    Kernel x gamma / sqrt(running variance + epsilon), as the released code draws its figure.
    """
    convolution = next(layer for layer in backbone.layers if isinstance(layer, layers.Conv2D))
    kernels = np.asarray(convolution.kernel)
    following = backbone.layers[backbone.layers.index(convolution) + 1]
    if isinstance(following, layers.BatchNormalization) and following.scale:
        variance = np.asarray(following.moving_variance)
        kernels = kernels * np.asarray(following.gamma) / np.sqrt(variance + following.epsilon)
    return kernels
