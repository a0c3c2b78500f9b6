"""Counts what a run computes and reads, from its recipe, its data and the layers of its models."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.config.probes import Probe
from rotnet_keras.config.schema import ClassifyRecipe, PretrainRecipe, ProbeRecipe, RunRecipe
from rotnet_keras.config.sections import Backbone, Optimizer
from rotnet_keras.config.transfer import TransferRecipe
from rotnet_keras.data.datasets import Dataset, labelled_subset
from rotnet_keras.engine import keras
from rotnet_keras.evaluation.features import feature_extractor
from rotnet_keras.evaluation.head_training import build_probe_model, labelled_splits, recomputes_features
from rotnet_keras.models.backbones import registry
from rotnet_keras.models.base import TrainingModel
from rotnet_keras.models.export import load_backbone
from rotnet_keras.models.flops import LayerWork, layer_work
from rotnet_keras.planning.transfers import build_transfer_model, passes_per_image
from rotnet_keras.tasks.finetune import build_classifier
from rotnet_keras.tasks.pretrain import build_rotnet, initial_backbone
from rotnet_keras.tasks.probe import check_probes
from rotnet_keras.training.setup import backbone_input_shape

# The cost of a training step in forward passes: for each product of the forward pass, the backward pass computes two,
# the gradients of the weights and of the inputs.
TRAINING_FORWARD_PASSES = 3


@dataclass(frozen=True)
class Pass:
    """Passes of many inputs through the same layers.

    Attributes:
        layers: the work of each layer for one input.
        inputs: number of inputs in total.
        training: whether each forward pass is followed by a backward pass.
        precision: the precision as in a recipe, for example "float32".
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
    """A phase of a run, for example its pretraining or one of its probes.

    Attributes:
        name: the name of the phase.
        steps: optimizer steps; 0 in a phase without training.
        inputs: inputs to the model in one step.
        passes: all that is computed.
        images: images read, counted each time they are read.
        shared: whether several devices share the work; otherwise the first device does all of it.
        parameters: number of trained parameters.
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
        return sum(work.flop for work in self.passes)


@dataclass(frozen=True)
class Memory:
    """The memory that the training takes on a device, besides TensorFlow itself.

    Attributes:
        state_bytes: weights, gradients and the variables of the optimizer.
        values_per_input: numbers kept for the backward pass of one input, and the most that one layer reads and writes.
        inputs: inputs computed at once on all devices together.
        precision: the precision as in the recipe.
    """

    state_bytes: float
    values_per_input: float
    inputs: float
    precision: str


@dataclass(frozen=True)
class Workload:
    """All that a run computes, keeps and reads.

    Attributes:
        phases: its phases in order.
        memory: the memory of its training; None if the run only probes.
        image_bytes: bytes read from disk for each image read; 0 if the images are kept in memory, None if unknown.
    """

    phases: list[Phase]
    memory: Memory | None
    image_bytes: float | None


def workload(recipe: RunRecipe | TransferRecipe, dataset: Any, spec: Backbone | None = None) -> Workload:
    """Count the work of a run.

    Args:
        recipe: its recipe.
        dataset: its data set, of the kind that its task takes.
        spec: the backbone that it starts from, if that is still to be made. The recipe of a transfer has it already.

    Raises:
        DataError: probes lack labels, or a class has too few images.
    """
    if isinstance(recipe, ProbeRecipe):
        check_probes(dataset, recipe.probe)
        backbone = _backbone(recipe, dataset, spec)
        probes = [_probe(number, probe, backbone, recipe, dataset) for number, probe in enumerate(recipe.probe)]
        return Workload(probes, None, _image_bytes(dataset))
    assert isinstance(recipe, PretrainRecipe | ClassifyRecipe | TransferRecipe)
    read = inputs = recipe.train.batch
    passes = 1, 1
    if isinstance(recipe, PretrainRecipe):
        model: TrainingModel = build_rotnet(recipe, dataset)
        copies = len(recipe.rotation.angles)
        inputs *= copies if recipe.rotation.copies == "all" else 1
        passes = copies, copies
    elif isinstance(recipe, TransferRecipe):
        model, passes = build_transfer_model(recipe, dataset), passes_per_image(recipe)
    else:
        model = build_classifier(recipe, dataset, _backbone(recipe, dataset, spec))
        if recipe.auxiliary:
            read += recipe.auxiliary.unlabelled(read)
            inputs = read * len(recipe.auxiliary.angles)
        if recipe.joint:
            inputs = read * len(recipe.joint.angles)
            passes = len(recipe.joint.predicted_angles), len(recipe.joint.predicted_angles)
    phases = _training(recipe, dataset, model, inputs, read, passes)
    if isinstance(recipe, PretrainRecipe):
        backbone = initial_backbone(recipe, dataset, backbone_input_shape(dataset, recipe.augment))
        phases += [_probe(number, probe, backbone, recipe, dataset) for number, probe in enumerate(recipe.probe)]
    state_bytes = 4 * phases[0].parameters * (2 + _variables_per_weight(recipe.optimizer))
    layers = [(times, work) for network, times in _networks(model) for work in network]
    values_per_input = sum(times * work.kept for times, work in layers) + max(
        times * work.moved for times, work in layers
    )
    memory = Memory(state_bytes, values_per_input, inputs / recipe.train.accumulate, recipe.train.precision)
    return Workload(phases, memory, _image_bytes(dataset))


def _training(
    recipe: PretrainRecipe | ClassifyRecipe | TransferRecipe,
    dataset: Any,
    model: TrainingModel,
    inputs: int,
    read: int,
    passes: tuple[int, int],
) -> list[Phase]:
    """Return the phases of a training: the training itself, and its validations and test.

    Args:
        recipe: the recipe.
        dataset: its data set.
        model: the model that it trains.
        inputs: inputs to the model in a step.
        read: images read in a step.
        passes: inputs that one image makes in validation, and in the test.
    """
    length, precision, count = recipe.train, recipe.train.precision, len(dataset.train)
    steps = length.total_steps(count)
    validated = -(-steps // length.steps_per_epoch(count)) * len(dataset.validation or ())
    tested = len(dataset.test or ())
    if isinstance(recipe, PretrainRecipe) and recipe.data.only:
        tested *= 2  # They are scored as well.
    evaluated = validated * passes[0] + tested * passes[1]
    parameters = sum(_parameters(network) for network in model.networks)
    name = "pretraining" if isinstance(recipe, PretrainRecipe) else "training"
    training_passes = tuple(Pass(layers, steps * inputs * times, True, precision) for layers, times in _networks(model))
    evaluation_passes = tuple(Pass(layers, evaluated * times, False, precision) for layers, times in _networks(model))
    return [
        Phase(name, steps, inputs, training_passes, steps * read, True, parameters),
        Phase("validation and test", 0, 0, evaluation_passes, validated + tested, False, 0),
    ]


def _networks(model: TrainingModel) -> list[tuple[tuple[LayerWork, ...], int]]:
    """Return the layers of each network of a model, and how often a step applies them to one input."""
    pairs = zip(model.networks, model.passes_per_image, strict=True)
    return [(tuple(layer_work(network)), times) for network, times in pairs]


def _probe(
    number: int, probe: Probe, backbone: keras.Model, recipe: PretrainRecipe | ProbeRecipe, dataset: Dataset
) -> Phase:
    """Return the phase of one probe with its baselines, repeated as often as the run probes."""
    taps = registry.taps(backbone) if probe.tap == ["all"] else list(probe.tap)
    backbone_layers = tuple(layer_work(feature_extractor(backbone, taps)))
    backbones = 1 + len([baseline for baseline in probe.baselines if baseline != "pixels"])
    rounds = probe_rounds(probe, recipe, dataset)
    splits = {name: len(split) for name, split in labelled_splits(dataset).items()}
    held_out = sum(count for name, count in splits.items() if name != "train")
    name = f"{probe.head} probe" if number == 0 else f"{probe.head} probe {number + 1}"
    if probe.head == "knn":
        read = rounds * backbones * probe.looks * (held_out + splits["train"])
        return Phase(name, 0, 0, (Pass(backbone_layers, read, False, "float32"),), read, False, 0)
    _, heads = build_probe_model(backbone, probe, taps, len(dataset.class_names))
    steps = rounds * backbones * probe.draws * probe.total_steps(len(labelled_subset(dataset, probe, (0, 0))))
    read = rounds * backbones * probe.looks * held_out
    if recomputes_features(probe):
        read += steps * probe.batch
    else:
        read += rounds * backbones * splits["train"] * (probe.views or probe.looks)
    passes = (
        Pass(backbone_layers, read, False, "float32"),
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
    """Return how often a run makes a probe: once at the end, and before that as often as its `every` says."""
    if not probe.every or not isinstance(recipe, PretrainRecipe):
        return 1
    count = len(dataset.train)
    epochs = recipe.train.total_steps(count) // recipe.train.steps_per_epoch(count)
    return 1 + (epochs - 1) // probe.every


def _backbone(recipe: ProbeRecipe | ClassifyRecipe, dataset: Dataset, spec: Backbone | None) -> keras.Model:
    spec = (recipe.backbone if isinstance(recipe, ClassifyRecipe) else None) or spec
    if spec is not None:
        return _build_backbone(spec, recipe, dataset)
    source = recipe.backbone if isinstance(recipe, ProbeRecipe) else recipe.pretrained
    return load_backbone(Path(str(source.file)))  # type: ignore[union-attr]


def _build_backbone(
    spec: Backbone, recipe: PretrainRecipe | ClassifyRecipe | ProbeRecipe, dataset: Dataset
) -> keras.Model:
    shape = backbone_input_shape(dataset, recipe.augment)
    return registry.build_backbone(spec, shape, dataset.mean, dataset.std, dataset.values)


def _parameters(model: keras.Model) -> int:
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def _variables_per_weight(optimizer: Optimizer) -> int:
    """Return how many variables the optimizer keeps for each weight."""
    return (2 if optimizer.name == "adamw" else 1) + bool(optimizer.ema)


def _image_bytes(dataset: Any) -> float | None:
    found: float | None = getattr(dataset.train.store, "image_bytes", 0)
    return found
