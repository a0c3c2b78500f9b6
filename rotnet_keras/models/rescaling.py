"""Batch normalisation folded into weights, and weights rescaled: what the paper does before it transfers to PASCAL VOC.

Krähenbühl, Doersch, Donahue and Darrell, "Data-dependent initializations of convolutional neural networks" (ICLR 2016):
what a net computes does not change when a layer is made larger by a factor and the next one smaller by it, as long as
only ReLUs and pools lie between them. But how fast a layer learns does. The factors are chosen so that all layers'
gradients have the same size relative to their weights.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rotnet_keras.config.sections import Data
from rotnet_keras.data.datasets import load
from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import DataError
from rotnet_keras.models.export import load_backbone, save_model
from rotnet_keras.models.fused_batch_norm import with_stock_layers

layers = keras.layers

AFFINE = (layers.Conv2D, layers.Dense)
# Layers that a positive factor passes through unchanged.
HOMOGENEOUS = (
    layers.ReLU,
    layers.MaxPooling2D,
    layers.AveragePooling2D,
    layers.GlobalAveragePooling2D,
    layers.Flatten,
    layers.ZeroPadding2D,
    layers.Dropout,
)
ITERATIONS, DAMPING = 10, 0.25
IMAGES = 64


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """The same function without batch normalisation: the running statistics become weights and biases.

    Args:
        model: a chain of layers.

    Raises:
        DataError: it is no chain, or normalises something else than what a convolution or dense layer gives.
    """
    x = keras.Input(model.input.shape[1:], name=model.layers[0].name)
    inputs = x
    chain = list(_chain(model))
    for layer, following in zip(chain, [*chain[1:], None], strict=True):
        if isinstance(layer, layers.BatchNormalization):
            continue
        config = layer.get_config()
        if isinstance(layer, AFFINE) and isinstance(following, layers.BatchNormalization):
            copy = type(layer).from_config(config | {"use_bias": True})
            x = copy(x)
            copy.set_weights(_with_statistics(layer, following))
            continue
        copy = type(layer).from_config(config)
        x = copy(x)
        copy.set_weights(layer.get_weights())
    return keras.Model(inputs, x, name=model.name)


def _chain(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers after the input, one after the other."""
    previous = model.layers[0]
    for layer in model.layers[1:]:
        if layer.input is not previous.output:
            raise DataError(f"{model.name} is no chain of layers (see {layer.name}): only such can be rescaled")
        if isinstance(layer, layers.BatchNormalization) and not isinstance(previous, AFFINE):
            raise DataError(f"{layer.name} follows on {previous.name}: it cannot be folded into weights")
        yield layer
        previous = layer


def _with_statistics(layer: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    """Kernel and bias of a layer and the normalisation after it: W g / s and (b - m) g / s + o."""
    kernel, *bias = layer.get_weights()
    mean, variance = np.asarray(norm.moving_mean), np.asarray(norm.moving_variance)
    factor = (np.asarray(norm.gamma) if norm.scale else 1.0) / np.sqrt(variance + norm.epsilon)
    offset = np.asarray(norm.beta) if norm.center else 0.0
    return [kernel * factor, ((bias[0] if bias else 0.0) - mean) * factor + offset]


def rescale(model: keras.Model, images: np.ndarray, seed: int) -> list[float]:
    """Let all layers of a folded chain learn equally fast; what it computes stays as it is.

    Args:
        images: (N, H, W, C) pixels to go by.
        seed: of the directions in which gradients are taken.

    Returns:
        What each layer was multiplied by in all; their product is 1.

    Raises:
        DataError: something lies between its layers that a factor does not pass through.
    """
    affine = [layer for layer in model.layers if isinstance(layer, AFFINE)]
    between = model.layers[model.layers.index(affine[0]) + 1 :]
    for layer in between:
        relu = isinstance(layer, layers.Activation) and layer.activation is keras.activations.relu
        if not relu and not isinstance(layer, (*AFFINE, *HOMOGENEOUS)):
            raise DataError(
                f"{layer.name} is neither a convolution or dense layer nor a ReLU or pool: no rescaling past it"
            )
    total = np.ones(len(affine))
    for iteration in range(ITERATIONS):
        speeds = _speeds(model, affine, images, (seed, iteration))
        wanted = np.exp(np.mean(np.log(speeds)))
        # A layer made smaller by a factor learns faster by its square: the output's gradient comes through the others.
        factors = (speeds / wanted) ** (DAMPING / 2)
        carried = 1.0
        for layer, factor in zip(affine, factors, strict=True):
            kernel, *bias = layer.get_weights()
            carried *= factor
            layer.set_weights([kernel * factor, *(b * carried for b in bias)])
        total *= factors
    return [float(factor) for factor in total]


def folded_and_rescaled(model: keras.Model, images: np.ndarray, untrained: bool = False) -> keras.Model:
    """`folded` and `rescale` at once, in float32 whatever the model computes in.

    Args:
        untrained: its batch normalisations first take the statistics of the images.
    """
    model = with_stock_layers(model)
    if untrained:
        set_batch_norm_statistics(model, images)
    chain = fold_batch_norm(model)
    rescale(chain, images, 0)
    return chain


def set_batch_norm_statistics(model: keras.Model, images: np.ndarray) -> None:
    """Make the running statistics of all batch normalisations those of some images."""
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(images, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def rescale_file(source: Path, folder: Path, target: Path) -> dict[str, float]:
    """Fold and rescale a saved backbone, by some images of a folder.

    Returns:
        What each layer was multiplied by, by its name.

    Raises:
        DataError: file or images are not usable.
    """
    model = load_backbone(source)
    height, _, channels = model.input.shape[1:]
    data = Data(name=str(folder), size=height, channels=channels, cache="none", validation=0.0)
    dataset = load(data)
    chain = fold_batch_norm(model)
    factors = rescale(chain, dataset.train.images(evenly_spaced(len(dataset.train))), 0)
    save_model(chain, target)
    return dict(zip([layer.name for layer in chain.layers if isinstance(layer, AFFINE)], factors, strict=True))


def evenly_spaced(count: int) -> np.ndarray:
    """Positions of some images to go by, of so many."""
    return np.linspace(0, count - 1, min(count, IMAGES)).astype(np.int64)


def _speeds(
    model: keras.Model, affine: list[keras.layers.Layer], images: np.ndarray, seed: tuple[int, int]
) -> np.ndarray:
    """The size of each layer's gradient relative to its weights, root mean squares over its output channels."""
    kernels = [layer.kernel for layer in affine]
    with tf.GradientTape() as tape:
        outputs = model(images, training=False)
        direction = tf.random.stateless_normal(tf.shape(outputs), seed)
        loss = tf.reduce_sum(outputs * direction) / len(images)
    speeds = []
    for kernel, gradient in zip(kernels, tape.gradient(loss, [k.value for k in kernels]), strict=True):
        axes = tuple(range(len(kernel.shape) - 1))
        of_gradient = np.sqrt(np.sum(np.square(gradient), axis=axes))
        of_kernel = np.sqrt(np.sum(np.square(kernel.numpy()), axis=axes))
        alive = of_kernel > 0
        speeds.append(float(np.mean(of_gradient[alive] / of_kernel[alive])))
    return np.maximum(np.array(speeds), 1e-30)
