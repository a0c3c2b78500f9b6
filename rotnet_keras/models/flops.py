"""What a model is and computes, counted from its layers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rotnet_keras.config.sections import Backbone
from rotnet_keras.engine import keras
from rotnet_keras.models.backbones.registry import build

layers = keras.layers


@dataclass(frozen=True)
class LayerWork:
    """What a layer does for one input, forward.

    Attributes:
        flop: multiplications and additions of a convolution or dense layer; 0 of others.
        moved: numbers that it reads and writes.
        kept: numbers that it leaves for the way back.
    """

    flop: float
    moved: float
    kept: float


def layer_work(model: keras.Model) -> Iterator[LayerWork]:
    """The work of each layer of a functional model; a model within it counts by its layers."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from layer_work(layer)
        elif not isinstance(layer, layers.InputLayer | layers.Flatten | layers.Reshape | layers.Identity):
            read = sum(_size(tensor) for tensor in _tensors(layer.input))
            written = _size(layer.output)
            # An addition and a padding need nothing of what they saw, a normalisation what it read, others keep what
            # came of them: the next one reads it on its way back.
            kept = 0.0 if isinstance(layer, layers.Add | layers.ZeroPadding2D | layers.BatchNormalization) else written
            yield LayerWork(2 * _products(layer), read + written, kept)


def forward_gflop(model: keras.Model) -> float:
    """Multiplications and additions of a forward pass of one image through convolutions and dense layers, in 1e9."""
    return sum(work.flop for work in layer_work(model)) / 1e9


def backbone_summary(spec: Backbone, shape: Sequence[int]) -> dict[str, Any]:
    """Of a backbone for images (H, W, C): {taps: {layer: shape}, parameters (trainable), gflop (forward, an image)}."""
    channels = shape[-1]
    model = build(spec, shape, (127.5,) * channels, (127.5,) * channels)
    return {
        "taps": {name: list(model.get_layer(name).output.shape[1:]) for name in spec.feature_layers()},
        "parameters": sum(int(np.prod(variable.shape)) for variable in model.trainable_variables),
        "gflop": forward_gflop(model),
    }


def _products(layer: keras.layers.Layer) -> float:
    if isinstance(layer, layers.Conv2D | layers.Dense):
        # Each output number takes one product with every number of the kernel but its output channels.
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
