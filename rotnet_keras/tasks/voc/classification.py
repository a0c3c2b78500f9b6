"""Transfer to multi-label classification, scored as in PASCAL VOC 2007."""

from typing import Any

import numpy as np

from rotnet_keras.config.transfer import ClassificationRecipe
from rotnet_keras.data.annotations import AnnotatedDataset, AnnotatedSplit, load_annotated
from rotnet_keras.data.batches import evaluation_batches
from rotnet_keras.data.datasets import IMAGENET_STATISTICS, Dataset
from rotnet_keras.data.stores import Split
from rotnet_keras.engine import keras
from rotnet_keras.evaluation.metrics import classification_average_precision, mean_over_classes
from rotnet_keras.models.export import with_sigmoid
from rotnet_keras.models.multi_label import DIFFICULT
from rotnet_keras.tasks.finetune import FinetuneTrainer
from rotnet_keras.training.session import Session
from rotnet_keras.training.setup import record_data
from rotnet_keras.training.trainer import configure_tensorflow


def transfer_classification(session: Session) -> None:
    """Run a recipe of the kind `transfer` with the task `classification`."""
    recipe = session.recipe
    assert isinstance(recipe, ClassificationRecipe)
    strategy = configure_tensorflow(session, recipe)
    dataset = as_multi_label(load_annotated(recipe.data, False, session.progress))
    record_data(session, dataset, dataset.image_shape, dataset.class_names)
    trainer = MultiLabelTrainer(session, recipe, dataset, strategy)
    trainer.run()


def as_multi_label(annotated: AnnotatedDataset) -> Dataset:
    """Turn objects into labels (N, K): 1 if the class is in the image, 0 if not, `DIFFICULT` if all its objects are."""
    count = len(annotated.class_names)
    mean, std = IMAGENET_STATISTICS
    return Dataset(
        annotated.name,
        _labelled(annotated.train, count),
        _labelled(annotated.validation, count) if annotated.validation else None,
        _labelled(annotated.test, count) if annotated.test else None,
        annotated.class_names,
        mean,
        std,
        annotated.fingerprint,
        annotated.notes,
        annotated.old_fingerprint,
        resampled=True,
    )


def _labelled(split: AnnotatedSplit, classes: int) -> Split:
    labels = np.zeros((len(split), classes), np.int64)
    assert split.objects is not None
    for row, objects in zip(labels, split.objects, strict=True):
        assert objects.difficult is not None
        row[objects.classes[objects.difficult]] = DIFFICULT
        row[objects.classes[~objects.difficult]] = 1
    return Split(split.store, split.rows, labels)


class MultiLabelTrainer(FinetuneTrainer):
    """Trains a multi-label classifier, scored by mean average precision (mAP)."""

    recipe: ClassificationRecipe
    exclusive = False

    def evaluate(self, split: Split, label: str = "") -> dict[str, Any]:
        """Return loss and accuracy on central crops, mAP (`score`) and the AP of each class (`per_class`).

        The AP is the area under the precision-recall curve, as in the program whose figures the paper reports, also
        under `score_area`; `score_eleven_points` is the mAP of VOC 2007's development kit. On the test split the logits
        are summed over random crops, as many as the recipe's `views`, before they are ranked.
        `score_area_one_crop` and `score_one_crop` are the two mAPs on central crops alone.

        Args:
            split: the images to evaluate on.
            label: the label of the progress bar; on the test split only.
        """
        results = self.evaluation_model.evaluate(self.evaluation_batches(split), verbose=0, return_dict=True)
        central = self._logits(split, None)
        scores = {"loss": float(results["loss"]), "accuracy": float(results["accuracy"])}
        if not label:
            return {**scores, **self._scores(split, central)}
        summed = np.zeros_like(central)
        for view in range(self.recipe.views):
            self.session.console.progress(label, view + 1, self.recipe.views)
            summed += self._logits(split, (self.recipe.seed, view))
            self.session.stop.check()
        one_crop = self._scores(split, central)
        return {
            **scores,
            **self._scores(split, summed),
            "score_area_one_crop": one_crop["score_area"],
            "score_one_crop": one_crop["score_eleven_points"],
        }

    def _logits(self, split: Split, view: tuple[int, int] | None) -> np.ndarray:
        batches = evaluation_batches(split, self.recipe.augment, batch=self.evaluation_batch, view=view)
        return np.concatenate([self.evaluation_model.predict_on_batch(batch) for batch in batches])

    def _scores(self, split: Split, logits: np.ndarray) -> dict[str, Any]:
        return scores_of_classification(logits, split.required_labels())

    def exported(self) -> keras.Model:
        """Return the exported model: from pixels to a probability for each class."""
        return with_sigmoid(self.evaluation_model.backbone, self.evaluation_model.head, "classifier")


def scores_of_classification(logits: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Return the average precisions of a ranking of images for each class, as fields of an event.

    Args:
        logits: (N, K), of one crop or summed over several.
        truth: (N, K), 1, 0 or `DIFFICULT`.
    """
    pairs = [classification_average_precision(logits[:, k], truth[:, k]) for k in range(truth.shape[1])]
    areas = [None if pair is None else pair[1] for pair in pairs]
    area = mean_over_classes(areas)
    return {
        "score": area,
        "score_area": area,
        "score_eleven_points": mean_over_classes([None if pair is None else pair[0] for pair in pairs]),
        "per_class": areas,
        "confusion": [],
    }
