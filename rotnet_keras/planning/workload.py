"""What a run computes and reads, counted from its recipe, its data and its networks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.config.schema import ClassifyRecipe, PretrainRecipe, ProbeRecipe, RunRecipe
from rotnet_keras.config.sections import Backbone, Optimizer, Probe
from rotnet_keras.config.transfer import TransferRecipe
from rotnet_keras.data.datasets import Dataset, labelled_subset
from rotnet_keras.engine import keras
from rotnet_keras.evaluation.features import feature_extractor
from rotnet_keras.evaluation.head_training import build_probe_model, from_pixels, labelled_splits
from rotnet_keras.models.backbones import registry
from rotnet_keras.models.base import TrainingModel
from rotnet_keras.models.export import load_backbone
from rotnet_keras.models.flops import LayerWork, layer_work
from rotnet_keras.planning.transfers import build_transfer_model, passes_per_image
from rotnet_keras.tasks.finetune import build_classifier
from rotnet_keras.tasks.pretrain import build_rotnet
from rotnet_keras.training.setup import backbone_input_shape

# A training step against a forward pass: the way back multiplies by the weights and by what they saw.
TRAINING_FORWARD_PASSES = 3


@dataclass(frozen=True)
class Pass:
    """The same work for many inputs.

    Attributes:
        layers: of the network.
        inputs: how many in all.
        training: whether there is a way back.
        precision: as a recipe has it.
    """

    layers: tuple[LayerWork, ...]
    inputs: float
    training: bool
    precision: str

    @property
    def flop(self) -> float:
        """Multiplications and additions."""
        return self.inputs * sum(work.flop for work in self.layers) * (TRAINING_FORWARD_PASSES if self.training else 1)


@dataclass(frozen=True)
class Phase:
    """A part of a run.

    Attributes:
        steps: of an optimizer.
        inputs: that the network is shown in one of them.
        passes: all that is computed.
        images: that are read, each as often as it is.
        shared: whether several devices share the work; else the first does it.
        parameters: that are trained.
    """

    name: str
    steps: int
    inputs: int
    passes: tuple[Pass, ...]
    images: float
    shared: bool
    parameters: int

    @property
    def flop(self) -> float:
        """Multiplications and additions."""
        return sum(part.flop for part in self.passes)


@dataclass(frozen=True)
class Memory:
    """What the training keeps on a device, apart from what runs there anyway.

    Attributes:
        state: weights, gradients and the optimizer's variables, bytes.
        numbers: an input leaves for the way back, and the most that one layer moves beside them.
        inputs: of a step on all devices together, already parted if it is computed in parts.
        precision: as the recipe has it.
    """

    state: float
    numbers: float
    inputs: float
    precision: str


@dataclass(frozen=True)
class Workload:
    """All of a run.

    Attributes:
        memory: of its training; None for a run that only probes.
        image_bytes: what reading an image takes from disk each time; 0 where they are kept, None where unknown.
    """

    phases: list[Phase]
    memory: Memory | None
    image_bytes: float | None


def workload(recipe: RunRecipe | TransferRecipe, dataset: Any, spec: Backbone | None = None) -> Workload:
    """What a recipe's run would do.

    Args:
        dataset: that of its kind.
        spec: the backbone that it goes on from, where that is not there; of transfers it is.
    """
    if isinstance(recipe, ProbeRecipe):
        backbone = _backbone(recipe, dataset, spec)
        probes = [_probe(number, probe, backbone, recipe, dataset) for number, probe in enumerate(recipe.probe)]
        return Workload(probes, None, _image_bytes(dataset))
    assert isinstance(recipe, PretrainRecipe | ClassifyRecipe | TransferRecipe)
    read = inputs = recipe.train.batch
    shown = 1, 1
    if isinstance(recipe, PretrainRecipe):
        model: TrainingModel = build_rotnet(recipe, dataset)
        copies = len(recipe.rotation.angles)
        inputs *= copies if recipe.rotation.copies == "all" else 1
        shown = copies, copies
    elif isinstance(recipe, TransferRecipe):
        model, shown = build_transfer_model(recipe, dataset), passes_per_image(recipe)
    else:
        model = build_classifier(recipe, dataset, _backbone(recipe, dataset, spec))
        if recipe.auxiliary:
            read += recipe.auxiliary.batch or read
            inputs = read * len(recipe.auxiliary.angles)
    phases = _training(recipe, dataset, model, inputs, read, shown)
    if isinstance(recipe, PretrainRecipe):
        backbone = _fresh(recipe.backbone, recipe, dataset)
        phases += [_probe(number, probe, backbone, recipe, dataset) for number, probe in enumerate(recipe.probe)]
    state = 4 * phases[0].parameters * (2 + _slots(recipe.optimizer))
    layers = [(times, work) for network, times in _networks(model) for work in network]
    numbers = sum(times * work.kept for times, work in layers) + max(times * work.moved for times, work in layers)
    memory = Memory(state, numbers, inputs / recipe.train.accumulate, recipe.train.precision)
    return Workload(phases, memory, _image_bytes(dataset))


def _training(
    recipe: PretrainRecipe | ClassifyRecipe | TransferRecipe,
    dataset: Any,
    model: TrainingModel,
    inputs: int,
    read: int,
    shown: tuple[int, int],
) -> list[Phase]:
    """The training, and the validations and the test beside it.

    Args:
        read: images in a step.
        shown: inputs that an image is in validation and in the test.
    """
    length, precision, count = recipe.train, recipe.train.precision, len(dataset.train)
    steps = length.total_steps(count)
    validated = -(-steps // length.steps_per_epoch(count)) * len(dataset.validation or ())
    tested = len(dataset.test or ())
    others = validated * shown[0] + tested * shown[1]
    parameters = sum(_parameters(network) for network in model.networks)
    name = "pretraining" if isinstance(recipe, PretrainRecipe) else "training"
    of_steps = tuple(Pass(layers, steps * inputs * times, True, precision) for layers, times in _networks(model))
    of_others = tuple(Pass(layers, others * times, False, precision) for layers, times in _networks(model))
    return [
        Phase(name, steps, inputs, of_steps, steps * read, True, parameters),
        Phase("validation and test", 0, 0, of_others, validated + tested, False, 0),
    ]


def _networks(model: TrainingModel) -> list[tuple[tuple[LayerWork, ...], int]]:
    """The layers of what is trained, and how often a step shows them something of an input."""
    pairs = zip(model.networks, model.passes_per_image, strict=True)
    return [(tuple(layer_work(network)), times) for network, times in pairs]


def _probe(
    number: int, probe: Probe, backbone: keras.Model, recipe: PretrainRecipe | ProbeRecipe, dataset: Dataset
) -> Phase:
    """One probe with its controls, as often as it is made."""
    taps = registry.taps(backbone) if probe.tap == ["all"] else list(probe.tap)
    trunk = tuple(layer_work(feature_extractor(backbone, taps)))
    trunks = 1 + len([control for control in probe.controls if control != "pixels"])
    rounds = probe_rounds(probe, recipe, dataset)
    splits = {name: len(split) for name, split in labelled_splits(dataset).items()}
    held_out = sum(count for name, count in splits.items() if name != "train")
    name = f"{probe.head} probe" if number == 0 else f"{probe.head} probe {number + 1}"
    if probe.head == "knn":
        read = rounds * trunks * (held_out + splits["train"])
        return Phase(name, 0, 0, (Pass(trunk, read, False, "float32"),), read, False, 0)
    _, heads = build_probe_model(backbone, probe, taps, len(dataset.class_names))
    steps = rounds * trunks * probe.repeats * probe.total_steps(len(labelled_subset(dataset, probe, (0, 0))))
    read = rounds * trunks * held_out
    read += steps * probe.batch if from_pixels(probe) else rounds * trunks * splits["train"] * (probe.views or 1)
    passes = (
        Pass(trunk, read, False, "float32"),
        Pass(
            tuple(work for head in heads.values() for work in layer_work(head)),
            steps * probe.batch,
            True,
            probe.precision,
        ),
    )
    parameters = sum(_parameters(head) for head in heads.values())
    return Phase(name, steps, probe.batch, passes, read, False, parameters)


def probe_rounds(probe: Probe, recipe: PretrainRecipe | ProbeRecipe, dataset: Dataset) -> int:
    """How often a probe is made: at the end, and now and then before if it is asked for."""
    if not probe.every or not isinstance(recipe, PretrainRecipe):
        return 1
    count = len(dataset.train)
    epochs = recipe.train.total_steps(count) // recipe.train.steps_per_epoch(count)
    return 1 + (epochs - 1) // probe.every


def _backbone(recipe: ProbeRecipe | ClassifyRecipe, dataset: Dataset, spec: Backbone | None) -> keras.Model:
    spec = (recipe.backbone if isinstance(recipe, ClassifyRecipe) else None) or spec
    if spec is not None:
        return _fresh(spec, recipe, dataset)
    source = recipe.backbone if isinstance(recipe, ProbeRecipe) else recipe.pretrained
    return load_backbone(Path(str(source.file)))  # type: ignore[union-attr]


def _fresh(spec: Backbone, recipe: PretrainRecipe | ClassifyRecipe | ProbeRecipe, dataset: Dataset) -> keras.Model:
    return registry.build(spec, backbone_input_shape(dataset, recipe.augment), dataset.mean, dataset.std)


def _parameters(model: keras.Model) -> int:
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def _slots(optimizer: Optimizer) -> int:
    """Variables that an optimizer keeps for each weight."""
    return (2 if optimizer.name == "adamw" else 1) + bool(optimizer.ema)


def _image_bytes(dataset: Any) -> float | None:
    found: float | None = getattr(dataset.train.store, "image_bytes", 0)
    return found
