"""Fused batch normalisation for training: one operation instead of the dozen of Keras's layer.

On a CPU, Keras's batch normalisation takes a convolutional network as long as its convolutions. TensorFlow has a fused
operation for the forward and the backward pass, which oneDNN also joins with a ReLU behind it. Exports go back to
Keras's own layer, whose outputs are the same.
"""

from collections.abc import Callable
from typing import Any

from rotnet_keras.engine import keras, tf

# Layers on raw pixels stay in float32: a lower precision would lose detail of the images.
PIXEL_LAYERS = (keras.layers.InputLayer, keras.layers.Rescaling, keras.layers.Normalization)


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer with the same variables and configuration, computed by one operation, for inputs (N, H, W, C).

    The moving variance accumulates the unbiased variance of a batch, n / (n - 1) times Keras's for n values per
    channel, as in PyTorch.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        """Normalise with the statistics of the batch in training, with the moving statistics otherwise."""
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
    """Copy a functional model for training, with every batch normalisation of a feature map fused.

    Args:
        model: of built-in layers.
        precision: the dtype policy of its layers, except those that scale pixels; by default that of each layer.
        synchronized: use the statistics of the batch of all replicas instead; Keras's own layer does that, unfused.

    Returns:
        A model with the same layer names and equal weights.
    """

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if precision is not None and not isinstance(layer, PIXEL_LAYERS):
            config["dtype"] = precision
        if synchronized and type(layer) is keras.layers.BatchNormalization:
            return type(layer).from_config(config | {"synchronized": True})
        layer_class = FusedBatchNormalization if _normalises_feature_map(layer) else type(layer)
        return layer_class.from_config(config)

    return _copy(model, clone)


def with_stock_layers(model: keras.Model) -> keras.Model:
    """Copy a functional model for export: built-in layers in float32, with the same names and equal weights."""

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


def _normalises_feature_map(layer: keras.layers.Layer) -> bool:
    if type(layer) is not keras.layers.BatchNormalization or layer.synchronized or layer.renorm:
        return False
    return layer.input_spec.ndim == 4 and layer.axis in (-1, 3)
