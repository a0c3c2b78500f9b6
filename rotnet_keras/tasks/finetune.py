"""The kind `classify`: learn classes from labels, from scratch or from a pretrained backbone."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from rotnet_keras.config.schema import ClassifyRecipe
from rotnet_keras.config.transfer import ClassificationRecipe
from rotnet_keras.data.batches import centred, evaluation_images, training_images
from rotnet_keras.data.datasets import Dataset, labelled_subset
from rotnet_keras.data.stores import Split
from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import DataError
from rotnet_keras.models.backbones.registry import build, for_images, freeze, outputs_of
from rotnet_keras.models.export import first_kernels, load_backbone, save_model, with_softmax
from rotnet_keras.models.fused_batch_norm import fused, stock
from rotnet_keras.models.heads import build_head
from rotnet_keras.models.multi_label import MultiLabelClassifier
from rotnet_keras.models.rescaling import evenly, rescaled
from rotnet_keras.models.rotnet import Classifier
from rotnet_keras.models.s4l import UNLABELLED, SemiSupervised
from rotnet_keras.reports.figures import draw_filters
from rotnet_keras.training.classifier_trainer import ClassifierTrainer
from rotnet_keras.training.session import Session
from rotnet_keras.training.setup import network_input, prepare_data
from rotnet_keras.training.trainer import set_up

# What makes the seed of one stream of images that of another; no recipe's own seed reaches so far.
UNLABELLED_SEED_OFFSET = 2**31


def finetune(session: Session) -> None:
    """Run a recipe of the kind `classify`."""
    recipe = session.recipe
    assert isinstance(recipe, ClassifyRecipe)
    strategy = set_up(session, recipe)
    dataset = prepare_data(session)
    if dataset.train.labels is None:
        raise DataError("classifying needs labelled training images, and these have no labels")
    training = FinetuneTrainer(session, recipe, dataset, strategy)
    training.carry_out()


def build_classifier(
    recipe: ClassifyRecipe | ClassificationRecipe, dataset: Dataset, backbone: keras.Model
) -> Classifier:
    """The model that a recipe trains: a backbone, up to the tap that is asked for, and a fresh head."""
    trunk, tap = backbone, recipe.head.tap
    if tap is not None:
        trunk = keras.Model(backbone.input, outputs_of(backbone, [tap])[tap], name=backbone.name)
    trunk = for_images(trunk, network_input(dataset, recipe.augment))
    if isinstance(recipe, ClassificationRecipe) and recipe.rescale:
        images = centred(dataset.train.images(evenly(len(dataset.train))), recipe.augment)
        trunk = rescaled(trunk, images, recipe.pretrained is None)
    head = build_head(recipe.head.name, trunk.output.shape[1:], len(dataset.class_names), trunk.layers[-1].name)
    # A pretrained backbone is float32 in its file.
    whole = recipe.devices.sync_batch_norm
    trunk, head = fused(trunk, keras.config.dtype_policy().name, whole), fused(head, synchronized=whole)
    if recipe.pretrained and recipe.pretrained.frozen:
        freeze(trunk, recipe.pretrained.frozen)
    if isinstance(recipe, ClassificationRecipe):
        return MultiLabelClassifier(trunk, head, augment=recipe.augment, seed=recipe.seed)
    if recipe.auxiliary:
        return SemiSupervised(trunk, head, recipe.auxiliary, recipe.augment, recipe.seed)
    return Classifier(trunk, head, augment=recipe.augment, seed=recipe.seed)


class FinetuneTrainer(ClassifierTrainer):
    """A backbone and a head in training together.

    Where only some labels are used, their images come the more often: an epoch is always as many draws as
    there are training images, as in the released code.
    """

    what = "training"
    recipe: ClassifyRecipe | ClassificationRecipe

    def __init__(
        self,
        session: Session,
        recipe: ClassifyRecipe | ClassificationRecipe,
        dataset: Dataset,
        strategy: tf.distribute.Strategy,
    ) -> None:
        def build() -> Classifier:
            return build_classifier(recipe, dataset, starting_backbone(recipe, dataset))

        inputs = recipe.train.batch
        self.auxiliary = auxiliary = recipe.auxiliary if isinstance(recipe, ClassifyRecipe) else None
        if auxiliary:
            inputs = (inputs + (auxiliary.batch or inputs)) * len(auxiliary.angles)
        super().__init__(session, recipe, dataset, strategy, build, len(dataset.train), inputs)
        model = self.model
        if recipe.pretrained and recipe.pretrained.learning_rate:
            share = recipe.pretrained.learning_rate / recipe.optimizer.learning_rate
            of_trunk = len(model.backbone.trainable_variables)
            model.optimizer.shares = [share] * of_trunk + [1.0] * (len(model.trainable_variables) - of_trunk)
        chosen = labelled_subset(dataset, recipe.head, (recipe.seed, 0))
        self.shown = dataset.train.subset(np.resize(chosen, len(dataset.train)))
        session.record(labels=len(chosen))

    def batches(self, first: int, last: int) -> tf.data.Dataset:
        """Augmented images (N, S, S, C) uint8 and labels (N,) int64, unlabelled ones behind labelled ones."""
        recipe = self.recipe

        def shown(split: Split, batch: int, seed: int) -> tf.data.Dataset:
            steps = {"first": first, "last": last}
            return training_images(
                split, recipe.augment, batch=batch, seed=seed, labelled=True, replicas=self.replicas, **steps
            )

        labelled = shown(self.shown, recipe.train.batch, recipe.seed)
        if not self.auxiliary:
            return labelled
        others = replace(self.dataset.train, labels=np.full(len(self.dataset.train), UNLABELLED))
        unlabelled = shown(others, self.auxiliary.batch or recipe.train.batch, recipe.seed + UNLABELLED_SEED_OFFSET)
        both = tf.data.Dataset.zip(labelled, unlabelled)
        return both.map(lambda *pair: tuple(tf.concat(values, axis=0) for values in zip(*pair, strict=True)))

    def evaluation_batches(self, split: Split) -> tf.data.Dataset:
        """Central crops (N, S, S, C) uint8 and labels (N,) int64."""
        return evaluation_images(split, self.recipe.augment, batch=self.evaluation_batch, labelled=True)

    def export(self) -> None:
        """Write the models, the test and the first filters."""
        folder = self.session.folder
        save_model(stock(self.measured.backbone), folder.backbone)
        save_model(self.exported(), folder.export / "classifier.keras")
        folder.figures.mkdir(exist_ok=True)
        draw_filters(first_kernels(self.measured.backbone), folder.figures / "filters.png")
        self.test("accuracy on test")

    def exported(self) -> keras.Model:
        """The model from pixels to what one wants to know of them."""
        return with_softmax(self.measured.backbone, self.measured.head, "classifier")


def starting_backbone(recipe: ClassifyRecipe | ClassificationRecipe, dataset: Dataset) -> keras.Model:
    """What a recipe goes on from: the pretrained backbone, or one from scratch."""
    if recipe.backbone:
        return build(recipe.backbone, network_input(dataset, recipe.augment), dataset.mean, dataset.std)
    assert recipe.pretrained is not None
    return load_backbone(Path(str(recipe.pretrained.file)))
