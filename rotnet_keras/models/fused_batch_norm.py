"""Batch normalisation for training: with PyTorch's running variance, and fused on feature maps.

PyTorch's running variance is unbiased, n / (n - 1) times Keras's for n values per channel: 1 % more for a batch of 100
vectors.

On a CPU, Keras's batch normalisation takes a convolutional network as long as its convolutions. TensorFlow has a fused
operation for the forward and the backward pass, which oneDNN also joins with a ReLU behind it. Exports go back to
Keras's own layer, whose outputs are the same.
"""

from collections.abc import Callable
from typing import Any

from rotnet_keras.engine import keras, tf
from rotnet_keras.models.step_dropout import StepDropout

# Layers on raw pixels stay in float32: a lower precision would lose detail of the images.
PIXEL_LAYERS = (keras.layers.InputLayer, keras.layers.Rescaling, keras.layers.Normalization)


class UnbiasedBatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer with the same variables, configuration and outputs, and an unbiased running variance.

    For inputs of any rank and axis, for example (N, F); without masks. With `synchronized`, n counts the values of all
    replicas.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        """Normalise with the statistics of the batch in training, with the moving statistics otherwise."""
        if not (training and self.trainable):
            return super().call(inputs, training=False)
        # As in Keras, half precision is normalised in float32.
        inputs = tf.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        axes = [axis for axis in range(inputs.shape.rank) if axis != self.axis % inputs.shape.rank]
        mean, variance = keras.ops.moments(inputs, axes=axes, synchronized=self.synchronized)
        count = self._values_per_channel(inputs, axes)
        unbiased = variance * count / tf.maximum(count - 1.0, 1.0)
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, unbiased)):
            moving.assign(tf.convert_to_tensor(moving) * self.momentum + value * (1.0 - self.momentum))
        beta, gamma = (None if v is None else tf.cast(v, inputs.dtype) for v in (self.beta, self.gamma))
        outputs = keras.ops.batch_normalization(inputs, mean, variance, self.axis, beta, gamma, self.epsilon)
        return tf.cast(outputs, self.compute_dtype)

    def _values_per_channel(self, inputs: tf.Tensor, axes: list[int]) -> tf.Tensor:
        count = tf.cast(tf.reduce_prod(tf.gather(tf.shape(inputs), axes)), inputs.dtype)
        replica = tf.distribute.get_replica_context()
        if not self.synchronized or replica is None:
            return count
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, count)


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer with the same variables and configuration, computed by one operation, for inputs (N, H, W, C).

    The running variance is unbiased, as in `UnbiasedBatchNormalization`.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        """Normalise with the statistics of the batch in training, with the moving statistics otherwise."""
        gamma = tf.ones_like(self.moving_mean) if self.gamma is None else tf.convert_to_tensor(self.gamma)
        beta = tf.zeros_like(gamma) if self.beta is None else tf.convert_to_tensor(self.beta)
        if training and not self.trainable and tf.config.list_physical_devices("GPU"):
            # The fused operation with fixed statistics has no deterministic gradient on a GPU.
            return super().call(inputs, training=False)
        if not (training and self.trainable):
            return tf.compat.v1.nn.fused_batch_norm(
                inputs, gamma, beta, self.moving_mean, self.moving_variance, self.epsilon, is_training=False
            )[0]
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(inputs, gamma, beta, epsilon=self.epsilon)
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + value * (1.0 - self.momentum))
        return outputs


def with_fused_batch_norm(model: keras.Model, precision: str | None = None, synchronized: bool = False) -> keras.Model:
    """Copy a functional model for training: its batch normalisations get an unbiased running variance, fused on maps.

    Args:
        model: of built-in layers. Batch renormalisation stays Keras's.
        precision: the dtype policy of its layers, except those that scale pixels; by default that of each layer.
        synchronized: use the statistics of the batch of all replicas, which the fused operation cannot.

    Returns:
        A model with the same layer names and equal weights.
    """

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if precision is not None and not isinstance(layer, PIXEL_LAYERS):
            config["dtype"] = precision
        if type(layer) is not keras.layers.BatchNormalization or layer.renorm:
            return type(layer).from_config(config)
        config["synchronized"] = synchronized or layer.synchronized
        fused = _normalises_feature_map(layer) and not config["synchronized"]
        return (FusedBatchNormalization if fused else UnbiasedBatchNormalization).from_config(config)

    return _copy(model, clone)


def with_stock_layers(model: keras.Model) -> keras.Model:
    """Copy a functional model for export: built-in layers in float32, with the same names and equal weights."""

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if not isinstance(layer, keras.layers.Layer):
            # An operation on tensors, such as those that average over views.
            return type(layer).from_config(layer.get_config())
        config = layer.get_config() | {"dtype": "float32"}
        if isinstance(layer, keras.layers.BatchNormalization):
            return keras.layers.BatchNormalization.from_config(config | {"synchronized": False})
        if isinstance(layer, StepDropout):
            return keras.layers.Dropout(layer.rate, name=layer.name)
        return type(layer).from_config(config)

    return _copy(model, clone)


def _copy(model: keras.Model, clone: Callable[[keras.layers.Layer], keras.layers.Layer]) -> keras.Model:
    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


def _normalises_feature_map(layer: keras.layers.BatchNormalization) -> bool:
    return layer.input_spec.ndim == 4 and layer.axis in (-1, 3)
