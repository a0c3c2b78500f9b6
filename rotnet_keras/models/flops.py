"""Operations, memory traffic and shapes of a model, counted from its layers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rotnet_keras.config.sections import Backbone
from rotnet_keras.engine import keras
from rotnet_keras.models.backbones.registry import build_backbone

layers = keras.layers


@dataclass(frozen=True)
class LayerWork:
    """The work of a layer for one input in the forward pass.

    Attributes:
        flop: multiplications and additions of a convolution or dense layer; 0 for other layers.
        moved: the numbers that it reads and writes.
        kept: the numbers that it keeps for the backward pass.
    """

    flop: float
    moved: float
    kept: float


def layer_work(model: keras.Model) -> Iterator[LayerWork]:
    """The work of each layer of a functional model, including the layers of models within it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from layer_work(layer)
        elif not isinstance(layer, layers.InputLayer | layers.Flatten | layers.Reshape | layers.Identity):
            read = sum(_size(tensor) for tensor in _tensors(layer.input))
            written = _size(layer.output)
            # The backward pass of an addition or a padding needs no values. That of a batch normalisation needs its
            # input, which the layer before keeps. Other layers keep their output, which the next layer needs.
            kept = 0.0 if isinstance(layer, layers.Add | layers.ZeroPadding2D | layers.BatchNormalization) else written
            yield LayerWork(2 * _products(layer), read + written, kept)


def forward_gflop(model: keras.Model) -> float:
    """The multiplications and additions of a forward pass of one image, in 1e9; convolutions and dense layers only."""
    return sum(work.flop for work in layer_work(model)) / 1e9


def backbone_summary(spec: Backbone, shape: Sequence[int]) -> dict[str, Any]:
    """The taps and the size of a backbone.

    Args:
        spec: the recipe's section `backbone`.
        shape: (H, W, C) of the images.

    Returns:
        {"taps": {layer: shape without batch}, "parameters": trainable ones, "gflop": of a forward pass of one image}.

    Raises:
        DataError: the images are too small for the backbone.
    """
    channels = shape[-1]
    model = build_backbone(spec, shape, (127.5,) * channels, (127.5,) * channels)
    return {
        "taps": {name: list(model.get_layer(name).output.shape[1:]) for name in spec.feature_layers()},
        "parameters": sum(int(np.prod(variable.shape)) for variable in model.trainable_variables),
        "gflop": forward_gflop(model),
    }


def _products(layer: keras.layers.Layer) -> float:
    if isinstance(layer, layers.Conv2D | layers.Dense):
        # Each output value is a sum of products, one for each kernel value of its output channel.
        return float(np.prod(layer.kernel.shape[:-1])) * _size(layer.output)
    if isinstance(layer, layers.DepthwiseConv2D):
        return float(np.prod(layer.kernel.shape[:2])) * _size(layer.output)
    if isinstance(layer, layers.SeparableConv2D):
        between = _size(layer.output) / layer.filters * layer.pointwise_kernel.shape[2]
        return float(np.prod(layer.depthwise_kernel.shape[:2])) * between + layer.pointwise_kernel.shape[2] * _size(
            layer.output
        )
    return 0.0


def _tensors(structure: Any) -> list[keras.KerasTensor]:
    return list(keras.tree.flatten(structure))


def _size(tensor: keras.KerasTensor) -> float:
    return float(np.prod(tensor.shape[1:]))
