"""Whether pretraining helped, measured with a handful of labels against random weights and raw pixels."""

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.config.probes import Averaging
from rotnet_keras.config.sections import Data
from rotnet_keras.data.listing.sources import FolderSource
from rotnet_keras.data.listing.text_lists import list_text, spellings, tidy
from rotnet_keras.data.sources import find_source
from rotnet_keras.errors import DataError
from rotnet_keras.inference.loading import BATCH, Progress, check_any_readable, check_values, load_batches
from rotnet_keras.text import first_few

# What may stand between the cells of a list of labels: the one that its first line has most.
SEPARATORS = ",;\t|"
# Side that images are resized to for the raw pixels, in pixels.
PIXELS = 16
# Repetitions and folds of the cross-validation: each image is classified `REPEATS` times.
REPEATS, FOLDS = 5, 5
# Ridge penalties on features of variance 1; cross-validation within the training images chooses one.
PENALTIES = tuple(10.0**power for power in range(-1, 6))
# Bootstrap samples, and the percentiles of their means that bound a 95 % interval.
BOOTSTRAP_SAMPLES = 2000
PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Estimate:
    """An accuracy on held-out images, or a difference of two, with its 95 % confidence interval.

    Attributes:
        mean: over images and repetitions; an accuracy lies in 0 to 1.
        low: lower end of the interval over images.
        high: upper end of the interval over images.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """How well linear classifiers on several kinds of features do.

    Attributes:
        accuracies: by the name of the features.
        gain: accuracy of the first features less that of each other, on the same images, by the other's name.
        chance: accuracy of always guessing the most frequent class.
    """

    accuracies: dict[str, Estimate]
    gain: dict[str, Estimate]
    chance: float


def read_labels(
    source: Path, notify: Callable[[str], None] = lambda note: None, deep: bool = False
) -> list[tuple[Path, str]]:
    """Read the labelled image files of a probe, as `read_labelled_files` does: two classes or more, two images of each.

    Args:
        source: as of `read_labelled_files`.
        notify: as of `read_labelled_files`.
        deep: whether the numbers of files with more than 8 bits are kept as they are, so that no values are scaled.

    Raises:
        DataError: the source cannot be read, a class has fewer than two images, or as of `check_values`.
    """
    pairs = read_labelled_files(source, notify)
    counts = Counter(label for _, label in pairs)
    if len(counts) < 2:
        raise DataError(f"{source}: expected images of two classes or more, got {len(counts)}")
    single = sorted(label for label, count in counts.items() if count < 2)
    if single:
        raise DataError(f"{source}: expected two images or more of each class; too few of {first_few(single)}")
    check_values([file for file, _ in pairs], notify, deep)
    return pairs


def read_labelled_files(source: Path, notify: Callable[[str], None] = lambda note: None) -> list[tuple[Path, str]]:
    """Read labelled image files.

    A list is UTF-8, or UTF-16 with a byte order mark. Its first line has the columns `file` and `label`, in any order
    and among others, separated by commas, semicolons, tabs or bars. Paths are relative to its folder or absolute, with
    slashes of either kind. Spaces around names and Unicode forms make no difference; capitals do.

    Args:
        source: a folder with a subfolder for each class, or such a list.
        notify: called with a sentence about files that are listed twice or reached by links, about names that differ in
            capitals, and about what of a folder is left out; of one with splits, only the training images are read.

    Returns:
        Files with their class names, each file once.

    Raises:
        DataError: the source is neither, a file does not exist, or two lines or folders contradict each other.
    """
    return _read_folder(source, notify) if source.is_dir() else _read_list(source, notify)


def _read_folder(source: Path, notify: Callable[[str], None]) -> list[tuple[Path, str]]:
    try:
        found = find_source(Data(name=str(source.absolute())))
    except DataError as error:  # It names the key of recipes that folders are given by.
        raise DataError(f"{source}: {str(error).removeprefix('data.name: ')}") from None
    if not isinstance(found, FolderSource) or not found.class_names:
        why = f", found {dict(found.understood)['classes']}" if isinstance(found, FolderSource) else ""
        raise DataError(f"{source}: expected a folder with a subfolder for each class{why}")
    files, labels = found.splits["train"], found.labels["train"]
    # Where each file lies first, under its real path: the path and the class.
    listed: dict[str, tuple[Path, str]] = {}
    for file, label in zip(files, labels, strict=True):
        name = found.class_names[label]
        first, known = listed.setdefault(os.path.realpath(file), (file, name))
        if known != name:
            raise DataError(
                f"{source}: {first.relative_to(source.absolute())} and {file.relative_to(source.absolute())} are one "
                f"file, of the classes {known!r} and {name!r}: remove one of them"
            )
    others = [f"{len(each):,} {split}" for split, each in found.splits.items() if split != "train"]
    if others:
        notify(f"{source}: only the training images are read, not {' and '.join(others)} images")
    for sentence in found.left_out.warnings():
        notify(f"{source}: {sentence}")
    if repeated := len(files) - len(listed):
        notify(f"{source}: {repeated:,} of {len(files):,} paths lead to files of the same class; each counts once")
    return list(listed.values())


def _read_list(source: Path, notify: Callable[[str], None]) -> list[tuple[Path, str]]:
    reader = open_table(source)
    separator = reader.dialect.delimiter
    columns: list[str] | None = None
    # Where each file was listed first, under its real path: the path as it is listed, the label, the line.
    listed: dict[str, tuple[Path, str, int]] = {}
    spelled: dict[str, tuple[str, int]] = {}
    repeated = 0
    try:
        for row in reader:
            cells, number = [tidy(cell) for cell in row], reader.line_num
            if not any(cells):
                continue
            if columns is None:
                columns = [cell.casefold() for cell in cells]
                if not {"file", "label"} <= set(columns):
                    raise DataError(
                        f"{source}, line {number}: expected a first line with the column names file,label, and rows "
                        f"below it; found {first_few(cells)}"
                    )
                continue
            if len(cells) != len(columns):
                raise DataError(
                    f"{source}, line {number}: expected {len(columns)} cells, as in the first line, separated by "
                    f"{separator!r}; found {len(cells)}. Put a name that holds {separator!r} into double quotes"
                )
            named, label = cells[columns.index("file")], cells[columns.index("label")]
            path = _listed_file(source.parent, row[columns.index("file")].strip())
            if path is None:
                raise DataError(f"{source}, line {number}: no file {source.parent / named}")
            if not label:
                raise DataError(f"{source}, line {number}: no label")
            _, known, first = listed.setdefault(os.path.realpath(path), (path, label, number))
            if known != label:
                raise DataError(
                    f"{source}: line {first} labels {named} {known!r} and line {number} {label!r}: remove one of them"
                )
            repeated += first != number
            other, first = spelled.setdefault(label.casefold(), (label, number))
            if other != label:
                notify(f"{source}: {other!r} in line {first} and {label!r} in line {number} count as two classes")
                spelled[label.casefold()] = label, number
    except csv.Error as error:
        raise DataError(f"{source}, line {reader.line_num}: cannot be read as CSV: {error}") from None
    if not listed:
        raise DataError(f"{source}: expected a first line with the column names file,label, and rows below it")
    if repeated:
        notify(f"{source}: {repeated:,} lines name a file that an earlier line has with the same label; it counts once")
    return [(path, label) for path, label, _ in listed.values()]


def open_table(source: Path) -> Any:
    """A `csv.reader` of a list: UTF-8, or UTF-16 with a byte order mark; its first line shows what separates the cells.

    Raises:
        DataError: the list cannot be read, or is in another encoding.
    """
    text = list_text(source, "save the list as CSV in UTF-8")
    separator = max(SEPARATORS, key=text.lstrip().partition("\n")[0].count)
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)


def _listed_file(folder: Path, name: str) -> Path | None:
    """Return the file that a list names: with slashes of either kind, in either Unicode form."""
    for form in spellings(name):
        # An unknown user's home and a name of any length are no files.
        path = folder / os.path.expanduser(form)  # noqa: PTH111
        if form and os.path.isfile(path):  # noqa: PTH113
            return path
    return None


def compute_features(
    backbone_file: Path,
    tap: str | None,
    files: list[Path],
    seed: int,
    progress: Progress,
    side: int | None = None,
    average: Averaging = "none",
) -> tuple[dict[str, np.ndarray], str, list[tuple[Path, str]]]:
    """Features of images from a backbone, from the same architecture with random weights, and raw pixels.

    Loads TensorFlow.

    Args:
        backbone_file: a .keras file.
        tap: name of the layer to read; the backbone's default tap for None.
        files: images of any size.
        seed: of the random weights.
        progress: called after each batch of the first features.
        side: that images are resized to, in pixels, for a backbone that takes any size; 224 for None.
        average: what the features of an image are averaged over, see `models.averaging.averaged`; pixels are not.

    Returns:
        Arrays (N, D) under "pretrained", "random" and "pixels"; the name of the layer; the files that cannot be read,
        each with the reason.

    Raises:
        DataError: the file is no backbone, the layer does not exist, or none of the images can be read.
    """
    from rotnet_keras.evaluation.features import random_backbone
    from rotnet_keras.inference.embeddings import loader_for, pooled_features
    from rotnet_keras.models.export import load_backbone
    from rotnet_keras.models.rescaling import set_batch_norm_statistics
    from rotnet_keras.runs.exports.backbone_file import default_tap

    backbone = load_backbone(backbone_file)
    tap = tap or default_tap(backbone_file, [layer.name for layer in backbone.layers])
    loader = loader_for(backbone_file, backbone, side)
    names, pretrained, unreadable = pooled_features(backbone, tap, loader, files, progress, average)
    check_any_readable(names, unreadable)
    readable = [Path(name) for name in names]
    baseline = random_backbone(backbone, seed)
    set_batch_norm_statistics(baseline, np.stack([loader.load(file) for file in readable[:BATCH]]))
    _, random, _ = pooled_features(baseline, tap, loader, readable, progress, average)
    small = loader.resized_to(PIXELS)
    pixels = [image.reshape(-1) / 255.0 for batch in load_batches(small, readable) for image in batch.images]
    return {"pretrained": pretrained, "random": random, "pixels": np.stack(pixels)}, tap, unreadable


def compare_features(features: Mapping[str, np.ndarray], labels: list[str], seed: int) -> Comparison:
    """Compare kinds of features by the accuracy of linear classifiers, cross-validated on the same folds.

    Args:
        features: arrays (N, D) by name; the first is compared with each other one.
        labels: N class names.
        seed: of the folds and of the bootstrap.

    Raises:
        DataError: a class has fewer than two images.

    Example:
        ```python
        from pathlib import Path

        from rotnet_keras.inference.few_labels import compare_features, compute_features, read_labels

        labels = dict(read_labels(Path("labels.csv")))
        backbone = Path("runs/my_run/export/backbone.keras")
        features, tap, unreadable = compute_features(backbone, None, list(labels), 0, lambda what, done, total: None)
        comparison = compare_features(features, list(labels.values()), seed=0)  # if every file can be read
        comparison.gain["random"]  # Estimate(mean=..., low=..., high=...)
        ```
    """
    if min(Counter(labels).values()) < 2:
        raise DataError("expected two or more readable images of each class")
    correct = {name: _share_correct(values, np.array(labels), seed) for name, values in features.items()}
    (first, *others), rng = correct, np.random.default_rng(seed)
    samples = rng.integers(0, len(labels), (BOOTSTRAP_SAMPLES, len(labels)))
    accuracies = {name: _bootstrap(values, samples) for name, values in correct.items()}
    gain = {name: _bootstrap(correct[first] - correct[name], samples) for name in others}
    return Comparison(accuracies, gain, max(Counter(labels).values()) / len(labels))


def _share_correct(values: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """For each image the share of the repetitions that classify it correctly: (N,), 0 to 1."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.model_selection import RepeatedStratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = min(FOLDS, min(Counter(labels.tolist()).values()))
    correct = np.zeros(len(labels))
    classifier: Any = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=PENALTIES))
    splits = RepeatedStratifiedKFold(n_splits=folds, n_repeats=REPEATS, random_state=seed)
    for train, held_out in splits.split(values, labels):
        predicted = classifier.fit(values[train], labels[train]).predict(values[held_out])
        correct[held_out] += (predicted == labels[held_out]) / REPEATS
    return correct


def _bootstrap(values: np.ndarray, samples: np.ndarray) -> Estimate:
    """The mean of (N,) values with a percentile bootstrap over images, whose samples are (B, N) indices."""
    low, high = np.percentile(values[samples].mean(axis=1), PERCENTILES)
    return Estimate(float(values.mean()), float(low), float(high))
