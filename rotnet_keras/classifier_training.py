"""What trainings of classifiers share: how they are scored."""

from abc import abstractmethod
from typing import Any

import numpy as np

from rotnet_keras.datasets import Dataset
from rotnet_keras.engine import keras, tf
from rotnet_keras.models import Classifier
from rotnet_keras.stores import Split
from rotnet_keras.tasks import counted
from rotnet_keras.training import Training

EVALUATION_BATCH = 125


class ClassifierTraining(Training[Dataset]):
    """A classifier, of angles or of objects, in training."""

    model: Classifier
    measured: Classifier

    @abstractmethod
    def evaluation_batches(self, split: Split) -> tf.data.Dataset:
        """All of a split, for `evaluate`."""

    def evaluate(self, split: Split, what: str = "") -> dict[str, Any]:
        """Loss, accuracy and confusion over a whole split."""
        total = -(-len(split) // EVALUATION_BATCH)

        def after_batch(batch: int, logs: Any = None) -> None:
            if what:
                self.session.console.progress(what, batch + 1, total)

        watch = keras.callbacks.LambdaCallback(on_test_batch_end=after_batch)
        model = self.measured
        results = model.evaluate(self.evaluation_batches(split), verbose=0, return_dict=True, callbacks=[watch])
        counts = np.asarray(model.confusion.counts).tolist()
        return {"loss": float(results["loss"]), "accuracy": float(results["accuracy"]), **counted(counts)}
