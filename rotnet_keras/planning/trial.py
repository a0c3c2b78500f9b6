"""Times some steps of a run on this machine, with its own images, to estimate how long the whole run takes."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras import engine
from rotnet_keras.config.probes import Probe
from rotnet_keras.config.schema import ClassifyRecipe, PretrainRecipe, ProbeRecipe, RunRecipe
from rotnet_keras.config.sections import Augment, Backbone
from rotnet_keras.config.transfer import CanvasRecipe, TransferRecipe
from rotnet_keras.data.batches import evaluation_batches, training_batches
from rotnet_keras.data.datasets import Dataset, labelled_subset
from rotnet_keras.engine import keras, tf
from rotnet_keras.evaluation.features import feature_extractor
from rotnet_keras.evaluation.head_training import build_probe_model, labelled_splits, recomputes_features
from rotnet_keras.models.backbones import registry
from rotnet_keras.models.export import load_backbone
from rotnet_keras.models.rotnet import Classifier
from rotnet_keras.planning.transfers import build_transfer_model, evaluate_one_image, passes_per_image, transfer_batches
from rotnet_keras.planning.workload import TRAINING_FORWARD_PASSES, probe_rounds
from rotnet_keras.tasks.finetune import build_classifier
from rotnet_keras.tasks.pretrain import build_rotnet, initial_backbone
from rotnet_keras.training.setup import backbone_input_shape
from rotnet_keras.training.trainer import compile_model

# Each measurement goes on for at least this time and this many steps, after the first step, which traces the graph.
MIN_SECONDS = 1.0
MIN_STEPS = 3
# The time of a forward pass, as a share of a training step with as many inputs.
FORWARD_SHARE = 1 / TRAINING_FORWARD_PASSES
# Images of the batch that times the extraction of features.
EXTRACTED_IMAGES = 256


@dataclass(frozen=True)
class Trial:
    """A run to time.

    Attributes:
        recipe: the recipe of the run.
        dataset: its data set, or a placeholder with random pixels.
        spec: the backbone that it starts from, if that is still to be made.
    """

    recipe: RunRecipe | TransferRecipe
    dataset: Any
    spec: Backbone | None = None


def time_phases(trial: Trial, known: dict[str, list[float]]) -> list[float]:
    """Return how long each phase of a run takes, in seconds; the phases are those of `workload`.

    Args:
        trial: the run.
        known: the times of earlier trials, so that equal runs are timed once; new ones are added.
    """
    key = _key(trial)
    if key not in known:
        known[key] = _time_task(trial)
    return known[key]


def _key(trial: Trial) -> str:
    """Return a key that is equal for runs that differ only in what costs no time, such as the seed."""
    same: dict[str, Any] = {"seed": 0, "title": "-"}
    recipe = trial.recipe
    if isinstance(recipe, PretrainRecipe) and recipe.data.only and recipe.train.steps:
        # Equally many classes have about as many images to validate on.
        same["data"] = recipe.data.model_copy(update={"only": [""] * len(recipe.data.only)})
    if isinstance(recipe, ProbeRecipe) and trial.spec:
        same["backbone"] = recipe.backbone.model_copy(update={"file": "-"})
    if isinstance(recipe, ClassifyRecipe):
        same["head"] = recipe.head.model_copy(update={"label_choice": "first", "labels_per_class": None})
    if isinstance(recipe, ClassifyRecipe | TransferRecipe) and trial.spec and recipe.pretrained:
        same["pretrained"] = recipe.pretrained.model_copy(update={"file": "-"})
    return f"{recipe.model_copy(update=same)!r} {trial.spec!r}"


def _time_task(trial: Trial) -> list[float]:
    recipe, dataset = trial.recipe, trial.dataset
    if isinstance(recipe, PretrainRecipe):
        engine.configure(recipe.seed, engine.resolve_precision(recipe.train.precision), recipe.devices.deterministic)
        training = _time_training(recipe, dataset, build_rotnet(recipe, dataset), labelled=False)
        with engine.dtype_policy("float32"):
            backbone = initial_backbone(recipe, dataset, backbone_input_shape(dataset, recipe.augment))
            probes = [
                probe_rounds(p, recipe, dataset) * _time_probe(p, backbone, dataset, recipe.augment)
                for p in recipe.probe
            ]
        return [*training, *probes]
    if isinstance(recipe, ClassifyRecipe):
        engine.configure(recipe.seed, engine.resolve_precision(recipe.train.precision), recipe.devices.deterministic)
        spec = recipe.backbone or trial.spec
        with (
            engine.dtype_policy("float32")
            if recipe.pretrained
            else engine.dtype_policy(keras.config.dtype_policy().name)
        ):
            backbone = _build_backbone(spec, dataset, recipe.augment) if spec else _load_backbone(recipe.pretrained)
        return _time_training(recipe, dataset, build_classifier(recipe, dataset, backbone), labelled=True)
    if isinstance(recipe, TransferRecipe):
        engine.configure(recipe.seed, engine.resolve_precision(recipe.train.precision), recipe.devices.deterministic)
        return _time_transfer(recipe, dataset)
    assert isinstance(recipe, ProbeRecipe)
    engine.configure(recipe.seed, "float32")
    backbone = _build_backbone(trial.spec, dataset, recipe.augment) if trial.spec else _load_backbone(recipe.backbone)
    return [_time_probe(probe, backbone, dataset, recipe.augment) for probe in recipe.probe]


def _build_backbone(spec: Backbone, dataset: Dataset, augment: Augment) -> keras.Model:
    return registry.build_backbone(spec, backbone_input_shape(dataset, augment), dataset.mean, dataset.std)


def _load_backbone(source: Any) -> keras.Model:
    return load_backbone(Path(str(source.file)))


def _time_training(
    recipe: PretrainRecipe | ClassifyRecipe, dataset: Dataset, model: Classifier, labelled: bool
) -> list[float]:
    """Return the time of all training steps, and of the validations and the test, in seconds."""
    compile_model(model, recipe)
    model.accumulation_parts = recipe.train.accumulate
    batch, count = recipe.train.batch, len(dataset.train)
    if isinstance(recipe, ClassifyRecipe) and recipe.auxiliary:
        batch += recipe.auxiliary.unlabelled(batch)
    batches = training_batches(
        dataset.train, recipe.augment, batch=batch, seed=0, first=0, last=10_000, labelled=labelled
    )
    step = _seconds_per_step(model, batches)
    total = recipe.train.total_steps(count)
    # With data.only, the test images are scored once more.
    evaluated = len(dataset.test or ()) * (2 if recipe.data.only else 1)
    evaluated += len(dataset.validation or ()) * -(-total // recipe.train.steps_per_epoch(count))
    return [step * total, step * FORWARD_SHARE * evaluated / batch]


def _time_transfer(recipe: TransferRecipe, dataset: Any) -> list[float]:
    """Return the time of all training steps, and of the validations and the test, in seconds."""
    model = build_transfer_model(recipe, dataset)
    compile_model(model, recipe)
    model.accumulation_parts = recipe.train.accumulate
    step = _seconds_per_step(model, transfer_batches(recipe, dataset, 10_000))
    length, count = recipe.train, len(dataset.train)
    total = length.total_steps(count)
    validated = -(-total // length.steps_per_epoch(count)) * len(dataset.validation or ())
    tested = len(dataset.test or ())
    if isinstance(recipe, CanvasRecipe):
        evaluation = (validated + tested) * _seconds_per_call(lambda: evaluate_one_image(recipe, dataset, model))
    else:
        validation_passes, test_passes = passes_per_image(recipe)
        evaluation = step * FORWARD_SHARE * (validated * validation_passes + tested * test_passes) / length.batch
    return [step * total, evaluation]


def _time_probe(probe: Probe, backbone: keras.Model, dataset: Dataset, augment: Augment) -> float:
    """Return the time of one probe with its baselines, in seconds; of k-NN, the time of the features alone."""
    taps = registry.taps(backbone) if probe.tap == ["all"] else list(probe.tap)
    backbones = 1 + len([baseline for baseline in probe.baselines if baseline != "pixels"])
    # The images of all splits, or the views of the training images and the images of the other splits.
    splits = {name: len(split) for name, split in labelled_splits(dataset).items()}
    held_out = sum(count for name, count in splits.items() if name != "train")
    images = probe.looks * held_out
    images += 0 if recomputes_features(probe) else splits["train"] * (probe.views or probe.looks)
    frozen = feature_extractor(backbone, taps)
    extraction = images * _seconds_per_image(frozen, dataset, augment)
    if probe.head == "knn":
        return backbones * extraction
    model, _ = build_probe_model(backbone, probe, taps, len(dataset.class_names))
    labels = dataset.train.required_labels()
    rows = np.arange(min(probe.batch, len(labels)))
    if recomputes_features(probe):
        x: Any = next(iter(evaluation_batches(dataset.train, augment, batch=len(rows))))
    else:
        x = {tap: tf.random.normal((len(rows), *shape.shape[1:])) for tap, shape in frozen.output.items()}
    batches = tf.data.Dataset.from_tensors((x, dict.fromkeys(map(registry.scope_name, taps), labels[rows]))).repeat()
    steps = probe.total_steps(len(labelled_subset(dataset, probe, (0, 0)))) * probe.draws
    return backbones * (extraction + steps * _seconds_per_step(model, batches))


def _seconds_per_image(frozen: keras.Model, dataset: Dataset, augment: Augment) -> float:
    """Return how long the features of an image take, in seconds."""
    few = replace(dataset.train, rows=np.resize(dataset.train.rows, EXTRACTED_IMAGES), labels=None)
    (images,) = evaluation_batches(few, augment, batch=EXTRACTED_IMAGES)
    compute = tf.function(lambda pixels: frozen(pixels, training=False))
    return _seconds_per_call(lambda: compute(images)) / EXTRACTED_IMAGES


def _seconds_per_call(call: Callable[[], Any]) -> float:
    call()
    times: list[float] = []
    while len(times) < MIN_STEPS or sum(times) < MIN_SECONDS:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _seconds_per_step(model: keras.Model, batches: tf.data.Dataset) -> float:
    """Return how long a training step takes, in seconds."""
    timer = _StepTimer()
    model.fit(batches, verbose=0, shuffle=False, callbacks=[timer])
    return float(np.median(timer.times))


class _StepTimer(keras.callbacks.Callback):
    """Times training steps, and ends the training after enough of them."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []
        self._previous: float | None = None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Record how long the step took, except for the first step, which traces the graph."""
        now = time.perf_counter()
        if self._previous is not None:
            self.times.append(now - self._previous)
        self._previous = now
        if len(self.times) >= MIN_STEPS and sum(self.times) >= MIN_SECONDS:
            self.model.stop_training = True
