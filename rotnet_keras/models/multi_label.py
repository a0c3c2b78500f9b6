"""A classifier of pictures in which several classes may be."""

from rotnet_keras.engine import keras, tf
from rotnet_keras.models.rotnet import Classifier

# A class that is there, but that nobody is asked for.
DIFFICULT = -1


class TopClassAccuracy(keras.metrics.Mean):
    """Share of the pictures whose most likely class is there; difficult ones count as there."""

    def __init__(self) -> None:
        super().__init__(name="accuracy")

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        """Add a batch: labels (N, K), logits (N, K)."""
        found = tf.gather(y_true, tf.argmax(y_pred, axis=-1), axis=-1, batch_dims=1)
        super().update_state(tf.cast(found != 0, tf.float32), sample_weight)


class MultiLabelClassifier(Classifier):
    """A classifier with a sigmoid for each class, trained on labels (N, K): 1 there, 0 not, `DIFFICULT`."""

    def compile_for(self, optimizer: keras.optimizers.Optimizer, label_smoothing: float) -> None:
        """Compile it with the mean, over what is not difficult, of each sigmoid's cross-entropy."""
        self.compile(
            optimizer, loss=lambda y, logits: sigmoid_loss(y, logits, label_smoothing), metrics=[TopClassAccuracy()]
        )

    def example_batch(self) -> tuple[tf.Tensor, ...]:
        """A picture, its labels and its weight."""
        classes = self.head.output.shape[-1]
        return tf.zeros((1, *self.backbone.input.shape[1:])), tf.zeros((1, classes), tf.int32), tf.ones(1)

    def compute_metrics(
        self, x: tf.Tensor, y: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """Keras's metrics alone: a picture is not of one class."""
        return keras.Model.compute_metrics(self, x, y, y_pred, sample_weight)


def sigmoid_loss(labels: tf.Tensor, logits: tf.Tensor, label_smoothing: float = 0.0) -> tf.Tensor:
    """Sum over the classes that are not difficult of the sigmoids' cross-entropy, (N,).

    Args:
        labels, logits: (N, K).
    """
    logits = tf.cast(logits, tf.float32)
    targets = tf.cast(labels > 0, tf.float32) * (1 - label_smoothing) + 0.5 * label_smoothing
    each = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
    return tf.reduce_sum(tf.where(labels == DIFFICULT, 0.0, each), axis=-1)
