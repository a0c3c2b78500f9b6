"""Test-time adaptation of a classifier to the image files that it is going to predict."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rotnet_keras.errors import DataError
from rotnet_keras.inference.loading import ImageLoader, Progress, check_any_readable, load_batches
from rotnet_keras.inference.prediction import Classifier
from rotnet_keras.runs.exports.backbone_file import maker_of, read_backbone

# What is adapted: nothing, the statistics of batch normalisation, or the layers shared with the rotation head.
Adaptation = Literal["none", "statistics", "rotations"]
# Images that a classifier is adapted to, at most, and below how many their statistics say little.
MOST_IMAGES, FEW_IMAGES = 2048, 100


def check_adaptable(classifier: Path, how: Adaptation) -> None:
    """Make sure that a classifier has what is to be adapted. TensorFlow is not loaded.

    Raises:
        DataError: it has no batch normalisation, or no rotation head beside it.
    """
    if how == "statistics" and not read_backbone(classifier).normalises_batches:
        raise DataError(
            f"--adapt statistics: {classifier} has no batch normalisation, so there are no statistics to adapt"
        )
    if how == "rotations" and not _rotation_head(classifier).is_file():
        raise DataError(
            f"--adapt rotations: {classifier} has no rotation head, a rotnet.keras beside it: train the classifier "
            "with [auxiliary] in its recipe, as in cifar_labels_and_rotations"
        )


def adaptation_images(files: Sequence[Path]) -> list[Path]:
    """The files that a classifier is adapted to: all, or 2,048 of them, in a random order that is always the same."""
    order = np.random.default_rng(0).permutation(len(files))
    return [files[number] for number in order[:MOST_IMAGES]]


def describe(how: Adaptation, images: Sequence[Path]) -> dict[str, Any]:
    """What the results of an adapted classifier depend on: see `PartialResults`."""
    if how == "none":
        return {}
    names = hashlib.sha256("\n".join(map(str, images)).encode("utf-8", "surrogateescape")).hexdigest()
    return {"adapt": how, "adapted to": f"{len(images):,} images ({names[:8]})"}


def adapt(
    classifier: Classifier,
    file: Path,
    how: Adaptation,
    images: Sequence[Path],
    progress: Progress = lambda what, done, total: None,
) -> str:
    """Adapt a classifier in memory; its file is not changed.

    Args:
        classifier: from `load_classifier`.
        file: that it was loaded from.
        how: "statistics" or "rotations".
        images: that it is adapted to, see `adaptation_images`.
        progress: called after each batch.

    Returns:
        A sentence about what was adapted, and to how many images.

    Raises:
        DataError: none of the images can be read, or the classifier shares no layers with the rotation model.
    """
    from rotnet_keras.models.adaptation import take_statistics, train_on_rotations

    if how == "statistics":
        batches = _Batches(classifier.loader, images, progress)
        count = take_statistics(classifier.model, batches)
        return f"Adapted: {count:,} batch normalisations use the statistics of {batches.count:,} images."
    from rotnet_keras.inference.orientation import load_orientation_model

    rotations = load_orientation_model(maker_of(file) or _rotation_head(file))
    batches = _Batches(rotations.loader, images, progress)
    steps = train_on_rotations(classifier.model, rotations.model, rotations.angles, batches)
    return (
        f"Adapted: {steps.count:,} steps on the rotations of {batches.count:,} images changed {steps.layers:,} shared "
        f"layers; the rotation loss of the first batch went from {steps.before:.3f} to {steps.after:.3f}."
    )


def _rotation_head(classifier: Path) -> Path:
    return classifier.with_name("rotnet.keras")


class _Batches:
    """Batches (N, H, W, C) of the images that can be read.

    Attributes:
        count: how many could be read so far.
    """

    def __init__(self, loader: ImageLoader, files: Sequence[Path], progress: Progress) -> None:
        self._loader, self._files, self._progress = loader, files, progress
        self.count = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        unreadable: list[tuple[Path, str]] = []
        for batch in load_batches(
            self._loader, self._files, lambda what, done, total: self._progress("adapting", done, total)
        ):
            unreadable += batch.unreadable
            if batch.files:
                self.count += len(batch.files)
                yield np.stack(batch.images)
        check_any_readable(range(self.count), unreadable)
