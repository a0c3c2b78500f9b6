"""Rescaling of a backbone's weights before transfer to PASCAL VOC, as the paper does.

Krähenbühl, Doersch, Donahue and Darrell, "Data-dependent initializations of convolutional neural networks" (ICLR 2016).
Multiplying the weights of one layer by a factor and dividing those of the next by it does not change what a network
computes, as long as only ReLUs and pools lie between them. But it changes how fast each layer learns. The factors are
chosen so that the gradients of all layers have the same size relative to their weights. Batch normalisation is folded
into the weights first.
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

# Layers with weights to rescale.
AFFINE = (layers.Conv2D, layers.Dense)
# Layers f with f(c x) = c f(x) for every positive c.
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
# The images that gradients are estimated on.
IMAGES = 64


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Fold batch normalisation into the weights and biases of the layers before it.

    Args:
        model: a chain of layers.

    Returns:
        A model without batch normalisation that computes the same with the moving statistics.

    Raises:
        DataError: the model is not a chain, or a batch normalisation does not follow on a convolution or dense layer.
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
            copy.set_weights(_folded_weights(layer, following))
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
            raise DataError(f"{model.name} is no chain of layers (see layer {layer.name}); only chains can be rescaled")
        if isinstance(layer, layers.BatchNormalization) and not isinstance(previous, AFFINE):
            raise DataError(
                f"layer {layer.name} follows on {previous.name}, so it cannot be folded into weights; only a batch "
                "normalisation behind a convolution or dense layer can"
            )
        yield layer
        previous = layer


def _folded_weights(layer: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    """Kernel and bias of a layer with the batch normalisation behind it folded in: W g / s and (b - m) g / s + o."""
    kernel, *bias = layer.get_weights()
    mean, variance = np.asarray(norm.moving_mean), np.asarray(norm.moving_variance)
    factor = (np.asarray(norm.gamma) if norm.scale else 1.0) / np.sqrt(variance + norm.epsilon)
    offset = np.asarray(norm.beta) if norm.center else 0.0
    return [kernel * factor, ((bias[0] if bias else 0.0) - mean) * factor + offset]


def rescale(model: keras.Model, images: np.ndarray, seed: int) -> list[float]:
    """Rescale the layers of a folded chain in place so that all learn equally fast; its outputs stay the same.

    Args:
        model: the result of `fold_batch_norm`.
        images: (N, H, W, C) pixels, on which gradients are estimated.
        seed: of the random directions of these gradients.

    Returns:
        The factor of each convolution and dense layer, in order; their product is 1.

    Raises:
        DataError: a layer between them is neither a ReLU nor a pool, so that factors cannot be moved across it.
    """
    affine = [layer for layer in model.layers if isinstance(layer, AFFINE)]
    between = model.layers[model.layers.index(affine[0]) + 1 :]
    for layer in between:
        relu = isinstance(layer, layers.Activation) and layer.activation is keras.activations.relu
        if not relu and not isinstance(layer, (*AFFINE, *HOMOGENEOUS)):
            raise DataError(
                f"layer {layer.name} is neither a convolution, a dense layer, a ReLU nor a pool; weights cannot be "
                "rescaled across it"
            )
    total = np.ones(len(affine))
    for iteration in range(ITERATIONS):
        relative_gradients = _relative_gradients(model, affine, images, (seed, iteration))
        target = np.exp(np.mean(np.log(relative_gradients)))
        # Dividing a layer by a factor multiplies its relative gradient by the square of it: its weights shrink, and the
        # other layers, which the gradient passes through, grow.
        factors = (relative_gradients / target) ** (DAMPING / 2)
        cumulative = 1.0
        for layer, factor in zip(affine, factors, strict=True):
            kernel, *bias = layer.get_weights()
            cumulative *= factor
            layer.set_weights([kernel * factor, *(b * cumulative for b in bias)])
        total *= factors
    return [float(factor) for factor in total]


def folded_and_rescaled(model: keras.Model, images: np.ndarray, untrained: bool = False) -> keras.Model:
    """A copy of a model with folded batch normalisation and rescaled weights, in float32.

    Args:
        model: a chain of layers.
        images: (N, H, W, C) pixels.
        untrained: set the moving statistics of its batch normalisation from the images first.

    Raises:
        DataError: it cannot be folded or rescaled.
    """
    model = with_stock_layers(model)
    if untrained:
        set_batch_norm_statistics(model, images)
    chain = fold_batch_norm(model)
    rescale(chain, images, 0)
    return chain


def set_batch_norm_statistics(model: keras.Model, images: np.ndarray) -> None:
    """Set the moving statistics of all batch normalisation layers to those of some images (N, H, W, C)."""
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(images, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def rescale_file(source: Path, folder: Path, target: Path) -> dict[str, float]:
    """Fold and rescale a saved backbone, with gradients on images of a folder.

    Args:
        source: a `.keras` file.
        folder: of images.
        target: the `.keras` file to write.

    Returns:
        The factor of each convolution and dense layer, by its name.

    Raises:
        DataError: the file or the images cannot be read, or the backbone cannot be rescaled.
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
    """The positions of at most 64 images, evenly spaced among `count`."""
    return np.linspace(0, count - 1, min(count, IMAGES)).astype(np.int64)


def _relative_gradients(
    model: keras.Model, affine: list[keras.layers.Layer], images: np.ndarray, seed: tuple[int, int]
) -> np.ndarray:
    """The norm of each layer's gradient relative to that of its weights, averaged over its output channels."""
    kernels = [layer.kernel for layer in affine]
    with tf.GradientTape() as tape:
        outputs = model(images, training=False)
        direction = tf.random.stateless_normal(tf.shape(outputs), seed)
        loss = tf.reduce_sum(outputs * direction) / len(images)
    relative_gradients = []
    for kernel, gradient in zip(kernels, tape.gradient(loss, [k.value for k in kernels]), strict=True):
        axes = tuple(range(len(kernel.shape) - 1))
        of_gradient = np.sqrt(np.sum(np.square(gradient), axis=axes))
        of_kernel = np.sqrt(np.sum(np.square(kernel.numpy()), axis=axes))
        alive = of_kernel > 0
        relative_gradients.append(float(np.mean(of_gradient[alive] / of_kernel[alive])))
    return np.maximum(np.array(relative_gradients), 1e-30)
