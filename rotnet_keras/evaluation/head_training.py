"""Training of classification heads on frozen features, and their confusion matrices on held-out splits."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from rotnet_keras import engine
from rotnet_keras.config.probes import Probe
from rotnet_keras.config.sections import Augment
from rotnet_keras.data.batches import (
    center_crop,
    load_augmented,
    pipeline,
    positions_of_step,
    whole_batch_of_step,
)
from rotnet_keras.data.datasets import Dataset, labelled_subset
from rotnet_keras.data.stores import Split
from rotnet_keras.engine import keras, tf
from rotnet_keras.evaluation.features import Features, feature_extractor
from rotnet_keras.models.backbones.registry import scope_name
from rotnet_keras.models.fused_batch_norm import with_fused_batch_norm
from rotnet_keras.models.heads import build_head
from rotnet_keras.text import duration
from rotnet_keras.training.callbacks import AfterStep, LearningRate
from rotnet_keras.training.optimizers import assign_averaged_weights, build_optimizer
from rotnet_keras.training.session import Session

# Images in a batch of the evaluation.
EVALUATION_BATCH = 500
# The time of a probe is estimated from the steps between these two; the first ones are slower.
TIMED_STEPS = (5, 30)
# A probe that takes longer announces it.
LONG_SECONDS = 600.0


@dataclass(frozen=True)
class FrozenBackbone:
    """A backbone whose features are probed.

    Attributes:
        weights: which weights it has: "rotnet" for the trained ones, otherwise the name of a baseline.
        model: from raw pixels.
        taps: names of the layers that are probed.
    """

    weights: str
    model: keras.Model
    taps: list[str]


def build_probe_model(
    backbone: keras.Model, probe: Probe, taps: list[str], classes: int
) -> tuple[keras.Model, dict[str, keras.Model]]:
    """Build a compiled model with a head on each tap.

    The heads compute in the probe's precision, the backbone in float32.

    Args:
        backbone: from raw pixels.
        probe: the settings of the heads and of their training.
        taps: names of the layers that get a head.
        classes: how many logits each head has.

    Returns:
        The model from {tap: features}, or from pixels (`recomputes_features`), to {`scope_name` of tap: logits}; and
        the heads by tap.
    """
    frozen = feature_extractor(backbone, taps)
    shapes = {tap: tuple(frozen.output[tap].shape[1:]) for tap in taps}
    with engine.dtype_policy(engine.resolve_precision(probe.precision)):
        heads = {
            tap: with_fused_batch_norm(build_head(probe.head, shapes[tap], classes, scope_name(tap))) for tap in taps
        }
        if recomputes_features(probe):
            inputs: Any = keras.Input(frozen.input.shape[1:])
            features = frozen(inputs)
        else:
            inputs = features = {tap: keras.Input(shapes[tap], name=tap) for tap in taps}
        model = keras.Model(inputs, {scope_name(tap): heads[tap](features[tap]) for tap in taps})
        # Compiled under the policy too, since float16 needs loss scaling.
        model.compile(
            build_optimizer(probe.optimizer),
            loss={scope_name(tap): keras.losses.SparseCategoricalCrossentropy(from_logits=True) for tap in taps},
        )
    model.optimizer.build(model.trainable_variables)
    return model, heads


def long_probe_note(what: str, probe: Probe, taps: int, step_seconds: float, steps: int) -> str:
    """Say how long the heads of a probe will train, and how it would take less; empty if it is not long.

    Args:
        what: the name of the training, as the progress shows it.
        probe: its settings.
        taps: the number of layers that are probed.
        step_seconds: the measured time of a step.
        steps: the steps of one repetition.
    """
    seconds = step_seconds * steps * probe.draws
    if seconds <= LONG_SECONDS:
        return ""
    repeats = f"{probe.draws} times " if probe.draws > 1 else ""
    fewer = ["fewer steps" if probe.steps else "fewer epochs"]
    fewer += ["fewer repeats"] if probe.draws > 1 else []
    fewer += ["a single tap"] if taps > 1 else []
    return (
        f"{what} takes about {duration(seconds)}: {repeats}{steps:,} steps on {taps} layer{'s' if taps > 1 else ''}. "
        f"Less time: {', '.join(fewer)}, or the head knn, which is not trained"
    )


def recomputes_features(probe: Probe) -> bool:
    """Whether features are computed in every step from random crops, not read from disk."""
    return probe.augment and probe.views is None


class HeadTraining:
    """Trains the heads of all taps of a probe at once, in a single pass over the features.

    Their losses are summed and share no variables, so each head learns as if it were alone.
    """

    def __init__(
        self,
        session: Session,
        dataset: Dataset,
        backbone: FrozenBackbone,
        probe: Probe,
        taps: list[str],
        augment: Augment,
        stores: dict[str, Features],
    ) -> None:
        self.session, self.dataset, self.probe, self.taps = session, dataset, probe, taps
        self.augment, self.stores, self.weights = augment, stores, backbone.weights
        self.seed = session.seed
        self.recomputes_features = recomputes_features(probe)
        keras.utils.set_random_seed(self.seed)
        self.precision = engine.resolve_precision(probe.precision)
        self.model, self.heads = build_probe_model(backbone.model, probe, taps, len(dataset.class_names))
        self.variables = [*self.model.variables, *self.model.optimizer.variables]
        self.initial = [np.array(variable) for variable in self.variables]

    def train(self, draw: int) -> dict[str, dict[str, Any]]:
        """Train newly initialised heads.

        Args:
            draw: number of the repetition: of the random choice of labelled images, of the initial weights and of the
                order of the images.

        Returns:
            For each tap the confusion matrices (C, C), by the name of the held-out split.
        """
        self._initialise(draw)
        subset = labelled_subset(self.dataset, self.probe, (self.seed, draw))
        total = self.probe.total_steps(len(subset))
        labels = "" if self.probe.labels_per_class is None else f", {self.probe.labels_per_class} a class"
        what = (
            f"{self.probe.head} probe ({self.weights}{labels}{f', draw {draw + 1}' if self.probe.repeats > 1 else ''})"
        )

        began = time.monotonic()

        def after_step(done: int) -> bool:
            nonlocal began
            self.session.progress(what, done, total)
            if not draw and done == TIMED_STEPS[0]:
                began = time.monotonic()
            elif not draw and done == TIMED_STEPS[1]:
                step = (time.monotonic() - began) / (TIMED_STEPS[1] - TIMED_STEPS[0])
                note = long_probe_note(what, self.probe, len(self.taps), step, total)
                if note:
                    self.session.say(note)
            return False

        rate = LearningRate(self.probe.optimizer, self.probe.schedule, self.probe, len(subset), 0)
        batches = self._batches(subset, total, _seed_of_draw(self.seed, draw))
        self.model.fit(batches, verbose=0, shuffle=False, callbacks=[rate, AfterStep(after_step)])
        assign_averaged_weights(self.model, self.probe.optimizer)
        return self._confusion_matrices()

    def _initialise(self, draw: int) -> None:
        """Reset all variables, and give the heads the initial weights of a draw."""
        for variable, value in zip(self.variables, self.initial, strict=True):
            variable.assign(value)
        if not draw:
            return
        keras.utils.set_random_seed(_seed_of_draw(self.seed, draw))
        for tap, head in self.heads.items():
            fresh = build_head(self.probe.head, head.input.shape[1:], len(self.dataset.class_names), scope_name(tap))
            head.set_weights(fresh.get_weights())

    def _batches(self, subset: np.ndarray, total: int, seed: int) -> tf.data.Dataset:
        labels = self.dataset.train.required_labels()

        def fetch(step: np.ndarray) -> list[np.ndarray]:
            count, batch = len(subset), self.probe.batch
            if self.probe.fills_batches:
                positions, passes = whole_batch_of_step(count, batch, seed, int(step))
            else:
                positions = positions_of_step(count, batch, seed, int(step))
                passes = np.full(len(positions), int(step) // self.probe.steps_per_epoch(count))
            rows = subset[positions]
            if self.recomputes_features:
                rng = np.random.default_rng((seed, 2, int(step)))
                return [load_augmented(self.dataset.train, rows, self.augment, rng), labels[rows]]
            views = passes % (self.probe.views or 1)
            parts = []
            for view in np.unique(views):
                order = np.sort(rows[views == view])
                store = self.stores["train" if self.probe.views is None else f"view-{view}"]
                parts.append([*(store[tap][order] for tap in self.taps), labels[order]])
            return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)] if len(parts) > 1 else parts[0]

        return self._pipeline(tf.data.Dataset.range(total), fetch)

    def _pipeline(self, steps: tf.data.Dataset, fetch: Any) -> tf.data.Dataset:
        inputs = self.model.input
        specs = [inputs] if self.recomputes_features else [inputs[tap] for tap in self.taps]
        types = [tf.uint8] if self.recomputes_features else [tf.float16] * len(self.taps)

        def load(step: tf.Tensor) -> tuple[Any, dict[str, tf.Tensor]]:
            *arrays, labels = tf.numpy_function(fetch, [step], [*types, tf.int64], stateful=False)
            arrays = [tf.ensure_shape(a, (None, *s.shape[1:])) for a, s in zip(arrays, specs, strict=True)]
            labels = tf.ensure_shape(labels, (None,))
            x = arrays[0] if self.recomputes_features else dict(zip(self.taps, arrays, strict=True))
            return x, dict.fromkeys(map(scope_name, self.taps), labels)

        return pipeline(steps, load)

    def _confusion_matrices(self) -> dict[str, dict[str, Any]]:
        scores: dict[str, dict[str, Any]] = {tap: {} for tap in self.taps}
        for name, split in labelled_splits(self.dataset).items():
            if name == "train":
                continue
            predicted: dict[str, list[np.ndarray]] = {tap: [] for tap in self.taps}
            for start in range(0, len(split), EVALUATION_BATCH):
                rows = slice(start, start + EVALUATION_BATCH)
                if self.recomputes_features:
                    x: Any = center_crop(split.images(rows), self.augment, split.values)
                else:
                    x = {tap: self.stores[name][tap][rows] for tap in self.taps}
                logits = self.model.predict_on_batch(x)
                for tap in self.taps:
                    predicted[tap].append(np.argmax(logits[scope_name(tap)], axis=-1))
                self.session.stop.check()
            for tap in self.taps:
                scores[tap][name] = _confusion(split.required_labels(), np.concatenate(predicted[tap]), self.dataset)
        return scores


def _seed_of_draw(seed: int, draw: int) -> int:
    """The seed of a repetition's initial weights and order: the recipe's own for the first, another for each other."""
    return int(np.random.SeedSequence((seed, draw)).generate_state(1)[0]) if draw else seed


def evaluate_knn(
    probe: Probe, taps: list[str], dataset: Dataset, stores: dict[str, Features], seed: int, draw: int
) -> dict[str, dict[str, Any]]:
    """Classify held-out images by their k nearest neighbours in cosine similarity.

    Feature maps are averaged over height and width; the pixels of the tap `pixels` are compared as they are.

    Args:
        probe: with the number of neighbours and of labels.
        taps: whose features are compared.
        dataset: for the labels.
        stores: features by split and tap.
        seed: of the choice of labelled images.
        draw: number of this choice.

    Returns:
        For each tap the confusion matrices (C, C), by the name of the held-out split.
    """

    def vectors(name: str, tap: str) -> np.ndarray:
        values = np.asarray(stores[name][tap], np.float32)
        if values.ndim > 2 and tap != "pixels":
            return values.mean(axis=(1, 2))
        return values.reshape(len(values), -1)

    subset = labelled_subset(dataset, probe, (seed, draw))
    scores: dict[str, dict[str, Any]] = {}
    for tap in taps:
        model = KNeighborsClassifier(min(probe.neighbours, len(subset)), metric="cosine", weights="distance")
        model.fit(vectors("train", tap)[subset], dataset.train.required_labels()[subset])
        scores[tap] = {
            name: _confusion(split.required_labels(), model.predict(vectors(name, tap)), dataset)
            for name, split in labelled_splits(dataset).items()
            if name != "train"
        }
    return scores


def _confusion(labels: np.ndarray, predicted: np.ndarray, dataset: Dataset) -> np.ndarray:
    """The confusion matrix: (C, C) counts, one row for each true class; images of an unknown class do not count."""
    classes = len(dataset.class_names)
    labels, predicted = labels[labels >= 0], predicted[labels >= 0]
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def top1(confusion: np.ndarray) -> float:
    """The accuracy, 0 to 1, of a confusion matrix (C, C)."""
    return float(np.trace(confusion) / max(1, confusion.sum()))


def labelled_splits(dataset: Dataset) -> dict[str, Split]:
    """The splits of a dataset with images whose class is known, by name: train, validation, test."""
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {name: split for name, split in splits.items() if split is not None and name in dataset.labelled}
