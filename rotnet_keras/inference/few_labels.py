"""Whether pretraining helped, by a handful of labels: its features against random ones and raw pixels."""

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.config.sections import Data
from rotnet_keras.data.sources import FolderSource, find_source
from rotnet_keras.errors import DataError
from rotnet_keras.inference.loading import BATCH, Progress, batches

# Raw pixels are compared at this side.
PIXELS = 16
# Each picture is classified so often, each time by a classifier that was shown other ones.
REPEATS, PARTS = 5, 5
# Of weights of the classifier, on features of variance 1; those that were shown decide between them.
PENALTIES = tuple(10.0**power for power in range(-1, 6))
DRAWS = 2000
PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Accuracy:
    """What a classifier on some features reaches on pictures that it was not shown.

    Attributes:
        mean: 0 to 1, over pictures and repetitions.
        low: of its 95 % confidence interval, over pictures.
        high: likewise.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """What a handful of labels tells of features.

    Attributes:
        accuracies: by the name of the features.
        gain: of the first over each other, on the same pictures, by the other's name.
        chance: of guessing the most frequent class.
    """

    accuracies: dict[str, Accuracy]
    gain: dict[str, Accuracy]
    chance: float


def read_labels(source: Path) -> list[tuple[Path, str]]:
    """Files and their classes, by a folder with a folder per class or a CSV file with the columns `file` and `label`.

    Files of a CSV file are looked for beside it.

    Raises:
        DataError: it is neither, a file is not there, or a class has a single picture.
    """
    pairs = _of_folder(source) if source.is_dir() else _of_csv(source)
    counts = Counter(label for _, label in pairs)
    if len(counts) < 2:
        raise DataError(f"{source}: expected pictures of two classes or more, got {len(counts)}")
    single = sorted(label for label, count in counts.items() if count < 2)
    if single:
        raise DataError(f"{source}: expected two pictures or more of each class; one of {', '.join(single[:5])}")
    return pairs


def _of_folder(source: Path) -> list[tuple[Path, str]]:
    found = find_source(Data(name=str(source.absolute())))
    if not isinstance(found, FolderSource) or not found.class_names:
        raise DataError(f"{source}: expected a folder for each class")
    files, labels = found.splits["train"], found.labels["train"]
    return [(file, found.class_names[label]) for file, label in zip(files, labels, strict=True)]


def _of_csv(source: Path) -> list[tuple[Path, str]]:
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{source}: cannot be read as CSV: {error}") from None
    if not rows or not {"file", "label"} <= rows[0].keys():
        raise DataError(f"{source}: expected rows below the words file,label")
    pairs = [(source.parent / (row["file"] or ""), row["label"] or "") for row in rows]
    for number, (path, label) in enumerate(pairs, 2):
        if not path.is_file():
            raise DataError(f"{source}, line {number}: no file {path}")
        if not label:
            raise DataError(f"{source}, line {number}: no label")
    return pairs


def features_of(
    backbone_file: Path, tap: str | None, files: list[Path], seed: int, progress: Progress
) -> tuple[dict[str, np.ndarray], str, list[tuple[Path, str]]]:
    """Features of pictures by a backbone, by the same one with random weights, and their pixels. Loads TensorFlow.

    Returns:
        (N, D) by name, of the pictures that can be read; the layer; the other pictures, and why.
    """
    from rotnet_keras.evaluation.features import random_backbone
    from rotnet_keras.inference.embeddings import averages, middle_tap, shown_to
    from rotnet_keras.models.export import load_backbone
    from rotnet_keras.models.rescaling import take_statistics

    backbone = load_backbone(backbone_file)
    tap, shown = tap or middle_tap(backbone), shown_to(backbone_file, backbone)
    names, pretrained, unreadable = averages(backbone, tap, shown, files, progress)
    readable = [Path(name) for name in names]
    if not readable:
        raise DataError(f"no picture can be read, for example {unreadable[0][0]}: {unreadable[0][1]}")
    control = random_backbone(backbone, seed)
    take_statistics(control, np.stack([shown.picture(file) for file in readable[:BATCH]]))
    _, random, _ = averages(control, tap, shown, readable, progress)
    small = replace(shown, size=max(PIXELS, round(PIXELS * shown.size / shown.side)), side=PIXELS)
    pixels = [picture.reshape(-1) / 255.0 for batch in batches(small, readable) for picture in batch.pictures]
    return {"pretrained": pretrained, "random": random, "pixels": np.stack(pixels)}, tap, unreadable


def compare(features: Mapping[str, np.ndarray], labels: list[str], seed: int) -> Comparison:
    """Classify pictures by each kind of features, the same parts of them held out.

    Args:
        features: (N, D) by name, the one in question first.
        labels: N.

    Raises:
        DataError: a class has a single picture.
    """
    if min(Counter(labels).values()) < 2:
        raise DataError("expected two pictures or more of each class that can be read")
    right = {name: _right(values, np.array(labels), seed) for name, values in features.items()}
    (first, *others), rng = right, np.random.default_rng(seed)
    drawn = rng.integers(0, len(labels), (DRAWS, len(labels)))
    accuracies = {name: _interval(values, drawn) for name, values in right.items()}
    gain = {name: _interval(right[first] - right[name], drawn) for name in others}
    return Comparison(accuracies, gain, max(Counter(labels).values()) / len(labels))


def _right(values: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """(N,): how often each picture is classified rightly, 0 to 1."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.model_selection import RepeatedStratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    parts = min(PARTS, min(Counter(labels.tolist()).values()))
    right = np.zeros(len(labels))
    classifier: Any = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=PENALTIES))
    for shown, held_out in RepeatedStratifiedKFold(n_splits=parts, n_repeats=REPEATS, random_state=seed).split(
        values, labels
    ):
        found = classifier.fit(values[shown], labels[shown]).predict(values[held_out])
        right[held_out] += (found == labels[held_out]) / REPEATS
    return right


def _interval(values: np.ndarray, drawn: np.ndarray) -> Accuracy:
    """The mean, and the interval of the means of pictures drawn with repetition (percentile bootstrap)."""
    low, high = np.percentile(values[drawn].mean(axis=1), PERCENTILES)
    return Accuracy(float(values.mean()), float(low), float(high))
