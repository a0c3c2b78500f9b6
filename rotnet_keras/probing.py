"""Probes: classifiers on frozen features, and the controls they are held against."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from rotnet_keras import backbones, engine
from rotnet_keras.batches import augmented, centred, crop_size, positions_of_step
from rotnet_keras.callbacks import AfterStep, LearningRate
from rotnet_keras.datasets import Dataset, Split
from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import DataError, RunError
from rotnet_keras.exports import save_model
from rotnet_keras.features import Features, extract, frozen_taps, pixels_backbone, random_backbone
from rotnet_keras.heads import build_head
from rotnet_keras.models import with_softmax
from rotnet_keras.optimizers import build_optimizer
from rotnet_keras.runs import find_run, list_runs
from rotnet_keras.schema import Augment, Probe, ProbeRecipe, Source
from rotnet_keras.session import Session
from rotnet_keras.stages import finish, prepare_data

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class Trunk:
    """Whose features are probed: "rotnet", "random" or "pixels", the model, and the taps asked for."""

    weights: str
    model: keras.Model
    taps: list[str]


def probe_backbone(session: Session) -> None:
    """Run a recipe of the kind `probe`."""
    recipe = session.recipe
    assert isinstance(recipe, ProbeRecipe)
    engine.configure(recipe.seed, "float32")
    path = find_backbone(recipe.backbone, session.folder.path.parent)
    session.record(backbone=str(path))
    try:
        backbone = keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises many types for files that are not its own.
        raise DataError(f"{path}: not a Keras model that can be loaded safely: {error}") from None
    dataset = prepare_data(session)
    run_probes(session, dataset, backbone, recipe.augment, recipe.probe, step=0)
    finish(session)


def find_backbone(source: Source, runs_dir: Path) -> Path:
    """The .keras file that a recipe's `[backbone]` means.

    Raises:
        DataError: there is none.
        RunError: no such run.
    """
    if source.file is not None:
        path = Path(source.file).expanduser()
    elif source.run is not None:
        path = find_run(source.run, runs_dir).backbone
    else:
        wanted = Path(str(source.recipe)).stem
        made = [run for run in list_runs(runs_dir) if run.facts().get("recipe") == wanted and run.backbone.is_file()]
        if not made:
            raise RunError(f"no finished run of the recipe {wanted!r} in {runs_dir}; start one with: rotnet-keras run")
        path = made[-1].backbone
    if not path.is_file():
        raise DataError(f"backbone: no file {path.absolute()}")
    return path


def run_probes(
    session: Session, dataset: Dataset, backbone: keras.Model, augment: Augment, probes: Sequence[Probe], step: int
) -> None:
    """Measure the probes that have no result at this step yet, and write one event for each tap."""
    if not probes:
        return
    if dataset.train.labels is None or dataset.test is None:
        raise DataError("probes need labels, and these images have none: leave [[probe]] out")
    _check_shape(backbone, dataset, augment)
    done = {(e["probe"], e["weights"]) for e in session.earlier if e["kind"] == "probe" and e["step"] == step}
    for weights in ("rotnet", "random", "pixels"):
        asked = [(i, p) for i, p in enumerate(probes) if weights == "rotnet" or weights in p.controls]
        due = [(i, p) for i, p in asked if (i, weights) not in done]
        if due:
            _probe_one_trunk(session, dataset, backbone, weights, augment, due, step)


def _probe_one_trunk(
    session: Session,
    dataset: Dataset,
    backbone: keras.Model,
    weights: str,
    augment: Augment,
    probes: list[tuple[int, Probe]],
    step: int,
) -> None:
    side = crop_size(augment, dataset.image_shape[0])
    seed = session.recipe.seed
    trunk = _trunk(backbone, weights, dataset, augment, side, seed, [p for _, p in probes])
    with tempfile.TemporaryDirectory(prefix=".features-", dir=session.folder.path) as folder:
        stores: dict[str, Features] = {}
        if any(not p.augment for _, p in probes):
            frozen = frozen_taps(trunk.model, trunk.taps)
            for name, split in _splits(dataset).items():
                what = f"features ({weights}, {name})"
                stores[name] = extract(frozen, split, augment, Path(folder, name), session.progress, what)
        for index, probe in probes:
            taps = _taps(trunk, probe)
            with session.timed() as took:
                if probe.head == "knn":
                    scores = [_nearest_neighbours(probe, taps, dataset, stores, seed)]
                else:
                    training = HeadTraining(session, dataset, trunk, probe, taps, augment, stores)
                    scores = [training.repeat(draw) for draw in range(probe.repeats)]
                    if weights == "rotnet" and probe.labels_per_class is None:
                        _export_classifier(session, trunk.model, training.heads, scores[-1], probe)
            for tap in taps:
                session.event(
                    "probe",
                    probe=index,
                    step=step,
                    weights=weights,
                    tap=tap,
                    head=probe.head,
                    labels_per_class=probe.labels_per_class,
                    **_summary([score[tap] for score in scores]),
                    **took,
                )


def _trunk(
    backbone: keras.Model,
    weights: str,
    dataset: Dataset,
    augment: Augment,
    side: int,
    seed: int,
    probes: list[Probe],
) -> Trunk:
    if weights == "pixels":
        return Trunk(weights, pixels_backbone(dataset, side), ["pixels"])
    every = backbones.taps(backbone)
    asked = [tap for probe in probes for tap in (every if probe.tap == ["all"] else probe.tap)]
    if not asked:
        raise DataError("the backbone has no layers called conv1, conv2, ...: name the taps in the recipe")
    taps = list(dict.fromkeys(asked))
    model = backbone if weights == "rotnet" else random_backbone(backbone, dataset, augment, seed + 1)
    return Trunk(weights, model, taps)


def _taps(trunk: Trunk, probe: Probe) -> list[str]:
    if trunk.weights == "pixels":
        return trunk.taps
    return backbones.taps(trunk.model) if probe.tap == ["all"] else list(probe.tap)


def _splits(dataset: Dataset) -> dict[str, Split]:
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {name: split for name, split in splits.items() if split is not None}


class HeadTraining:
    """Heads for all taps of one probe, trained side by side: one pass over the features serves them all.

    Their losses are summed and share no variable, so each head learns as if it were alone.
    """

    def __init__(
        self,
        session: Session,
        dataset: Dataset,
        trunk: Trunk,
        probe: Probe,
        taps: list[str],
        augment: Augment,
        stores: dict[str, Features],
    ) -> None:
        self.session, self.dataset, self.probe, self.taps = session, dataset, probe, taps
        self.augment, self.stores, self.weights = augment, stores, trunk.weights
        self.seed = session.recipe.seed
        keras.utils.set_random_seed(self.seed)
        classes = len(dataset.class_names)
        frozen = frozen_taps(trunk.model, taps)
        shapes = {tap: tuple(frozen.output[tap].shape[1:]) for tap in taps}
        self.heads = {tap: build_head(probe.head, shapes[tap], classes, tap) for tap in taps}
        if probe.augment:
            inputs: Any = keras.Input(frozen.input.shape[1:])
            features = frozen(inputs)
        else:
            inputs = {tap: keras.Input(shapes[tap], name=tap) for tap in taps}
            features = inputs
        self.model = keras.Model(inputs, {tap: self.heads[tap](features[tap]) for tap in taps})
        self.model.compile(
            build_optimizer(probe.optimizer),
            loss={tap: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for tap in taps},
        )
        self.initial = self.model.get_weights()

    def repeat(self, draw: int) -> dict[str, dict[str, Any]]:
        """Train from the first weights with the `draw`-th choice of labels; {tap: scores on the splits}."""
        self.model.set_weights(self.initial)
        self.model.optimizer.build(self.model.trainable_variables)
        for variable in self.model.optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))
        chosen = labelled_subset(self.dataset, self.probe.labels_per_class, (self.seed, draw))
        total = self.probe.total_steps(len(chosen))
        labels = "" if self.probe.labels_per_class is None else f", {self.probe.labels_per_class} a class"
        what = (
            f"{self.probe.head} probe ({self.weights}{labels}{f', draw {draw + 1}' if self.probe.repeats > 1 else ''})"
        )

        def after_step(done: int) -> bool:
            self.session.progress(what, done, total)
            return False

        rate = LearningRate(self.probe.optimizer, self.probe.schedule, self.probe, len(chosen), 0)
        self.model.fit(self._batches(chosen, total), verbose=0, callbacks=[rate, AfterStep(after_step)])
        return self._scores()

    def _batches(self, chosen: np.ndarray, total: int) -> tf.data.Dataset:
        labels = self.dataset.train.required_labels()

        def fetch(step: np.ndarray) -> list[np.ndarray]:
            rows = chosen[positions_of_step(len(chosen), self.probe.batch, self.seed, int(step))]
            if self.probe.augment:
                rng = np.random.default_rng((self.seed, 2, int(step)))
                return [augmented(self.dataset.train.images(rows), self.augment, rng), labels[rows]]
            order = np.sort(rows)
            return [*(self.stores["train"][tap][order] for tap in self.taps), labels[order]]

        return self._pipeline(tf.data.Dataset.range(total), fetch)

    def _pipeline(self, steps: tf.data.Dataset, fetch: Any) -> tf.data.Dataset:
        inputs = self.model.input
        specs = [inputs] if self.probe.augment else [inputs[tap] for tap in self.taps]
        types = [tf.uint8] if self.probe.augment else [tf.float16] * len(self.taps)

        def load(step: tf.Tensor) -> tuple[Any, dict[str, tf.Tensor]]:
            *arrays, labels = tf.numpy_function(fetch, [step], [*types, tf.int64], stateful=False)
            arrays = [tf.ensure_shape(a, (None, *s.shape[1:])) for a, s in zip(arrays, specs, strict=True)]
            labels = tf.ensure_shape(labels, (None,))
            x = arrays[0] if self.probe.augment else dict(zip(self.taps, arrays, strict=True))
            return x, dict.fromkeys(self.taps, labels)

        return steps.map(load, num_parallel_calls=2, deterministic=True).prefetch(4)

    def _scores(self) -> dict[str, dict[str, Any]]:
        scores: dict[str, dict[str, Any]] = {tap: {} for tap in self.taps}
        for name, split in _splits(self.dataset).items():
            if name == "train":
                continue
            predicted: dict[str, list[np.ndarray]] = {tap: [] for tap in self.taps}
            for start in range(0, len(split), EVALUATION_BATCH):
                rows = slice(start, start + EVALUATION_BATCH)
                if self.probe.augment:
                    x: Any = centred(split.images(rows), self.augment)
                else:
                    x = {tap: self.stores[name][tap][rows] for tap in self.taps}
                for tap, logits in self.model.predict_on_batch(x).items():
                    predicted[tap].append(np.argmax(logits, axis=-1))
                self.session.stop.check()
            for tap in self.taps:
                scores[tap][name] = _confusion(split.required_labels(), np.concatenate(predicted[tap]), self.dataset)
        return scores


def labelled_subset(dataset: Dataset, per_class: int | None, seed: tuple[int, int]) -> np.ndarray:
    """Positions of training images: all, or so many of each class drawn at random.

    Raises:
        DataError: a class has fewer.
    """
    labels = dataset.train.required_labels()
    if per_class is None:
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    picked = []
    for number, name in enumerate(dataset.class_names):
        members = np.flatnonzero(labels == number)
        if len(members) < per_class:
            raise DataError(f"labels_per_class = {per_class}, but class {name!r} has {len(members)} training images")
        picked.append(rng.choice(members, per_class, replace=False))
    return np.sort(np.concatenate(picked))


def _nearest_neighbours(
    probe: Probe, taps: list[str], dataset: Dataset, stores: dict[str, Features], seed: int
) -> dict[str, dict[str, Any]]:
    """k-NN by cosine similarity of globally averaged features (of the pixels themselves for `pixels`)."""

    def vectors(name: str, tap: str) -> np.ndarray:
        values = np.asarray(stores[name][tap], np.float32)
        if values.ndim > 2 and tap != "pixels":
            return values.mean(axis=(1, 2))
        return values.reshape(len(values), -1)

    chosen = labelled_subset(dataset, probe.labels_per_class, (seed, 0))
    scores: dict[str, dict[str, Any]] = {}
    for tap in taps:
        model = KNeighborsClassifier(min(probe.neighbours, len(chosen)), metric="cosine", weights="distance")
        model.fit(vectors("train", tap)[chosen], dataset.train.required_labels()[chosen])
        scores[tap] = {
            name: _confusion(split.required_labels(), model.predict(vectors(name, tap)), dataset)
            for name, split in _splits(dataset).items()
            if name != "train"
        }
    return scores


def _confusion(labels: np.ndarray, predicted: np.ndarray, dataset: Dataset) -> np.ndarray:
    classes = len(dataset.class_names)
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def _top1(confusion: np.ndarray) -> float:
    return float(np.trace(confusion) / max(1, confusion.sum()))


def _summary(draws: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """What a probe event says of a tap: mean over the draws, and the counts of all draws together."""
    top1 = [_top1(draw["test"]) for draw in draws]
    confusion = np.sum([draw["test"] for draw in draws], axis=0)
    totals = np.maximum(confusion.sum(axis=1), 1)
    summary: dict[str, Any] = {
        "top1": float(np.mean(top1)),
        "per_class": (np.diag(confusion) / totals).tolist(),
        "confusion": confusion.tolist(),
    }
    if len(draws) > 1:
        summary["top1_std"] = float(np.std(top1, ddof=1))
    if "validation" in draws[0]:
        summary["validation_top1"] = float(np.mean([_top1(draw["validation"]) for draw in draws]))
    return summary


def _export_classifier(
    session: Session, backbone: keras.Model, heads: dict[str, keras.Model], scores: dict[str, Any], probe: Probe
) -> None:
    """Write `classifier.keras` for the tap that is best on validation, if it beats the one there is."""
    ranked = [(_top1(scores[tap]["validation"]), tap) for tap in heads if "validation" in scores[tap]]
    if not ranked:
        return
    best, tap = max(ranked)
    if best <= float(session.folder.facts().get("classifier", {}).get("validation_top1", -1)):
        return
    features = keras.Model(backbone.input, backbone.get_layer(tap).output, name="features")
    save_model(with_softmax(features, heads[tap], "classifier"), session.folder.export / "classifier.keras")
    session.record(classifier={"tap": tap, "head": probe.head, "validation_top1": best})


def _check_shape(backbone: keras.Model, dataset: Dataset, augment: Augment) -> None:
    side = crop_size(augment, dataset.image_shape[0])
    have = (side, side, dataset.image_shape[2])
    want = tuple(backbone.input.shape[1:])
    if any(w is not None and w != h for w, h in zip(want, have, strict=True)):
        raise DataError(f"the backbone takes images of {want}, these are {have}: set data.size and data.channels")
