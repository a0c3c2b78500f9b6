"""Classes of image files, as a trained classifier predicts them, written to a table as they come."""

import codecs
import csv
import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from rotnet_keras.config.probes import Averaging
from rotnet_keras.config.shapes import sides_of
from rotnet_keras.data.listing.text_lists import list_lines, tidy
from rotnet_keras.errors import DataError
from rotnet_keras.files import digest, replacing
from rotnet_keras.inference.calibration import at_temperature
from rotnet_keras.inference.loading import (
    ImageBatch,
    ImageLoader,
    Progress,
    check_any_readable,
    input_side,
    load_batches,
    loader_of,
)
from rotnet_keras.inference.partial_results import PartialResults
from rotnet_keras.runs.exports.backbone_file import fit_of_maker, maker_of, read_backbone, sizes_of_maker
from rotnet_keras.runs.exports.classifier_card import ClassifierCard, read_card
from rotnet_keras.text import first_few

if TYPE_CHECKING:
    from rotnet_keras.inference.orientation import OrientationModel

# Formats that predictions are written in, and rows of a table that are in memory at once.
SUFFIXES, ROW_GROUP = (".csv", ".parquet", ".jsonl"), 10_000
# What the last layer may compute, and how its outputs become probabilities.
SOFTMAX, SIGMOID, LINEAR = "softmax", "sigmoid", "linear"
# Images in each section of the page, and reasons of unreadable files that are kept for the summary.
SHOWN = 24

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Classifier:
    """A model that predicts the class of an image.

    Attributes:
        model: Keras model from (N, S, S, C) pixels, 0 to 255, to (N, K) outputs; (N, 1) for two classes by one sigmoid.
        classes: K names.
        activation: of its last layer: "softmax", "sigmoid" or "linear".
        temperature: divides the log-probabilities; 1 without calibration.
        uncalibrated: why it is not calibrated; empty if it is.
        loader: reads image files as the model takes them.
        fingerprint: of the model's file.
    """

    model: Any
    classes: list[str]
    activation: str
    temperature: float
    uncalibrated: str
    loader: ImageLoader
    fingerprint: str

    @property
    def exclusive(self) -> bool:
        """Whether an image has exactly one class."""
        return self.activation != SIGMOID or (len(self.classes) == 2 and self.model.output_shape[-1] == 1)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Predict the classes of images.

        Args:
            images: (N, S, S, C), 0 to 255.

        Returns:
            (N, K) float64. Rows sum to 1 unless an image can have several classes.

        Raises:
            DataError: the model's outputs are not finite.
        """
        outputs = np.asarray(self.model(images.astype(np.float32), training=False), np.float64)
        if not np.isfinite(outputs).all():
            raise DataError("the classifier's outputs are not finite: its weights may be damaged")
        if self.activation == LINEAR:
            outputs = np.exp(outputs - outputs.max(axis=1, keepdims=True))
            outputs /= outputs.sum(axis=1, keepdims=True)
        if not self.exclusive:
            return outputs
        if outputs.shape[1] == 1:
            outputs = np.concatenate([1 - outputs, outputs], axis=1)
        return at_temperature(outputs, self.temperature)


def read_class_names(file: Path) -> list[str]:
    """Read the names of classes from a text file, one a line, in the order of the model's outputs.

    Raises:
        DataError: the file cannot be read, has no names, or has a name twice.
    """
    names = [tidy(line) for line in list_lines(file, "save it as plain text in UTF-8, a class a line")]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not names or twice:
        got = f"{twice[0]!r} twice" if twice else "none"
        raise DataError(f"{file}: expected the name of a class on each line, got {got}")
    return names


def known_card(file: Path, classes: list[str] | None) -> ClassifierCard:
    """The card of a classifier, or what a list of classes says of one without a card. TensorFlow is not loaded.

    Args:
        file: a .keras file.
        classes: names in the order of its outputs; None if the card must say them.

    Raises:
        DataError: there is neither a card nor a list, or their classes differ.
    """
    card = read_card(file)
    if card is None:
        if classes is None:
            raise DataError(f"{file}: nothing beside it says what its classes are: name a list with --classes FILE")
        return ClassifierCard(classes, None, "there is no card beside it")
    if classes is not None and classes != [tidy(name) for name in card.classes]:
        raise DataError(
            f"{file}: its classes are {first_few(card.classes)} ({len(card.classes):,} of them), and --classes has "
            f"{first_few(classes)} ({len(classes):,}): leave --classes away"
        )
    return card


def load_classifier(
    file: Path,
    classes: list[str] | None = None,
    notify: Notify = lambda note: None,
    size: int | None = None,
    average: Averaging = "none",
) -> Classifier:
    """Load a classifier: one that a run exported, or any Keras model from images to classes. Loads TensorFlow.

    Args:
        file: a .keras file.
        classes: names in the order of its outputs, for a model without a card.
        notify: called with a sentence about what is assumed of the model.
        size: the side that images are resized to, for a model that takes any; by default `loading.ANY_SIDE`.
        average: what the outputs for an image are averaged over, see `models.averaging.averaged`.

    Raises:
        DataError: the file is no classifier of square images, does not have these classes, or takes other images than
            of `size`.

    Example:
        ```python
        from pathlib import Path

        from rotnet_keras.inference.prediction import load_classifier

        classifier = load_classifier(Path("runs/my_run/export/classifier.keras"))
        pixels = classifier.loader.load(Path("photos/a.jpg"))
        classifier.probabilities(pixels[None])  # (1, K)
        ```
    """
    card = known_card(file, classes)
    found = read_backbone(file)
    height, width, channels = found.shape
    of_card = sides_of(card.side) if card.side else None
    fits = of_card and height in (None, of_card[0]) and width in (None, of_card[1]) and size in (None, card.side)
    if of_card and not fits:
        raise DataError(
            f"{file} takes images of {found.takes}, and of {of_card[0]} x {of_card[1]} pixels as its card says: "
            + (f"leave --size out, got {size}" if size else "train it again, or remove the card")
        )
    asked = None if of_card else input_side(file, size, notify)
    resized, crop = (sides_of(card.size or card.side), of_card) if card.side else sizes_of_maker(file)
    side = (asked, asked) if asked else crop or ((height, width) if height and width else resized)
    if side is None or channels is None:
        raise DataError(f"{file} takes images of {found.takes}: expected a number of channels")
    from rotnet_keras.models.export import load_backbone

    model = load_backbone(file)
    activation, outputs, count = _last_activation(file, model), model.output_shape, len(card.classes)
    expected = 1 if activation == SIGMOID and outputs[-1:] == (1,) and count == 2 else count
    if outputs[1:] != (expected,):
        raise DataError(
            f"{file}: has outputs of shape {outputs[1:]}, and the list of classes has {count:,} names: "
            f"{first_few(card.classes)}"
        )
    if activation == LINEAR:
        notify(f"the last layer of {file} has no activation: its outputs are taken for logits")
    if average != "none":
        from rotnet_keras.models.averaging import averaged
        from rotnet_keras.models.backbones.registry import with_input_shape

        model = averaged(with_input_shape(model, (*side, channels)), average)
        if card.temperature:
            notify("the probabilities were calibrated without --average, and may be too low or too high with it")
    how = card.fit if of_card else fit_of_maker(file)
    loader = loader_of(resized or side, side, channels, found.takes_values, how)
    return Classifier(model, card.classes, activation, card.temperature or 1.0, card.uncalibrated, loader, digest(file))


def _last_activation(file: Path, model: Any) -> str:
    """Return what the last layer of a model computes.

    Raises:
        DataError: it is something that does not give probabilities.
    """
    layer = model
    while getattr(layer, "layers", None):
        layer = layer.layers[-1]
    if type(layer).__name__ == "Softmax":
        return SOFTMAX
    name = getattr(getattr(layer, "activation", None), "__name__", None)
    if name not in (SOFTMAX, SIGMOID, LINEAR):
        raise DataError(
            f"{file}: the last layer is {type(layer).__name__} {layer.name!r}: expected a classifier, whose last layer "
            "has a softmax, a sigmoid or no activation"
        )
    return str(name)


def rotation_model_file(classifier: Path) -> Path | None:
    """The rotation model of a classifier's backbone: of its own run, or of the run that it was fine-tuned from."""
    own = classifier.with_name("rotnet.keras")
    maker = maker_of(classifier)
    if own.is_file() or maker is None:
        return own if own.is_file() else None
    pretrained = maker.recipe_values().get("pretrained")
    file = pretrained.get("file") if isinstance(pretrained, dict) else None
    before = Path(file).with_name("rotnet.keras") if isinstance(file, str) else None
    return before if before and before.is_file() else None


