"""Dropout whose masks are a function of seed and step, so that a resumed run drops what an uninterrupted one does."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import DataError

layers = keras.layers


class StepDropout(keras.layers.Layer):
    """Dropout with the random numbers of a step. Keras's own draws them from a state that counts its calls.

    On several replicas each drops other features than the same images would on one device.

    Args:
        rate: the share of the features that are dropped.
        **options: of `keras.layers.Layer`.

    Attributes:
        step_seed: gives the seed of the present step, (2,) integers; set by `use_step_seeds`.
    """

    step_seed: Callable[[], tf.Tensor] | None = None

    def __init__(self, rate: float, **options: Any) -> None:
        super().__init__(**options)
        self.rate = rate
        self.supports_masking = True

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """In training, features without those that are dropped, scaled so that their expectation stays."""
        if not training or not self.rate:
            return inputs
        assert self.step_seed is not None
        seed = tf.random.fold_in(self.step_seed(), zlib.crc32(self.name.encode()) % 2**31)
        context = tf.distribute.get_replica_context()
        if tf.distribute.get_strategy().num_replicas_in_sync > 1 and context:
            seed = tf.random.fold_in(seed, tf.cast(context.replica_id_in_sync_group, tf.int64))
        kept = tf.random.stateless_uniform(tf.shape(inputs), seed) >= self.rate
        return tf.where(kept, inputs / (1 - self.rate), tf.zeros_like(inputs))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        """The shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The configuration, as Keras saves it."""
        return {**super().get_config(), "rate": self.rate}


def with_dropout(model: keras.Model, rate: float) -> keras.Model:
    """Copy a model with dropout behind the activation of each of its layers of vectors.

    Args:
        model: a functional model, such as AlexNet's fc6 and fc7.
        rate: of the dropout; the model itself is returned for 0.

    Raises:
        DataError: the model has no activation of vectors.
    """
    if not rate:
        return model
    dropped = []

    def call(layer: keras.layers.Layer, *arguments: Any, **options: Any) -> Any:
        outputs = layer(*arguments, **options)
        if not isinstance(layer, layers.Activation | layers.ReLU) or len(outputs.shape) != 2:
            return outputs
        dropped.append(StepDropout(rate, name=f"{layer.name}_dropout"))
        return dropped[-1](outputs)

    copy = keras.models.clone_model(model, call_function=call)
    copy.set_weights(model.get_weights())
    check_dropout(len(dropped))
    return copy


def check_dropout(count: int) -> None:
    """Check that dropout was put somewhere.

    Raises:
        DataError: it was not.
    """
    if not count:
        raise DataError("dropout: the backbone does not end in dense layers with activations; leave it out")


def use_step_seeds(networks: Sequence[keras.Model], step_seed: Callable[[], tf.Tensor]) -> None:
    """Give all dropout of some networks the seeds of the steps of the model in training."""
    for network in networks:
        for layer in network._flatten_layers():
            if isinstance(layer, StepDropout):
                layer.step_seed = step_seed
