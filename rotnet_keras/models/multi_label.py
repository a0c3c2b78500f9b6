"""A multi-label classifier, for images with objects of several classes."""

from rotnet_keras.engine import keras, tf
from rotnet_keras.models.rotnet import Classifier

# The label of a class whose objects in an image are all marked difficult in VOC: neither right nor wrong.
DIFFICULT = -1


class TopClassAccuracy(keras.metrics.Mean):
    """The share of the images that contain their most likely class; difficult objects count as contained."""

    def __init__(self) -> None:
        super().__init__(name="accuracy")

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        """Add a batch of labels (N, K) and logits (N, K)."""
        found = tf.gather(y_true, tf.argmax(y_pred, axis=-1), axis=-1, batch_dims=1)
        super().update_state(tf.cast(found != 0, tf.float32), sample_weight)


class MultiLabelClassifier(Classifier):
    """A classifier with a sigmoid for each class.

    It trains on labels (N, K): 1 for a class in the image, 0 for one that is not, `DIFFICULT` for one to leave out.
    """

    def compile_for(self, optimizer: keras.optimizers.Optimizer, label_smoothing: float) -> None:
        """Compile with `sigmoid_loss`."""
        self.compile(
            optimizer, loss=lambda y, logits: sigmoid_loss(y, logits, label_smoothing), metrics=[TopClassAccuracy()]
        )

    def example_batch(self) -> tuple[tf.Tensor, ...]:
        """An image, its labels and a sample weight, each of batch size 1."""
        classes = self.head.output.shape[-1]
        return tf.zeros((1, *self.backbone.input.shape[1:])), tf.zeros((1, classes), tf.int32), tf.ones(1)

    def compute_metrics(
        self, x: tf.Tensor, y: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """Keras's metrics without the confusion matrix, which needs a single class for each image."""
        return keras.Model.compute_metrics(self, x, y, y_pred, sample_weight)


def sigmoid_loss(labels: tf.Tensor, logits: tf.Tensor, label_smoothing: float = 0.0) -> tf.Tensor:
    """The sum of the sigmoid cross-entropies over the classes that are not difficult.

    Args:
        labels: (N, K), 1, 0 or `DIFFICULT`.
        logits: (N, K).
        label_smoothing: in [0, 1).

    Returns:
        (N,) float32.
    """
    logits = tf.cast(logits, tf.float32)
    targets = tf.cast(labels > 0, tf.float32) * (1 - label_smoothing) + 0.5 * label_smoothing
    each = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
    return tf.reduce_sum(tf.where(labels == DIFFICULT, 0.0, each), axis=-1)