@dataclass
class Predicted:
    """A summary of the predictions for many files.

    Attributes:
        counts: number of files by predicted class; None stands for those left unlabelled.
        unreadable: number of files that cannot be read.
        examples: the first of them, each with the reason.
        surest: (confidence, file, class), the most confident first.
        doubtful: the same, the least confident first.
        unusual: (anomaly score, file, class), the highest score first.
    """

    counts: Counter[str | None] = field(default_factory=Counter)
    unreadable: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)
    surest: list[tuple[float, str, str]] = field(default_factory=list)
    doubtful: list[tuple[float, str, str]] = field(default_factory=list)
    unusual: list[tuple[float, str, str]] = field(default_factory=list)


def predict_files(
    classifier: Classifier,
    files: Sequence[Path],
    kept: PartialResults,
    top: int,
    rotations: "OrientationModel | None" = None,
    progress: Progress = lambda what, done, total: None,
) -> None:
    """Predict the classes of image files, and append each result to the partial results at once.

    Args:
        classifier: from `load_classifier`.
        files: those without a result yet.
        kept: receives the results.
        top: how many classes are kept of each image.
        rotations: a rotation model that gives each image an anomaly score; None for no scores.
        progress: called after each batch.
    """
    for batch in load_batches(classifier.loader, files, progress):
        records: list[dict[str, Any]] = [{"file": str(file), "error": reason} for file, reason in batch.unreadable]
        if batch.files:
            probabilities = classifier.probabilities(np.stack(batch.images))
            scores = _anomaly_scores(rotations, batch)
            for row, (file, values) in enumerate(zip(batch.files, probabilities, strict=True)):
                order = np.argsort(-values, kind="stable")[:top]
                best = [[int(each), round(float(values[each]), 6)] for each in order]
                record: dict[str, Any] = {"file": str(file), "top": best}
                records.append(record | ({} if scores is None else {"unusual": round(scores[row], 4)}))
        kept.add(records)


