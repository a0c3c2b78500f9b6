"""A checkpoint of the authors' code: which network it holds, and its tensors under our names."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np

from rotnet_keras.errors import DataError
from rotnet_keras.models.torch_import.files import read_state_dict
from rotnet_keras.text import first_few

BackboneOfAuthors = Literal["nin", "alexnet"]

# Keras's names of the variables of a batch normalisation, by PyTorch's.
BATCH_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
# The blocks of the released AlexNet that hold a convolution and its batch normalisation, and our numbers for them.
CONVOLUTIONS = {0: 1, 2: 2, 4: 3, 5: 4, 6: 5}
# The dense layers of its block 8, by their position there; the batch normalisation of each follows on it.
DENSE = {1: "fc6", 4: "fc7"}
# What a NIN's blocks are called, and how many the released code makes at least.
BLOCK = re.compile(r"_feature_blocks\.\d\.Block(\d)_")
SMALLEST_NIN = 3
# Channels of the first convolution at width 1.
FIRST_CHANNELS: dict[BackboneOfAuthors, int] = {"nin": 192, "alexnet": 64}
ROTATIONS = 4
CLASSIFIER = "classifier/"


@dataclass(frozen=True)
class Checkpoint:
    """A network of the authors' code.

    Attributes:
        path: its file.
        backbone: the architecture.
        values: float32 arrays in PyTorch's order of dimensions, by our names, "layer/variable"; the classifier's begin
            with "classifier/".
    """

    path: Path
    backbone: BackboneOfAuthors
    values: dict[str, np.ndarray]

    @property
    def channels(self) -> int:
        """Channels of its images."""
        return int(self.values["block1_conv1/kernel"].shape[1])

    @property
    def width(self) -> float:
        """Its channels as a multiple of the released network's."""
        return float(self.values["block1_conv1/kernel"].shape[0] / FIRST_CHANNELS[self.backbone])

    @property
    def blocks(self) -> int:
        """The number of its blocks."""
        return sum(name.endswith("_conv1/kernel") for name in self.values)

    @property
    def outputs(self) -> int:
        """The outputs of its classifier, 0 if there is none."""
        kernel = self.values.get(f"{CLASSIFIER}kernel")
        return 0 if kernel is None else len(kernel)

    def check_statistics(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        """Check that the mean and the standard deviation of the pixels are known for each channel.

        Raises:
            DataError: they are not, or there are more or fewer of them than channels.
        """
        for name, numbers in (("mean", mean), ("std", std)):
            if numbers is None and self.channels != 3:
                raise DataError(
                    f"{self.path}: its images have {self.channels} channels, and the authors' code says how to "
                    "normalise 3; give the training's own numbers with --mean and --std, from 0 to 255"
                )
            if numbers is not None and len(numbers) != self.channels:
                raise DataError(f"--{name}: expected {self.channels} numbers, one a channel, got {len(numbers)}")


def read_checkpoint(path: Path, backbone: BackboneOfAuthors) -> Checkpoint:
    """Read a checkpoint of the authors' code. It loads neither PyTorch nor TensorFlow.

    Args:
        path: a file saved by that code: a dictionary with `network`, or a bare state dict.
        backbone: the architecture that it should hold.

    Raises:
        DataError: the file cannot be read safely, holds another architecture or a part of one, or is not finite.
    """
    state = {
        name.removeprefix("module."): value
        for name, value in read_state_dict(path).items()
        if not name.endswith("num_batches_tracked")
    }
    names = _names(backbone, state)
    unknown = [name for name in state if name not in names]
    if unknown:
        other: BackboneOfAuthors = "alexnet" if backbone == "nin" else "nin"
        if state.keys() <= _names(other, state).keys():
            raise DataError(f"{path}: not a checkpoint of {backbone}; it holds the other network: --backbone {other}")
        raise DataError(f"{path}: not a checkpoint of {backbone}, which has no {first_few(unknown, 2)}")
    has_classifier = any(names[name].startswith(CLASSIFIER) for name in state)
    wanted = [name for name, ours in names.items() if has_classifier or not ours.startswith(CLASSIFIER)]
    missing = [name for name in wanted if name not in state]
    if missing:
        raise DataError(f"{path}: not a whole {backbone}: it has no {first_few(missing, 2)}")
    values = {names[name]: np.asarray(value, np.float32) for name, value in state.items()}
    for name in state:
        if not np.isfinite(values[names[name]]).all():
            raise DataError(f"{path}: {name} holds NaN or infinity: its training diverged; take an earlier checkpoint")
    first = values["block1_conv1/kernel"].shape
    if len(first) != 4 or 0 in first:
        raise DataError(f"{path}: the first convolution has weights of the shape {first}, expected four dimensions")
    return Checkpoint(path, backbone, values)


def _names(backbone: BackboneOfAuthors, state: Iterable[str]) -> dict[str, str]:
    """Our name, "layer/variable", of each tensor of a network of the authors' code, by its name there.

    Args:
        state: the names in a checkpoint, which show how many blocks a NIN has.
    """
    names = {}
    if backbone == "nin":
        blocks = max([SMALLEST_NIN, *(int(match[1]) for match in map(BLOCK.match, state) if match)])
        for block, position in product(range(1, blocks + 1), (1, 2, 3)):
            stem = f"_feature_blocks.{block - 1}.Block{block}_ConvB{position}.layers"
            names[f"{stem}.Conv.weight"] = f"block{block}_conv{position}/kernel"
            for theirs, ours in BATCH_NORM.items():
                names[f"{stem}.BatchNorm.{theirs}"] = f"block{block}_bn{position}/{ours}"
        classifier = f"_feature_blocks.{blocks}.Classifier"
    else:
        for index, block in CONVOLUTIONS.items():
            names[f"_feature_blocks.{index}.0.weight"] = f"block{block}_conv1/kernel"
            names[f"_feature_blocks.{index}.0.bias"] = f"block{block}_conv1/bias"
            for theirs, ours in BATCH_NORM.items():
                names[f"_feature_blocks.{index}.1.{theirs}"] = f"block{block}_bn1/{ours}"
        for index, layer in DENSE.items():
            names[f"_feature_blocks.8.{index}.weight"] = f"{layer}_dense/kernel"
            for theirs, ours in BATCH_NORM.items():
                names[f"_feature_blocks.8.{index + 1}.{theirs}"] = f"{layer}_bn/{ours}"
        classifier = "_feature_blocks.9.0"
    return names | {f"{classifier}.weight": f"{CLASSIFIER}kernel", f"{classifier}.bias": f"{CLASSIFIER}bias"}
