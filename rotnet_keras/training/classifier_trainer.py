"""The trainer of classifiers: how they are evaluated."""

from abc import abstractmethod
from typing import Any

import numpy as np

from rotnet_keras.data.datasets import Dataset
from rotnet_keras.data.stores import Split
from rotnet_keras.engine import keras, tf
from rotnet_keras.models.rotnet import Classifier
from rotnet_keras.runs.task_labels import confusion_fields
from rotnet_keras.training.trainer import Trainer

# Images per evaluation batch: at most this many, and at most this multiple of what a device processes in training,
# where the activations are kept for the gradients.
EVALUATION_BATCH, EVALUATION_FACTOR = 125, 4


class ClassifierTrainer(Trainer[Dataset]):
    """Trains a classifier, of angles or of object classes.

    Attributes:
        copies: inputs per image in evaluation, for example four rotated copies.
    """

    model: Classifier
    evaluation_model: Classifier
    copies = 1

    @property
    def evaluation_batch(self) -> int:
        """Images per evaluation batch."""
        return max(1, min(EVALUATION_BATCH, EVALUATION_FACTOR * self.inputs_per_pass // self.copies))

    @abstractmethod
    def evaluation_batches(self, split: Split) -> tf.data.Dataset:
        """The batches of a whole split, as `keras.Model.evaluate` takes them."""

    def evaluate(self, split: Split, label: str = "") -> dict[str, Any]:
        """The loss, the accuracy and the confusion matrix over a whole split."""
        total = -(-len(split) // self.evaluation_batch)

        def after_batch(batch: int, logs: Any = None) -> None:
            if label:
                self.session.console.progress(label, batch + 1, total)

        watch = keras.callbacks.LambdaCallback(on_test_batch_end=after_batch)
        model = self.evaluation_model
        results = model.evaluate(self.evaluation_batches(split), verbose=0, return_dict=True, callbacks=[watch])
        counts = np.asarray(model.confusion.counts).tolist()
        return {"loss": float(results["loss"]), "accuracy": float(results["accuracy"]), **confusion_fields(counts)}
