"""Which labels a classifier is shown: all, or a few of each class."""

import numpy as np

from rotnet_keras.config.sections import Labels
from rotnet_keras.data.datasets import Dataset
from rotnet_keras.errors import DataError


def labelled_subset(dataset: Dataset, wanted: Labels, seed: tuple[int, int]) -> np.ndarray:
    """Positions of training images, rising: all, or `labels_per_class` of each class that has any.

    Args:
        seed: of a choice at random.

    Raises:
        DataError: a class has some, but fewer.
    """
    labels, per_class = dataset.train.required_labels(), wanted.labels_per_class
    if per_class is None:
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    picked = []
    for number, name in enumerate(dataset.class_names):
        members = np.flatnonzero(labels == number)
        if 0 < len(members) < per_class:
            raise DataError(f"labels_per_class = {per_class}, but class {name!r} has {len(members)} training images")
        first = wanted.label_choice == "first"
        count = min(per_class, len(members))
        picked.append(members[:count] if first else rng.choice(members, count, replace=False))
    return np.sort(np.concatenate(picked))
