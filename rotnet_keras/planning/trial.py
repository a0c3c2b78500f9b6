"""How long runs would take on this machine: some steps of each, on their own images, against the clock."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras import engine
from rotnet_keras.config.schema import ClassifyRecipe, PretrainRecipe, ProbeRecipe, RunRecipe
from rotnet_keras.config.sections import Augment, Backbone, Probe
from rotnet_keras.config.transfer import CanvasRecipe, TransferRecipe
from rotnet_keras.data.batches import evaluation_images, training_images
from rotnet_keras.data.datasets import Dataset, labelled_subset
from rotnet_keras.engine import keras, tf
from rotnet_keras.evaluation.features import feature_extractor
from rotnet_keras.evaluation.head_training import build_probe_model, labelled_splits, recomputes_features
from rotnet_keras.models.backbones import registry
from rotnet_keras.models.export import load_backbone
from rotnet_keras.models.rotnet import Classifier
from rotnet_keras.planning.transfers import build_transfer_model, evaluate_one_image, passes_per_image, transfer_batches
from rotnet_keras.planning.workload import probe_rounds
from rotnet_keras.tasks.finetune import build_classifier
from rotnet_keras.tasks.pretrain import build_rotnet
from rotnet_keras.training.setup import backbone_input_shape
from rotnet_keras.training.trainer import compile_model

# So long, and at least so many steps after the first, which traces the graph.
SECONDS, STEPS = 1.0, 3
# A forward pass against a training step of as many inputs.
FORWARD = 1 / 3
EXTRACTED = 256


@dataclass(frozen=True)
class Trial:
    """A run to time.

    Attributes:
        dataset: that of its kind, or noise of the same shapes.
        spec: the backbone that it goes on from, where that is not there yet.
    """

    recipe: RunRecipe | TransferRecipe
    dataset: Any
    spec: Backbone | None = None


def seconds(trial: Trial, known: dict[str, list[float]]) -> list[float]:
    """How long each phase of a run would take, phases as `workload` has them.

    Args:
        known: what was found before; equal runs are timed once.
    """
    key = _cost_key(trial)
    if key not in known:
        known[key] = _work(trial)
    return known[key]


def _cost_key(trial: Trial) -> str:
    """The same for runs that differ only in what costs no time."""
    same: dict[str, Any] = {"seed": 0, "title": "-"}
    recipe = trial.recipe
    if isinstance(recipe, ProbeRecipe) and trial.spec:
        same["backbone"] = recipe.backbone.model_copy(update={"file": "-"})
    if isinstance(recipe, ClassifyRecipe):
        same["head"] = recipe.head.model_copy(update={"label_choice": "first", "labels_per_class": None})
    if isinstance(recipe, ClassifyRecipe | TransferRecipe) and trial.spec and recipe.pretrained:
        same["pretrained"] = recipe.pretrained.model_copy(update={"file": "-"})
    return f"{recipe.model_copy(update=same)!r} {trial.spec!r}"


def _work(trial: Trial) -> list[float]:
    recipe, dataset = trial.recipe, trial.dataset
    if isinstance(recipe, PretrainRecipe):
        engine.configure(recipe.seed, engine.resolve_precision(recipe.train.precision))
        training = _training(recipe, dataset, build_rotnet(recipe, dataset), labelled=False)
        with engine.dtype_policy("float32"):
            backbone = _fresh(recipe.backbone, dataset, recipe.augment)
            probes = [
                probe_rounds(p, recipe, dataset) * _probe(p, backbone, dataset, recipe.augment) for p in recipe.probe
            ]
        return [*training, *probes]
    if isinstance(recipe, ClassifyRecipe):
        engine.configure(recipe.seed, engine.resolve_precision(recipe.train.precision))
        spec = recipe.backbone or trial.spec
        with (
            engine.dtype_policy("float32")
            if recipe.pretrained
            else engine.dtype_policy(keras.config.dtype_policy().name)
        ):
            backbone = _fresh(spec, dataset, recipe.augment) if spec else _loaded(recipe.pretrained)
        return _training(recipe, dataset, build_classifier(recipe, dataset, backbone), labelled=True)
    if isinstance(recipe, TransferRecipe):
        engine.configure(recipe.seed, engine.resolve_precision(recipe.train.precision))
        return _transfer(recipe, dataset)
    assert isinstance(recipe, ProbeRecipe)
    engine.configure(recipe.seed, "float32")
    backbone = _fresh(trial.spec, dataset, recipe.augment) if trial.spec else _loaded(recipe.backbone)
    return [_probe(probe, backbone, dataset, recipe.augment) for probe in recipe.probe]


def _fresh(spec: Backbone, dataset: Dataset, augment: Augment) -> keras.Model:
    return registry.build(spec, backbone_input_shape(dataset, augment), dataset.mean, dataset.std)


def _loaded(source: Any) -> keras.Model:
    return load_backbone(Path(str(source.file)))


def _training(
    recipe: PretrainRecipe | ClassifyRecipe, dataset: Dataset, model: Classifier, labelled: bool
) -> list[float]:
    """Seconds of all steps, and of the validations and the test."""
    compile_model(model, recipe)
    model.accumulation_parts = recipe.train.accumulate
    batch, count = recipe.train.batch, len(dataset.train)
    if isinstance(recipe, ClassifyRecipe) and recipe.auxiliary:
        batch += recipe.auxiliary.batch or batch
    batches = training_images(
        dataset.train, recipe.augment, batch=batch, seed=0, first=0, last=10_000, labelled=labelled
    )
    step = _pace(model, batches)
    total = recipe.train.total_steps(count)
    evaluated = len(dataset.test or ())
    evaluated += len(dataset.validation or ()) * -(-total // recipe.train.steps_per_epoch(count))
    return [step * total, step * FORWARD * evaluated / batch]


def _transfer(recipe: TransferRecipe, dataset: Any) -> list[float]:
    """Seconds of all steps, and of the validations and the test."""
    model = build_transfer_model(recipe, dataset)
    compile_model(model, recipe)
    model.accumulation_parts = recipe.train.accumulate
    step = _pace(model, transfer_batches(recipe, dataset, 10_000))
    length, count = recipe.train, len(dataset.train)
    total = length.total_steps(count)
    validated = -(-total // length.steps_per_epoch(count)) * len(dataset.validation or ())
    tested = len(dataset.test or ())
    if isinstance(recipe, CanvasRecipe):
        evaluation = (validated + tested) * _per_call(lambda: evaluate_one_image(recipe, dataset, model))
    else:
        in_validation, in_test = passes_per_image(recipe)
        evaluation = step * FORWARD * (validated * in_validation + tested * in_test) / length.batch
    return [step * total, evaluation]


def _probe(probe: Probe, backbone: keras.Model, dataset: Dataset, augment: Augment) -> float:
    """Seconds of one probe with its baselines, k-NN by the features alone."""
    taps = registry.taps(backbone) if probe.tap == ["all"] else list(probe.tap)
    trunks = 1 + len([baseline for baseline in probe.baselines if baseline != "pixels"])
    # Features of all splits, or of the views and the splits that are not for training.
    splits = {name: len(split) for name, split in labelled_splits(dataset).items()}
    held_out = sum(count for name, count in splits.items() if name != "train")
    images = held_out + (0 if recomputes_features(probe) else splits["train"] * (probe.views or 1))
    frozen = feature_extractor(backbone, taps)
    extraction = images * _image_pace(frozen, dataset, augment)
    if probe.head == "knn":
        return trunks * extraction
    model, _ = build_probe_model(backbone, probe, taps, len(dataset.class_names))
    labels = dataset.train.required_labels()
    rows = np.arange(min(probe.batch, len(labels)))
    if recomputes_features(probe):
        x: Any = next(iter(evaluation_images(dataset.train, augment, batch=len(rows))))
    else:
        x = {tap: tf.random.normal((len(rows), *shape.shape[1:])) for tap, shape in frozen.output.items()}
    batches = tf.data.Dataset.from_tensors((x, dict.fromkeys(taps, labels[rows]))).repeat()
    steps = probe.total_steps(len(labelled_subset(dataset, probe, (0, 0)))) * probe.repeats
    return trunks * (extraction + steps * _pace(model, batches))


def _image_pace(frozen: keras.Model, dataset: Dataset, augment: Augment) -> float:
    """Seconds that the features of an image take."""
    few = replace(dataset.train, rows=np.resize(dataset.train.rows, EXTRACTED), labels=None)
    (images,) = evaluation_images(few, augment, batch=EXTRACTED)
    compute = tf.function(lambda pixels: frozen(pixels, training=False))
    return _per_call(lambda: compute(images)) / EXTRACTED


def _per_call(call: Callable[[], Any]) -> float:
    call()
    times: list[float] = []
    while len(times) < STEPS or sum(times) < SECONDS:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _pace(model: keras.Model, batches: tf.data.Dataset) -> float:
    """Seconds a training step."""
    watch = _Watch()
    model.fit(batches, verbose=0, shuffle=False, callbacks=[watch])
    return float(np.median(watch.times))


class _Watch(keras.callbacks.Callback):
    """Times steps, and ends the training when it has seen enough."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []
        self._since: float | None = None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Note how long the step took, the first one's tracing left out."""
        now = time.perf_counter()
        if self._since is not None:
            self.times.append(now - self._since)
        self._since = now
        if len(self.times) >= STEPS and sum(self.times) >= SECONDS:
            self.model.stop_training = True
