"""The kind `probe`: train classifiers on the frozen features of a backbone and of its baselines."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras import engine
from rotnet_keras.config.probes import Averaging, Probe
from rotnet_keras.config.schema import ProbeRecipe, RunRecipe
from rotnet_keras.config.sections import Augment
from rotnet_keras.data.datasets import Dataset, labelled_subset
from rotnet_keras.data.stores import Split
from rotnet_keras.engine import keras
from rotnet_keras.errors import DataError
from rotnet_keras.evaluation.features import (
    Features,
    check_disk_space,
    estimate_batch_norm_statistics,
    extract_features,
    feature_extractor,
    random_backbone,
    raw_pixels_backbone,
)
from rotnet_keras.evaluation.head_training import (
    FrozenBackbone,
    HeadTraining,
    evaluate_knn,
    labelled_splits,
    top1,
)
from rotnet_keras.files import make_folder
from rotnet_keras.inference.calibration import describe_classifier
from rotnet_keras.models.averaging import averaged
from rotnet_keras.models.backbones import registry
from rotnet_keras.models.export import load_backbone, save_model, with_softmax
from rotnet_keras.runs.exports.classifier_card import write_card
from rotnet_keras.runs.task_labels import confusion_fields
from rotnet_keras.training.session import Session
from rotnet_keras.training.setup import backbone_input_shape, check_input_shape, finish, prepare_data


def probe_backbone(session: Session) -> None:
    """Run a recipe of the kind `probe`."""
    recipe = session.recipe
    assert isinstance(recipe, ProbeRecipe)
    engine.configure(recipe.seed, "float32")
    backbone = load_backbone(Path(str(recipe.backbone.file)))
    # The report compares a NIN with the paper's of as many blocks.
    session.record(backbone={"name": backbone.name, "taps": registry.taps(backbone)})
    dataset = prepare_data(session)
    check_probes(dataset, recipe.probe)
    if None in backbone.input.shape[1:]:
        backbone = registry.with_input_shape(backbone, backbone_input_shape(dataset, recipe.augment))
    backbone = registry.for_images(backbone, dataset.values)
    run_missing_probes(session, dataset, backbone, recipe.augment, list(enumerate(recipe.probe)), step=0)
    finish(session)


def check_probes(dataset: Dataset, probes: Sequence[Probe]) -> None:
    """Check before any training that the data has what the probes need.

    Raises:
        DataError: labels or test images are missing, or a class has too few images.
    """
    if probes and not {"train", "test"} <= dataset.labelled:
        raise DataError("probes need labelled training and test images: add labels")
    for probe in probes:
        labelled_subset(dataset, probe, (0, 0))


def run_missing_probes(
    session: Session,
    dataset: Dataset,
    backbone: keras.Model,
    augment: Augment,
    probes: Sequence[tuple[int, Probe]],
    step: int,
    exports: bool = True,
) -> None:
    """Run the probes that have no result at this step yet, and write one event for each tap.

    Args:
        probes: the probes with their indices in the recipe.
        step: the step of pretraining; 0 if the run does not pretrain.
        exports: save the best tap as `classifier.keras`. False before the end of a pretraining, whose backbone is not
            the exported one yet.
    """
    check_input_shape(backbone, dataset, augment)
    done = {(e["probe"], e["weights"], e["tap"]) for e in session.earlier if e["kind"] == "probe" and e["step"] == step}
    for weights in ("rotnet", "random", "random_identity", "pixels"):
        asked = [(i, p) for i, p in probes if weights == "rotnet" or weights in p.baselines]
        # A probe trains all its taps, so that the initial weights of each are those of a run without interruption.
        due = [
            (i, p, missing)
            for i, p in asked
            if (missing := [tap for tap in _taps(backbone, weights, p) if (i, weights, tap) not in done])
        ]
        if due:
            _probe_weights(session, dataset, backbone, weights, augment, due, step, exports)


def _probe_weights(
    session: Session,
    dataset: Dataset,
    backbone: keras.Model,
    weights: str,
    augment: Augment,
    probes: list[tuple[int, Probe, list[str]]],
    step: int,
    exports: bool,
) -> None:
    """Run probes on a backbone with its trained weights (`weights` is "rotnet") or on one of its baselines.

    Args:
        probes: the probes with their indices in the recipe and the taps whose events are missing.
    """
    seed = session.seed
    asked = [probe for _, probe, _ in probes]
    probed = _probed_backbone(backbone, weights, dataset, augment, seed, asked)
    with _features_folder(session) as folder:
        features = _extract_features(session, dataset, probed, augment, asked, folder)
        for index, probe, missing in probes:
            own = {name: found for (name, average), found in features.items() if average == probe.average}
            own |= {name: found for (name, average), found in features.items() if average == "none" and name not in own}
            taps, precision = _taps(probed.model, weights, probe), "float32"
            if weights == "rotnet" and probe.draws < probe.repeats:
                session.warn(f"k-NN on labels that are not drawn is the same {probe.repeats} times: it is done once")
            with session.timed() as took:
                if probe.head == "knn":
                    scores = [evaluate_knn(probe, taps, dataset, own, seed, draw) for draw in range(probe.draws)]
                else:
                    trained = HeadTraining(session, dataset, probed, probe, taps, augment, own)
                    precision = trained.precision
                    scores = [trained.train(draw) for draw in range(probe.draws)]
                    if exports and weights == "rotnet" and probe.labels_per_class is None:
                        _export_classifier(
                            session, dataset, probed.model, augment, trained.heads, scores[-1], probe, step
                        )
            for tap in missing:
                session.event(
                    "probe",
                    probe=index,
                    step=step,
                    weights=weights,
                    tap=tap,
                    head=probe.head,
                    labels_per_class=probe.labels_per_class,
                    precision=precision,
                    **_summary([score[tap] for score in scores]),
                    **took,
                )


def _extract_features(
    session: Session, dataset: Dataset, probed: FrozenBackbone, augment: Augment, probes: list[Probe], folder: Path
) -> dict[tuple[str, Averaging], Features]:
    """Compute the features of each split and each view of the training images, of the taps that some probe reads.

    Returns:
        The features by the name of the split or view, and by what they are averaged over; views are not averaged.
    """
    plain, viewed = [p for p in probes if not p.augment], [p for p in probes if p.views]
    wanted: list[tuple[str, Averaging, Split, tuple[int, int] | None, list[Probe]]] = []
    for name, split in labelled_splits(dataset).items():
        readers = plain if name == "train" else plain + viewed
        for average in dict.fromkeys(probe.average for probe in readers):
            wanted.append((name, average, split, None, [probe for probe in readers if probe.average == average]))
    for view in range(max((p.views or 0 for p in viewed), default=0)):
        readers = [p for p in viewed if (p.views or 0) > view]
        wanted.append((f"view-{view}", "none", dataset.train, (session.seed, view), readers))
    jobs = [
        (name, average, split, view, averaged(feature_extractor(probed.model, _all_taps(probed, readers)), average))
        for name, average, split, view, readers in wanted
        if readers
    ]
    check_disk_space([(frozen, len(split)) for _, _, split, _, frozen in jobs], folder)
    what = f"features ({probed.weights}, {{}})"
    run = session.folder.path
    return {
        (name, average): extract_features(
            frozen,
            split,
            augment,
            folder / f"{average}-{name}",
            session.progress,
            what.format(name),
            view,
            session.warn,
            run,
        )
        for name, average, split, view, frozen in jobs
    }


@contextmanager
def _features_folder(session: Session) -> Iterator[Path]:
    """Make an empty folder for features, which may take gigabytes, and delete it afterwards."""
    folder = session.folder.path / ".features"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        make_folder(folder, session.folder.path)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _probed_backbone(
    backbone: keras.Model,
    weights: str,
    dataset: Dataset,
    augment: Augment,
    seed: int,
    probes: list[Probe],
) -> FrozenBackbone:
    """Return the backbone, or the baseline that `weights` names, with the taps that the probes read.

    Raises:
        DataError: the recipe asks for all taps and the backbone has none.
    """
    if weights == "pixels":
        return FrozenBackbone(weights, raw_pixels_backbone(dataset, augment), ["pixels"])
    every = registry.taps(backbone)
    asked = [tap for probe in probes for tap in (every if probe.tap == ["all"] else probe.tap)]
    if not asked:
        raise DataError("the backbone has no layers named conv1, conv2, ...: list the layers to probe in `tap`")
    taps = list(dict.fromkeys(asked))
    if weights == "rotnet":
        return FrozenBackbone(weights, backbone, taps)
    model = random_backbone(backbone, seed + 1)
    if weights == "random":
        estimate_batch_norm_statistics(model, dataset, augment, seed + 1)
    return FrozenBackbone(weights, model, taps)


def _taps(backbone: keras.Model, weights: str, probe: Probe) -> list[str]:
    if weights == "pixels":
        return ["pixels"]
    return registry.taps(backbone) if probe.tap == ["all"] else list(dict.fromkeys(probe.tap))


def _all_taps(probed: FrozenBackbone, probes: list[Probe]) -> list[str]:
    return list(dict.fromkeys(tap for probe in probes for tap in _taps(probed.model, probed.weights, probe)))


def _summary(draws: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Return the scores of one tap: accuracies averaged over the draws of labels, confusion matrices summed."""
    accuracies = [top1(draw["test"]) for draw in draws]
    confusion = np.sum([draw["test"] for draw in draws], axis=0)
    summary: dict[str, Any] = {
        "top1": float(np.mean(accuracies)),
        **confusion_fields(confusion.tolist()),
    }
    if len(draws) > 1:
        summary["top1_std"] = float(np.std(accuracies, ddof=1))
    if "validation" in draws[0]:
        summary["validation_top1"] = float(np.mean([top1(draw["validation"]) for draw in draws]))
        summary["validation_images"] = int(draws[0]["validation"].sum())
    return summary


