"""A step whose batch is computed in parts, one after the other, where the whole would not fit into memory."""

from typing import Any, Protocol

from rotnet_keras.engine import keras, tf


class Accumulating(Protocol):
    """A compiled Keras model that makes its inputs of a batch; see `Trained`."""

    metrics: list[keras.metrics.Metric]
    optimizer: keras.optimizers.Optimizer
    trainable_variables: list[keras.Variable]
    compute_loss: Any
    compute_metrics: Any
    get_metrics_result: Any

    def __call__(self, inputs: tf.Tensor, training: bool) -> tf.Tensor:
        """Logits."""

    def training_inputs(self, data: Any, numbers: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
        """What the network is shown of a batch."""


def accumulated_step(model: Accumulating, data: Any, numbers: tf.Tensor, parts: int) -> dict[str, tf.Tensor]:
    """One update by the mean gradient of the parts of a batch: that of the whole, but for batch normalisation.

    Args:
        data: images (N, S, S, C), or these with labels and weights; None stands for what is not there.
        numbers: (N,) the images' positions in the batch of all replicas.
        parts: at most so many, of equal size or one image more.

    Returns:
        The metrics, as Keras's own step gives them.
    """
    count = tf.shape(numbers)[0]
    parts = tf.minimum(parts, count)

    def add_part(i: tf.Tensor, gradients: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        rows = tf.range(i, count, parts)
        part = tf.nest.map_structure(lambda values: None if values is None else tf.gather(values, rows), data)
        inputs = model.training_inputs(part, tf.gather(numbers, rows))
        x, y, weights = keras.utils.unpack_x_y_sample_weight(inputs)
        with tf.GradientTape() as tape:
            predicted = model(x, training=True)
            loss = model.compute_loss(x, y, predicted, weights, training=True)
            share = tf.cast(tf.size(rows) / count, loss.dtype)
            scaled = model.optimizer.scale_loss(loss * share)
        more = tape.gradient(scaled, model.trainable_variables)
        # Keras divides losses by the number of replicas, whose gradients it adds.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        model.metrics[0].update_state(loss * replicas, sample_weight=tf.shape(y)[0])
        model.compute_metrics(x, y, predicted, weights)
        return i + 1, [a + b for a, b in zip(gradients, more, strict=True)]

    zeros = [tf.zeros_like(variable.value) for variable in model.trainable_variables]
    _, gradients = tf.while_loop(lambda i, _: i < parts, add_part, (0, zeros), parallel_iterations=1)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    return model.get_metrics_result()
