"""What a model is and computes, counted from its layers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rotnet_keras.backbones import build
from rotnet_keras.engine import keras
from rotnet_keras.schema import Backbone

layers = keras.layers


def forward_gflop(model: keras.Model) -> float:
    """Multiplications and additions of a forward pass of one image through convolutions and dense layers, in 1e9."""
    return sum(_products(layer) for layer in model.layers) * 2 / 1e9


def anatomy(spec: Backbone, shape: Sequence[int]) -> dict[str, Any]:
    """Of a backbone for images (H, W, C): {taps: {layer: shape}, parameters (trainable), gflop (forward, an image)}."""
    channels = shape[-1]
    model = build(spec, shape, (127.5,) * channels, (127.5,) * channels)
    return {
        "taps": {name: list(model.get_layer(name).output.shape[1:]) for name in spec.readable()},
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


def _size(tensor: keras.KerasTensor) -> float:
    return float(np.prod(tensor.shape[1:]))