def _export_classifier(
    session: Session,
    dataset: Dataset,
    backbone: keras.Model,
    augment: Augment,
    heads: dict[str, keras.Model],
    scores: dict[str, Any],
    probe: Probe,
    step: int,
) -> None:
    """Save the tap with the best validation accuracy as `classifier.keras`, unless that of this step is better."""
    ranked = [(top1(scores[tap]["validation"]), tap) for tap in heads if "validation" in scores[tap]]
    if not ranked:
        return
    best, tap = max(ranked)
    saved = session.folder.facts().get("classifier", {})
    # Facts without a step are of an older version, which also saved classifiers of backbones before the last step.
    if saved.get("step", 0) == step and best <= float(saved.get("validation_top1", -1)):
        return
    assert isinstance(session.recipe, RunRecipe)
    features = keras.Model(backbone.input, registry.layer_outputs(backbone, [tap])[tap], name="features")
    features = averaged(features, probe.average)
    model, path = with_softmax(features, heads[tap], "classifier"), session.folder.export / "classifier.keras"
    validation = labelled_splits(dataset).get("validation")
    card = describe_classifier(
        model, dataset.class_names, validation, augment, dataset.image_shape, fit=session.recipe.data.fit
    )
    save_model(model, path, session.folder.path)
    write_card(path, card, session.folder.path)
    session.record(classifier={"tap": tap, "head": probe.head, "validation_top1": best, "step": step})
