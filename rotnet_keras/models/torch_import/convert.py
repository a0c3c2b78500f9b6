"""Conversion of a checkpoint of the authors' code to Keras files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rotnet_keras.data.datasets import PUBLISHED_STATISTICS
from rotnet_keras.engine import keras
from rotnet_keras.errors import DataError
from rotnet_keras.models.backbones import registry
from rotnet_keras.models.export import save_model, with_softmax
from rotnet_keras.models.heads import build_head
from rotnet_keras.models.torch_import.checkpoint import ROTATIONS, Checkpoint

SIDES = {"nin": (32, "cifar10"), "alexnet": (224, "imagenet2012")}


def convert_original(
    checkpoint: Checkpoint,
    target: Path,
    rotnet: Path,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    avg_on_conv3: bool = False,
) -> list[Path]:
    """Convert a checkpoint of the authors' code to Keras files.

    Args:
        checkpoint: of `read_checkpoint`, whose `check_statistics` has passed.
        target: the backbone to write, a `.keras` file.
        rotnet: the whole model to write, if the checkpoint has a classifier of the four rotations.
        mean, std: of the pixels that it was trained on, for each channel, 0 to 255; by default those of the authors'
            code, CIFAR-10's for a NIN and ImageNet's for an AlexNet.
        avg_on_conv3: the NIN was trained with the option `use_avg_on_conv3`, so its third block ends in a pool.

    Returns:
        The files written.

    Raises:
        DataError: the shape of a tensor does not fit. Nothing is written.
    """
    side, data = SIDES[checkpoint.backbone]
    published = PUBLISHED_STATISTICS[data]
    options: dict[str, object] = {"mean": mean or published[0], "std": std or published[1]}
    if checkpoint.backbone == "nin":
        options |= {"blocks": checkpoint.blocks, "pool3": avg_on_conv3}
    shape = (side, side, checkpoint.channels)
    backbone = registry.backbone(checkpoint.backbone, shape, width=checkpoint.width, **options)
    for layer in backbone.layers:
        for variable in layer.variables:
            name = f"{layer.name}/{variable.name}"
            variable.assign(
                _fitting(checkpoint, name, _in_keras_layout(checkpoint.values[name], layer), variable.shape)
            )
    model = _whole_model(checkpoint, backbone) if checkpoint.outputs == ROTATIONS else None
    target.parent.mkdir(parents=True, exist_ok=True)
    save_model(backbone, target)
    if model is None:
        return [target]
    save_model(model, rotnet)
    return [target, rotnet]


def _whole_model(checkpoint: Checkpoint, backbone: keras.Model) -> keras.Model:
    head = build_head("pool", backbone.output.shape[1:], ROTATIONS, "rotation")
    kernel, bias = head.get_weights()
    found = [checkpoint.values["classifier/kernel"].T, checkpoint.values["classifier/bias"]]
    names = ["classifier/kernel", "classifier/bias"]
    shapes = [kernel.shape, bias.shape]
    head.set_weights([_fitting(checkpoint, *each) for each in zip(names, found, shapes, strict=True)])
    return with_softmax(backbone, head, "rotnet")


def _fitting(checkpoint: Checkpoint, name: str, value: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    if value.shape != tuple(shape):
        raise DataError(f"{checkpoint.path}: {name} has the shape {value.shape}, expected {tuple(shape)}")
    return value


def _in_keras_layout(value: np.ndarray, layer: keras.layers.Layer) -> np.ndarray:
    """A PyTorch tensor in Keras's order of dimensions."""
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if value.ndim == 2 and layer.name == "fc6_dense":
        # Its input is a flattened feature map; PyTorch flattens it channel by channel.
        outputs, inputs = value.shape
        side = 6
        if inputs % side**2 == 0:
            maps = value.reshape(outputs, inputs // side**2, side, side)
            return maps.transpose(2, 3, 1, 0).reshape(inputs, outputs)
    return value.T if value.ndim == 2 else value
