"""Training classifiers on frozen features, and scoring them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from rotnet_keras import engine
from rotnet_keras.config.sections import Augment, Probe
from rotnet_keras.data.batches import augmented, centred, pipeline, positions_of_step
from rotnet_keras.data.datasets import Dataset, labelled_subset
from rotnet_keras.data.stores import Split
from rotnet_keras.engine import keras, tf
from rotnet_keras.evaluation.features import Features, feature_extractor
from rotnet_keras.models.fused_batch_norm import with_fused_batch_norm
from rotnet_keras.models.heads import build_head
from rotnet_keras.training.callbacks import AfterStep, LearningRate
from rotnet_keras.training.optimizers import assign_averaged_weights, build_optimizer
from rotnet_keras.training.session import Session

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class FrozenBackbone:
    """Whose features are probed, "rotnet" or a control's, the model, and the taps asked for."""

    weights: str
    model: keras.Model
    taps: list[str]


def build_probe_model(
    backbone: keras.Model, probe: Probe, taps: list[str], classes: int
) -> tuple[keras.Model, dict[str, keras.Model]]:
    """A compiled model from the features of each tap, or from pixels, to the logits of its head; and the heads.

    It computes in the probe's precision, the backbone below it in float32.
    """
    frozen = feature_extractor(backbone, taps)
    shapes = {tap: tuple(frozen.output[tap].shape[1:]) for tap in taps}
    with engine.dtype_policy(engine.resolve_precision(probe.precision)):
        heads = {tap: with_fused_batch_norm(build_head(probe.head, shapes[tap], classes, tap)) for tap in taps}
        if from_pixels(probe):
            inputs: Any = keras.Input(frozen.input.shape[1:])
            features = frozen(inputs)
        else:
            inputs = features = {tap: keras.Input(shapes[tap], name=tap) for tap in taps}
        model = keras.Model(inputs, {tap: heads[tap](features[tap]) for tap in taps})
        # Under its policy too: float16 needs its losses scaled.
        model.compile(
            build_optimizer(probe.optimizer),
            loss={tap: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for tap in taps},
        )
    model.optimizer.build(model.trainable_variables)
    return model, heads


def from_pixels(probe: Probe) -> bool:
    """Whether features are computed anew in every step, because every image is cropped anew."""
    return probe.augment and probe.views is None


