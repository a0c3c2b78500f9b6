"""What trainings of classifiers share: how they are scored."""

from abc import abstractmethod
from typing import Any

import numpy as np

from rotnet_keras.data.datasets import Dataset
from rotnet_keras.data.stores import Split
from rotnet_keras.engine import keras, tf
from rotnet_keras.models.rotnet import Classifier
from rotnet_keras.runs.task_labels import confusion_fields
from rotnet_keras.training.trainer import Trainer

# Images: so many at most, and so many times what training shows a device, which keeps more of each for gradients.
EVALUATION_BATCH, EVALUATION_SHARE = 125, 4


class ClassifierTrainer(Trainer[Dataset]):
    """A classifier, of angles or of objects, in training.

    Attributes:
        copies: of each image that is evaluated.
    """

    model: Classifier
    evaluation_model: Classifier
    copies = 1

    @property
    def evaluation_batch(self) -> int:
        """Images that are evaluated at a time."""
        return max(1, min(EVALUATION_BATCH, EVALUATION_SHARE * self.inputs_per_pass // self.copies))

    @abstractmethod
    def evaluation_batches(self, split: Split) -> tf.data.Dataset:
        """All of a split, for `evaluate`."""

    def evaluate(self, split: Split, what: str = "") -> dict[str, Any]:
        """Loss, accuracy and confusion over a whole split."""
        total = -(-len(split) // self.evaluation_batch)

        def after_batch(batch: int, logs: Any = None) -> None:
            if what:
                self.session.console.progress(what, batch + 1, total)

        watch = keras.callbacks.LambdaCallback(on_test_batch_end=after_batch)
        model = self.evaluation_model
        results = model.evaluate(self.evaluation_batches(split), verbose=0, return_dict=True, callbacks=[watch])
        counts = np.asarray(model.confusion.counts).tolist()
        return {"loss": float(results["loss"]), "accuracy": float(results["accuracy"]), **confusion_fields(counts)}
