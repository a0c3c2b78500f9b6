"""Conversion of checkpoints of the original PyTorch code to Keras files."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.data.datasets import PUBLISHED_STATISTICS
from rotnet_keras.engine import keras
from rotnet_keras.errors import DataError, RotnetError
from rotnet_keras.models.backbones import registry
from rotnet_keras.models.export import save_model, with_softmax
from rotnet_keras.models.heads import build_head

Arrays = dict[str, np.ndarray]

# Keras's names of the variables of a batch normalisation, by PyTorch's.
BATCH_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
# The blocks of the released AlexNet that hold a convolution and its batch normalisation, and our numbers for them.
CONVOLUTIONS = {0: 1, 2: 2, 4: 3, 5: 4, 6: 5}
# The layers of its block of fully connected layers, by their position there.
DENSE = {"1": "fc6_dense", "2": "fc6_bn", "4": "fc7_dense", "5": "fc7_bn"}
SIDES = {"nin": (32, "cifar10"), "alexnet": (224, "imagenet2012")}


def convert_original(checkpoint: Path, name: str, target: Path) -> list[Path]:
    """Convert a checkpoint of the original code to Keras files.

    Args:
        checkpoint: a file saved by the original code: a dictionary with `network`, or a bare state dict.
        name: the architecture, "nin" or "alexnet".
        target: the backbone to write, a `.keras` file. If the checkpoint has a rotation classifier, the whole model is
            written beside it as `rotnet.keras`.

    Returns:
        The files written.

    Raises:
        DataError: the file cannot be read safely, or holds another architecture.
        RotnetError: PyTorch is not installed, or a target exists or has another suffix.
    """
    rotnet = target.with_name("rotnet.keras")
    for path in (target, rotnet):
        if path.exists():
            raise RotnetError(f"{path} exists already; remove it, or choose another path with --to")
    if target.suffix != ".keras" or target == rotnet:
        raise RotnetError(f"--to: expected a file that ends in .keras and is not rotnet.keras, got {target}")
    values = {_our_name(key, name): value for key, value in _read(checkpoint).items() if "num_batches" not in key}
    side, data = SIDES[name]
    mean, std = PUBLISHED_STATISTICS[data]
    shape = (side, side, _input_channels(values, checkpoint))
    options = {"blocks": len({key[:6] for key in values if key.startswith("block")})} if name == "nin" else {}
    width = values["block1_conv1/kernel"].shape[0] / {"nin": 192, "alexnet": 64}[name]
    backbone = registry.backbone(name, shape, width=width, mean=mean, std=std, **options)
    _set_variables(backbone, values, checkpoint, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_model(backbone, target)
    classifier = values.get("classifier/kernel")
    if classifier is None or len(classifier) != 4:
        return [target]
    head = build_head("pool", backbone.output.shape[1:], len(classifier), "rotation")
    head.set_weights([classifier.T, values["classifier/bias"]])
    save_model(with_softmax(backbone, head, "rotnet"), rotnet)
    return [target, rotnet]


def _read(checkpoint: Path) -> Arrays:
    """The state dict as arrays. Reading it runs no code from the file."""
    try:
        import torch
    except ImportError:
        raise RotnetError(
            "reading PyTorch checkpoints needs PyTorch; install it with: pip install 'rotnet-keras[torch]'"
        ) from None
    if not checkpoint.is_file():
        raise DataError(f"no file {checkpoint.absolute()}")
    try:
        saved: Any = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # Damaged files raise anything.
        reason = str(error).splitlines()[0]
        raise DataError(f"{checkpoint}: not a PyTorch checkpoint that can be read safely: {reason}") from None
    state = saved.get("network", saved) if isinstance(saved, Mapping) else saved
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DataError(f"{checkpoint}: expected a state dict, or a dictionary with one under 'network'")
    return {str(key).removeprefix("module."): value.float().numpy() for key, value in state.items()}


def _our_name(key: str, name: str) -> str:
    """Our name for a tensor of the original code, "layer/variable"; the original name where we have none."""
    if name == "nin":
        if match := re.fullmatch(r"_feature_blocks\.\d+\.Block(\d+)_ConvB(\d+)\.layers\.(Conv|BatchNorm)\.(\w+)", key):
            block, position, kind, what = match.groups()
            return f"block{block}_{_variable(kind == 'Conv', position, what)}"
        if match := re.fullmatch(r"_feature_blocks\.\d+\.Classifier\.(\w+)", key):
            return f"classifier/{_dense(match[1])}"
        return key
    match = re.fullmatch(r"_feature_blocks\.(\d+)\.(\d+)\.(\w+)", key)
    if match and int(match[1]) in CONVOLUTIONS and match[2] in "01":
        return f"block{CONVOLUTIONS[int(match[1])]}_{_variable(match[2] == '0', '1', match[3])}"
    if match and match[1] == "8" and match[2] in DENSE:
        layer = DENSE[match[2]]
        return f"{layer}/{BATCH_NORM.get(match[3]) if layer.endswith('bn') else _dense(match[3])}"
    return f"classifier/{_dense(match[3])}" if match and match[1] == "9" else key


def _variable(convolution: bool, position: str, what: str) -> str:
    if convolution:
        return f"conv{position}/{_dense(what)}"
    return f"bn{position}/{BATCH_NORM.get(what, what)}"


def _dense(what: str) -> str:
    return {"weight": "kernel"}.get(what, what)


def _input_channels(values: Arrays, checkpoint: Path) -> int:
    first = values.get("block1_conv1/kernel")
    if first is None or first.ndim != 4:
        known = ", ".join(list(values)[:3])
        raise DataError(f"{checkpoint}: expected a first convolution; the file begins with {known or 'nothing'}")
    return int(first.shape[1])


def _set_variables(backbone: keras.Model, values: Arrays, checkpoint: Path, name: str) -> None:
    """Set all variables of a backbone. Every tensor of the checkpoint has to be used, except the classifier's."""
    unused = {key for key in values if not key.startswith("classifier/")}
    for layer in backbone.layers:
        for variable in layer.variables:
            key = f"{layer.name}/{variable.name}"
            if key not in values:
                raise DataError(f"{checkpoint}: not a checkpoint of {name}: it has no tensor for {key}")
            value = _in_keras_layout(values[key], layer)
            if value.shape != tuple(variable.shape):
                raise DataError(f"{checkpoint}: {key} has the shape {value.shape}, expected {tuple(variable.shape)}")
            variable.assign(value)
            unused.discard(key)
    if unused:
        raise DataError(
            f"{checkpoint}: not a checkpoint of {name}: {name} has no layer for {', '.join(sorted(unused)[:3])}"
        )


def _in_keras_layout(value: np.ndarray, layer: keras.layers.Layer) -> np.ndarray:
    """A PyTorch tensor in Keras's order of dimensions."""
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if value.ndim == 2 and layer.name == "fc6_dense":
        # Its input is a flattened feature map; PyTorch flattens it channel by channel.
        outputs, inputs = value.shape
        side = 6
        return value.reshape(outputs, inputs // side**2, side, side).transpose(2, 3, 1, 0).reshape(inputs, outputs)
    return value.T if value.ndim == 2 else value