class HeadTraining:
    """Heads for all taps of one probe, trained side by side: one pass over the features serves them all.

    Their losses are summed and share no variable, so each head learns as if it were alone.
    """

    def __init__(
        self,
        session: Session,
        dataset: Dataset,
        trunk: FrozenBackbone,
        probe: Probe,
        taps: list[str],
        augment: Augment,
        stores: dict[str, Features],
    ) -> None:
        self.session, self.dataset, self.probe, self.taps = session, dataset, probe, taps
        self.augment, self.stores, self.weights = augment, stores, trunk.weights
        self.seed = session.seed
        self.from_pixels = from_pixels(probe)
        keras.utils.set_random_seed(self.seed)
        self.precision = engine.resolve_precision(probe.precision)
        self.model, self.heads = build_probe_model(trunk.model, probe, taps, len(dataset.class_names))
        self.variables = [*self.model.variables, *self.model.optimizer.variables]
        self.initial = [np.array(variable) for variable in self.variables]

    def repeat(self, draw: int) -> dict[str, dict[str, Any]]:
        """Train from the first weights with the `draw`-th choice of labels; {tap: scores on the splits}."""
        for variable, value in zip(self.variables, self.initial, strict=True):
            variable.assign(value)
        chosen = labelled_subset(self.dataset, self.probe, (self.seed, draw))
        total = self.probe.total_steps(len(chosen))
        labels = "" if self.probe.labels_per_class is None else f", {self.probe.labels_per_class} a class"
        what = (
            f"{self.probe.head} probe ({self.weights}{labels}{f', draw {draw + 1}' if self.probe.repeats > 1 else ''})"
        )

        def after_step(done: int) -> bool:
            self.session.progress(what, done, total)
            return False

        rate = LearningRate(self.probe.optimizer, self.probe.schedule, self.probe, len(chosen), 0)
        batches = self._batches(chosen, total)
        self.model.fit(batches, verbose=0, shuffle=False, callbacks=[rate, AfterStep(after_step)])
        assign_averaged_weights(self.model, self.probe.optimizer)
        return self._scores()

    def _batches(self, chosen: np.ndarray, total: int) -> tf.data.Dataset:
        labels = self.dataset.train.required_labels()

        def fetch(step: np.ndarray) -> list[np.ndarray]:
            rows = chosen[positions_of_step(len(chosen), self.probe.batch, self.seed, int(step))]
            if self.from_pixels:
                rng = np.random.default_rng((self.seed, 2, int(step)))
                return [augmented(self.dataset.train, rows, self.augment, rng), labels[rows]]
            order = np.sort(rows)
            epoch = int(step) // self.probe.steps_per_epoch(len(chosen))
            store = self.stores["train" if self.probe.views is None else f"view-{epoch % self.probe.views}"]
            return [*(store[tap][order] for tap in self.taps), labels[order]]

        return self._pipeline(tf.data.Dataset.range(total), fetch)

    def _pipeline(self, steps: tf.data.Dataset, fetch: Any) -> tf.data.Dataset:
        inputs = self.model.input
        specs = [inputs] if self.from_pixels else [inputs[tap] for tap in self.taps]
        types = [tf.uint8] if self.from_pixels else [tf.float16] * len(self.taps)

        def load(step: tf.Tensor) -> tuple[Any, dict[str, tf.Tensor]]:
            *arrays, labels = tf.numpy_function(fetch, [step], [*types, tf.int64], stateful=False)
            arrays = [tf.ensure_shape(a, (None, *s.shape[1:])) for a, s in zip(arrays, specs, strict=True)]
            labels = tf.ensure_shape(labels, (None,))
            x = arrays[0] if self.from_pixels else dict(zip(self.taps, arrays, strict=True))
            return x, dict.fromkeys(self.taps, labels)

        return pipeline(steps, load)

    def _scores(self) -> dict[str, dict[str, Any]]:
        scores: dict[str, dict[str, Any]] = {tap: {} for tap in self.taps}
        for name, split in labelled_splits(self.dataset).items():
            if name == "train":
                continue
            predicted: dict[str, list[np.ndarray]] = {tap: [] for tap in self.taps}
            for start in range(0, len(split), EVALUATION_BATCH):
                rows = slice(start, start + EVALUATION_BATCH)
                if self.from_pixels:
                    x: Any = centred(split.images(rows), self.augment)
                else:
                    x = {tap: self.stores[name][tap][rows] for tap in self.taps}
                for tap, logits in self.model.predict_on_batch(x).items():
                    predicted[tap].append(np.argmax(logits, axis=-1))
                self.session.stop.check()
            for tap in self.taps:
                scores[tap][name] = _confusion(split.required_labels(), np.concatenate(predicted[tap]), self.dataset)
        return scores


def nearest_neighbours(
    probe: Probe, taps: list[str], dataset: Dataset, stores: dict[str, Features], seed: int
) -> dict[str, dict[str, Any]]:
    """k-NN by cosine similarity of globally averaged features (of the pixels themselves for `pixels`)."""

    def vectors(name: str, tap: str) -> np.ndarray:
        values = np.asarray(stores[name][tap], np.float32)
        if values.ndim > 2 and tap != "pixels":
            return values.mean(axis=(1, 2))
        return values.reshape(len(values), -1)

    chosen = labelled_subset(dataset, probe, (seed, 0))
    scores: dict[str, dict[str, Any]] = {}
    for tap in taps:
        model = KNeighborsClassifier(min(probe.neighbours, len(chosen)), metric="cosine", weights="distance")
        model.fit(vectors("train", tap)[chosen], dataset.train.required_labels()[chosen])
        scores[tap] = {
            name: _confusion(split.required_labels(), model.predict(vectors(name, tap)), dataset)
            for name, split in labelled_splits(dataset).items()
            if name != "train"
        }
    return scores


def _confusion(labels: np.ndarray, predicted: np.ndarray, dataset: Dataset) -> np.ndarray:
    classes = len(dataset.class_names)
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def top1(confusion: np.ndarray) -> float:
    """Share of the counts on the diagonal."""
    return float(np.trace(confusion) / max(1, confusion.sum()))


def labelled_splits(dataset: Dataset) -> dict[str, Split]:
    """The splits that there are, by name."""
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {name: split for name, split in splits.items() if split is not None}