def _anomaly_scores(rotations: "OrientationModel | None", batch: ImageBatch) -> list[float] | None:
    if rotations is None:
        return None
    from rotnet_keras.inference.orientation import anomaly_score

    images = np.stack([rotations.loader.load(file) for file in batch.files])
    scores: list[float] = anomaly_score(rotations.log_probabilities(images)).tolist()
    return scores


def write_predictions(
    target: Path, kept: PartialResults, classes: Sequence[str], top: int, min_confidence: float
) -> Predicted:
    """Write the table of all results, and count them.

    The columns are `file`, `label`, `class_1`, `probability_1` and so on up to `top`, and `error`. `label` is the first
    class, and empty where its probability is below `min_confidence` or the file cannot be read. A .jsonl file has these
    as keys of an object a line, with null for what is empty.

    Args:
        target: a .csv, .parquet or .jsonl file.
        kept: the results.
        classes: K names.
        top: how many classes of each image.
        min_confidence: 0 to 1.

    Raises:
        DataError: none of the images can be read; neither a table nor partial results remain.
        OSError: the file cannot be written; no partial table remains.
    """
    found = Predicted()
    writer = {".csv": _write_csv, ".jsonl": _write_json_lines, ".parquet": _write_parquet}[target.suffix.lower()]
    try:
        with replacing(target) as temporary:
            writer(temporary, _columns(top), _rows(kept, classes, top, min_confidence, found))
            check_any_readable(list(found.counts), [(Path(file), reason) for file, reason in found.examples])
    except DataError:
        kept.remove()
        raise
    return found


def _columns(top: int) -> list[str]:
    ranked = [f"{name}_{number}" for number in range(1, top + 1) for name in ("class", "probability")]
    return ["file", "label", *ranked, "error"]


def _rows(
    kept: PartialResults, classes: Sequence[str], top: int, min_confidence: float, found: Predicted
) -> Iterator[list[Any]]:
    """Yield a row of the table for each result, and count it in `found`."""
    for record in kept.records():
        file, best, error = record["file"], record.get("top", []), record.get("error")
        cells = [cell for number, value in best for cell in (classes[number], value)]
        label = cells[0] if best and best[0][1] >= min_confidence else None
        if error is None:
            found.counts[label] += 1
            _rank(found, record, classes)
        else:
            found.unreadable += 1
            found.examples += [(file, error)] * (len(found.examples) < SHOWN)
        yield [file, label, *cells, *[None] * (2 * top - len(cells)), error]


def _rank(found: Predicted, record: dict[str, Any], classes: Sequence[str]) -> None:
    """Keep a result if it is among the surest, the most doubtful or the most unusual so far."""
    number, confidence = record["top"][0]
    entry = (record["file"], classes[number])
    found.surest = heapq.nlargest(SHOWN, [*found.surest, (confidence, *entry)])
    found.doubtful = heapq.nsmallest(SHOWN, [*found.doubtful, (confidence, *entry)])
    if "unusual" in record:
        found.unusual = heapq.nlargest(SHOWN, [*found.unusual, (record["unusual"], *entry)])


def _write_csv(target: BinaryIO, columns: list[str], rows: Iterator[list[Any]]) -> None:
    writer = csv.writer(_as_text(target))
    writer.writerow(columns)
    writer.writerows(rows)


def _write_json_lines(target: BinaryIO, columns: list[str], rows: Iterator[list[Any]]) -> None:
    text = _as_text(target)
    for row in rows:
        text.write(json.dumps(dict(zip(columns, row, strict=True))) + "\n")


def _as_text(file: BinaryIO) -> codecs.StreamWriter:
    return codecs.getwriter("utf-8")(file, "surrogateescape")


def _write_parquet(target: BinaryIO, columns: list[str], rows: Iterator[list[Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    types = [pa.float64() if name.startswith("probability") else pa.string() for name in columns]
    schema = pa.schema(list(zip(columns, types, strict=True)))
    with parquet.ParquetWriter(target, schema) as writer:
        while group := list(islice(rows, ROW_GROUP)):
            # All texts in Parquet are Unicode.
            cells = [[c.encode("utf-8", "replace").decode() if isinstance(c, str) else c for c in row] for row in group]
            values = ([row[number] for row in cells] for number in range(len(columns)))
            writer.write_table(pa.table([pa.array(v, t) for v, t in zip(values, types, strict=True)], schema))
