"""The kind `classify`: learn classes from labels, from scratch or from a pretrained backbone."""

from pathlib import Path

import numpy as np

from rotnet_keras import engine
from rotnet_keras.backbones import build, outputs_of
from rotnet_keras.batches import evaluation_images, training_images
from rotnet_keras.datasets import Dataset
from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import DataError
from rotnet_keras.exports import load_backbone, save_model
from rotnet_keras.figures import draw_filters
from rotnet_keras.fused import fused, stock
from rotnet_keras.heads import build_head
from rotnet_keras.labels import labelled_subset
from rotnet_keras.models import Classifier, first_kernels, with_softmax
from rotnet_keras.schema import ClassifyRecipe
from rotnet_keras.session import Session
from rotnet_keras.stages import check_shape, finish, network_input, prepare_data
from rotnet_keras.stores import Split
from rotnet_keras.training import EVALUATION_BATCH, Training, run_precision


def classify(session: Session) -> None:
    """Run a recipe of the kind `classify`."""
    recipe = session.recipe
    assert isinstance(recipe, ClassifyRecipe)
    engine.configure(recipe.seed, run_precision(session, recipe))
    dataset = prepare_data(session)
    if dataset.train.labels is None:
        raise DataError("classifying needs labelled training images, and these have no labels")
    training = Classification(session, recipe, dataset)
    training.restore()
    training.train()
    with engine.under("float32"), training.averaged():
        training.export()
    finish(session)


def classifier(recipe: ClassifyRecipe, dataset: Dataset, backbone: keras.Model) -> Classifier:
    """The model that a recipe trains: a backbone, up to the tap that is asked for, and a fresh head."""
    trunk, tap = backbone, recipe.head.tap
    if tap is not None:
        trunk = keras.Model(backbone.input, outputs_of(backbone, [tap])[tap], name=backbone.name)
    head = build_head(recipe.head.name, trunk.output.shape[1:], len(dataset.class_names), trunk.layers[-1].name)
    # A pretrained backbone is float32 in its file.
    trunk, head = fused(trunk, keras.config.dtype_policy().name), fused(head)
    return Classifier(trunk, head, augment=recipe.augment, seed=recipe.seed)


class Classification(Training):
    """A backbone and a head in training together.

    Where only some labels are used, their images come the more often: an epoch is always as many draws as
    there are training images, as in the released code.
    """

    what = "training"
    recipe: ClassifyRecipe

    def __init__(self, session: Session, recipe: ClassifyRecipe, dataset: Dataset) -> None:
        model = classifier(recipe, dataset, _backbone(recipe, dataset))
        super().__init__(session, recipe, dataset, model, len(dataset.train))
        if recipe.pretrained and recipe.pretrained.learning_rate:
            share = recipe.pretrained.learning_rate / recipe.optimizer.learning_rate
            of_trunk = len(model.backbone.trainable_variables)
            model.optimizer.shares = [share] * of_trunk + [1.0] * len(model.head.trainable_variables)
        chosen = labelled_subset(dataset, recipe.head, (recipe.seed, 0))
        self.shown = dataset.train.subset(np.resize(chosen, len(dataset.train)))
        session.record(labels=len(chosen))

    def batches(self, first: int, last: int) -> tf.data.Dataset:
        """Augmented images (N, S, S, C) uint8 and labels (N,) int64."""
        recipe = self.recipe
        return training_images(
            self.shown,
            recipe.augment,
            batch=recipe.train.batch,
            seed=recipe.seed,
            first=first,
            last=last,
            labelled=True,
        )

    def evaluation_batches(self, split: Split) -> tf.data.Dataset:
        """Central crops (N, S, S, C) uint8 and labels (N,) int64."""
        return evaluation_images(split, self.recipe.augment, batch=EVALUATION_BATCH, labelled=True)

    def export(self) -> None:
        """Write the models, the test and the first filters."""
        folder = self.session.folder
        save_model(stock(self.model.backbone), folder.backbone)
        save_model(with_softmax(self.model.backbone, self.model.head, "classifier"), folder.export / "classifier.keras")
        folder.figures.mkdir(exist_ok=True)
        draw_filters(first_kernels(self.model.backbone), folder.figures / "filters.png")
        self.test("accuracy on test")


def _backbone(recipe: ClassifyRecipe, dataset: Dataset) -> keras.Model:
    if recipe.backbone:
        return build(recipe.backbone, network_input(dataset, recipe.augment), dataset.mean, dataset.std)
    assert recipe.pretrained is not None
    backbone = load_backbone(Path(str(recipe.pretrained.file)))
    check_shape(backbone, dataset, recipe.augment)
    return backbone
