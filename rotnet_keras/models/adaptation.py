"""Test-time adaptation: a trained classifier is fitted to new images without labels, before it predicts them.

Either batch normalisation takes its statistics from the new images (Schneider et al., NeurIPS 2020), or the layers that
classes and rotations share are trained on the rotations of the new images (Sun et al., ICML 2020).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import DataError
from rotnet_keras.models.rotation import rotate_batch

# Plain SGD on the rotation loss, with the rate of Sun et al.
LEARNING_RATE = 1e-3


def normalisations(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """The batch normalisations of a model and of the models in it, each once."""
    return [layer for layer in _leaves(model) if isinstance(layer, keras.layers.BatchNormalization)]


def take_statistics(model: keras.Model, batches: Iterable[np.ndarray]) -> int:
    """Replace the moving statistics of all batch normalisations by the mean and the variance over new images.

    It takes one pass. Within it, each batch is normalised by its own statistics, as in training; dropout is off.

    Args:
        model: from images (N, H, W, C) to any outputs; its other weights are left as they are.
        batches: of the images, in an order without meaning.

    Returns:
        The number of batch normalisations.
    """
    measured: dict[int, _Measured] = {}

    def clone(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.BatchNormalization):
            return layer
        return measured.setdefault(id(layer), _Measured(layer))

    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    for images in batches:
        copy(images.astype(np.float32), training=False)
    for each in measured.values():
        each.apply()
    return len(measured)


@dataclass(frozen=True)
class Steps:
    """What training on the rotations of new images did.

    Attributes:
        count: the number of steps.
        layers: the number of shared layers that they changed.
        before: the rotation loss of the first batch before the steps, in nats.
        after: that of the same batch after them.
    """

    count: int
    layers: int
    before: float
    after: float


def train_on_rotations(
    classifier: keras.Model, rotations: keras.Model, angles: Sequence[int], batches: Iterable[np.ndarray]
) -> Steps:
    """Train the layers that a classifier shares with a rotation model on the rotations of new images.

    Layers are shared that have the same name and the same weights in both. A batch is a step. Batch normalisation keeps
    its statistics, and the head of the rotations its weights.

    Args:
        classifier: from images to classes; its shared layers are changed.
        rotations: from images (N, T, U, C) to probabilities (N, K) of the angles; changed in the same way.
        angles: the K angles in degrees.
        batches: of images (N, H, W, C).

    Raises:
        DataError: they share no layers, as where one of both was trained further.
    """
    pairs = _shared_layers(classifier, rotations)
    if not pairs:
        raise DataError(
            "the classifier shares no layers with the rotation model beside it: it needs one that learned rotations "
            "beside its labels, by [auxiliary] in its recipe"
        )
    for _, layer in pairs:
        layer.trainable = True
    variables = [variable for _, layer in pairs for variable in layer.trainable_variables]
    optimizer = keras.optimizers.SGD(LEARNING_RATE)
    optimizer.build(variables)

    def rotation_loss(images: np.ndarray) -> tf.Tensor:
        copies, labels = rotate_batch(tf.constant(images, tf.float32), angles)
        probabilities = rotations(copies, training=False)
        return tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, probabilities))

    count, before, first = 0, 0.0, np.zeros(0)
    for images in batches:
        with tf.GradientTape() as tape:
            loss = rotation_loss(images)
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        optimizer.apply(gradients, variables)
        if not count:
            before, first = float(loss), images
        count += 1
    for own, layer in pairs:
        own.set_weights(layer.get_weights())
    return Steps(count, len(pairs), before, float(rotation_loss(first)))


class _Measured(keras.layers.Layer):
    """A batch normalisation by the statistics of each batch, which sums them up.

    Args:
        normalisation: the layer whose scale and shift are used.
    """

    def __init__(self, normalisation: keras.layers.BatchNormalization) -> None:
        super().__init__(name=normalisation.name, dtype=normalisation.dtype_policy)
        self.normalisation = normalisation
        size = normalisation.moving_mean.shape[0]
        self.sums = np.zeros((2, size))
        self.images = 0

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the inputs."""
        return input_shape

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        """Normalise a batch, and add its statistics, weighted by its number of images."""
        layer = self.normalisation
        values = tf.cast(inputs, tf.float32)
        axes = [axis for axis in range(values.shape.rank) if axis != layer.axis % values.shape.rank]
        mean, variance = keras.ops.moments(values, axes=axes)
        count = inputs.shape[0]
        moments = np.asarray(mean, np.float64), np.asarray(variance, np.float64)
        self.sums += count * np.stack([moments[0], moments[1] + moments[0] ** 2])
        self.images += count
        outputs = keras.ops.batch_normalization(
            values, mean, variance, layer.axis, layer.beta, layer.gamma, layer.epsilon
        )
        return tf.cast(outputs, inputs.dtype)

    def apply(self) -> None:
        """Give the layer the mean and the variance over all batches."""
        mean, squares = self.sums / self.images
        self.normalisation.moving_mean.assign(mean)
        self.normalisation.moving_variance.assign(np.maximum(squares - mean**2, 0))


def _leaves(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model and of the models in it, each once."""

    def walk(part: keras.Model) -> Iterator[keras.layers.Layer]:
        for layer in part.layers:
            if isinstance(layer, keras.Model):
                yield from walk(layer)
            else:
                yield layer

    return list({id(layer): layer for layer in walk(model)}.values())


def _shared_layers(
    classifier: keras.Model, rotations: keras.Model
) -> list[tuple[keras.layers.Layer, keras.layers.Layer]]:
    """The layers of both models that have the same name and the same weights, in pairs."""
    by_name = {layer.name: layer for layer in _leaves(rotations) if layer.weights}
    pairs = [(own, by_name[own.name]) for own in _leaves(classifier) if own.weights and own.name in by_name]

    def equal(first: keras.layers.Layer, second: keras.layers.Layer) -> bool:
        weights = first.get_weights(), second.get_weights()
        return len(weights[0]) == len(weights[1]) and all(map(np.array_equal, *weights))

    # A normalisation of pixels has weights that are none of the training's.
    return [pair for pair in pairs if equal(*pair) and not isinstance(pair[0], keras.layers.Normalization)]
