"""The form a model is trained in: batch normalisation as one kernel, which Keras makes of a dozen.

A convolutional network on a CPU spends as long moving its feature maps through Keras's batch normalisation
as it does multiplying. TensorFlow has the whole of it as one operation, forward and backward, which oneDNN
joins with a ReLU that follows. Exports go back to the stock layer, whose outputs are the same.
"""

from collections.abc import Callable
from typing import Any

from rotnet_keras.engine import keras, tf

# What stands before the first convolution, where a low precision would cost the images their detail.
PIXEL_LAYERS = (keras.layers.InputLayer, keras.layers.Rescaling, keras.layers.Normalization)


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer, its variables and its configuration, on (N, H, W, C) inputs computed by one operation.

    What is accumulated as the moving variance is the batch's unbiased one, n / (n - 1) of Keras's for n
    values a channel, as PyTorch does.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        """Normalise with the statistics of the batch in training, else with the moving ones."""
        gamma = tf.ones_like(self.moving_mean) if self.gamma is None else tf.convert_to_tensor(self.gamma)
        beta = tf.zeros_like(gamma) if self.beta is None else tf.convert_to_tensor(self.beta)
        if not (training and self.trainable):
            return tf.compat.v1.nn.fused_batch_norm(
                inputs, gamma, beta, self.moving_mean, self.moving_variance, self.epsilon, is_training=False
            )[0]
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(inputs, gamma, beta, epsilon=self.epsilon)
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + value * (1.0 - self.momentum))
        return outputs


def with_fused_batch_norm(model: keras.Model, precision: str | None = None, synchronized: bool = False) -> keras.Model:
    """A copy of a functional model to train: equal weights, every batch normalisation of a map fused.

    Args:
        precision: what its layers compute in, but for those that scale pixels; by default what they do already.
        synchronized: batch normalisation goes by the batch of all replicas, as Keras computes it, unfused.
    """

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if precision is not None and not isinstance(layer, PIXEL_LAYERS):
            config["dtype"] = precision
        if synchronized and type(layer) is keras.layers.BatchNormalization:
            return type(layer).from_config(config | {"synchronized": True})
        kind = FusedBatchNormalization if _normalises_a_map(layer) else type(layer)
        return kind.from_config(config)

    return _copy(model, clone)


def with_stock_layers(model: keras.Model) -> keras.Model:
    """A copy of a functional model to give away: equal weights, built-in layers only, all float32."""

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config() | {"dtype": "float32"}
        if isinstance(layer, keras.layers.BatchNormalization):
            return keras.layers.BatchNormalization.from_config(config | {"synchronized": False})
        return type(layer).from_config(config)

    return _copy(model, clone)


def _copy(model: keras.Model, clone: Callable[[keras.layers.Layer], keras.layers.Layer]) -> keras.Model:
    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def _normalises_a_map(layer: keras.layers.Layer) -> bool:
    if type(layer) is not keras.layers.BatchNormalization or layer.synchronized or layer.renorm:
        return False
    return layer.input_spec.ndim == 4 and layer.axis in (-1, 3)
