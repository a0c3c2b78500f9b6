"""Measures of a backbone's features during training: effective rank and dead channels, without labels, and k-NN."""

from typing import Any

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from rotnet_keras.config.schema import FeatureMeasures
from rotnet_keras.config.sections import Augment
from rotnet_keras.data.batches import evaluation_batches
from rotnet_keras.data.datasets import Dataset
from rotnet_keras.data.stores import Split
from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import DataError
from rotnet_keras.models.backbones import registry

# Added to each share of the singular values' sum, as in the paper of RankMe.
EPSILON = 1e-7
# Labelled images at most: those that vote, and those that are classified. Together they are 5,000.
KNN_TRAIN, KNN_VALIDATION, NEIGHBOURS = 4000, 1000, 20


def effective_rank(features: np.ndarray) -> float:
    """RankMe: how many directions the features use (Garrido, Balestriero, Najman and LeCun, ICML 2023).

    It is the exponential of the entropy of the singular values, divided by their sum: D for features that use D
    directions equally, 1 for those along a line. The features are not centred. With few images it is smaller.

    Args:
        features: (N, D).

    Returns:
        From 1 to min(N, D); 0 if all features are 0, and NaN if one is infinite or NaN.
    """
    if not np.isfinite(features).all():
        return float("nan")
    values = np.linalg.svd(np.asarray(features, np.float64), compute_uv=False)
    if not values.sum():
        return 0.0
    shares = values / values.sum() + EPSILON
    return float(np.exp(-(shares * np.log(shares)).sum()))


class FeatureMeter:
    """Measures the features of each tap of a backbone, on the same images each time.

    Args:
        backbone: in training or not; its present weights are measured. It is not changed.
        dataset: the images are evenly spaced among its training images.
        augment: how they are cropped.
        wanted: the recipe's section `features`.

    Raises:
        DataError: k-NN is asked for, and there are no labelled training and validation images.
    """

    def __init__(self, backbone: keras.Model, dataset: Dataset, augment: Augment, wanted: FeatureMeasures) -> None:
        self._augment, self._shape = augment, backbone.input.shape[1:3]
        self.taps = registry.taps(backbone) or [backbone.layers[-1].name]
        self._extractor = keras.Model(backbone.input, registry.layer_outputs(backbone, self.taps))
        self._sample = _evenly_spaced(dataset.train, wanted.images)
        self._knn: tuple[Split, Split] | None = None
        if wanted.knn:
            train, held_out = _labelled(dataset.train), _labelled(dataset.validation)
            if train is None or held_out is None:
                raise DataError("features.knn needs labelled training and validation images; leave it out")
            self._knn = _evenly_spaced(train, KNN_TRAIN), _evenly_spaced(held_out, KNN_VALIDATION)
        self._compute: Any = None

    def measure(self) -> list[dict[str, Any]]:
        """Return for each tap its name, number of channels, effective rank, share of dead channels, k-NN accuracy."""
        pooled, low, high = self._features(self._sample)
        found: list[dict[str, Any]] = [
            {
                "tap": tap,
                "channels": pooled[tap].shape[1],
                "rank": round(effective_rank(pooled[tap]), 3),
                "dead": round(float((high[tap] <= low[tap]).mean()), 4),
            }
            for tap in self.taps
        ]
        if self._knn:
            train, held_out = (self._features(split)[0] for split in self._knn)
            labels, true = (split.required_labels() for split in self._knn)
            for each in found:
                each["knn"] = _knn_accuracy(train[each["tap"]], labels, held_out[each["tap"]], true)
        return found

    def _features(self, split: Split) -> tuple[dict[str, np.ndarray], ...]:
        """Return the features of each tap averaged over their maps (N, D), and the extremes of each channel (D,)."""
        batches = evaluation_batches(split, self._augment, batch=min(64, len(split)))
        if self._compute is None:
            self._compute = tf.function(self._pooled, reduce_retracing=True)
        parts = [keras.tree.map_structure(np.asarray, self._compute(images)) for images in batches]
        pooled = {tap: np.concatenate([part[tap][0] for part in parts]) for tap in self.taps}
        low = {tap: np.min([part[tap][1] for part in parts], axis=0) for tap in self.taps}
        high = {tap: np.max([part[tap][2] for part in parts], axis=0) for tap in self.taps}
        return pooled, low, high

    def _pooled(self, images: tf.Tensor) -> dict[str, tuple[tf.Tensor, ...]]:
        # With angles that are not right ones, the backbone sees the middle of each crop.
        tall, wide = self._shape
        top, left = (images.shape[1] - tall) // 2, (images.shape[2] - wide) // 2
        images = images[:, top : top + tall, left : left + wide]
        outputs = self._extractor(images, training=False)
        found = {}
        for tap, values in zip(self.taps, keras.tree.flatten([outputs[tap] for tap in self.taps]), strict=True):
            values = tf.cast(values, tf.float32)
            others = list(range(1, values.shape.rank - 1))
            everywhere = list(range(values.shape.rank - 1))
            mean = tf.reduce_mean(values, others) if others else values
            found[tap] = (mean, tf.reduce_min(values, everywhere), tf.reduce_max(values, everywhere))
        return found


def _knn_accuracy(train: np.ndarray, labels: np.ndarray, held_out: np.ndarray, true: np.ndarray) -> float | None:
    """Return the share of held-out features (M, D) whose nearest neighbours have their label, as a k-NN probe does."""
    if not (np.isfinite(train).all() and np.isfinite(held_out).all()):
        return None
    model = KNeighborsClassifier(min(NEIGHBOURS, len(train)), metric="cosine", weights="distance")
    return round(float((model.fit(train, labels).predict(held_out) == true).mean()), 4)


def _labelled(split: Split | None) -> Split | None:
    """Return the images of a split that have a label; None if there are none."""
    if split is None or split.labels is None:
        return None
    found = split.labelled()
    return found if len(found) else None


def _evenly_spaced(split: Split, count: int) -> Split:
    return split.subset(np.linspace(0, len(split) - 1, min(count, len(split))).astype(np.int64))
