"""The kind `classify`: train a classifier from labels, from scratch or on a pretrained backbone."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from rotnet_keras.config.schema import ClassifyRecipe, PretrainRecipe
from rotnet_keras.config.transfer import ClassificationRecipe
from rotnet_keras.data.batches import center_crop, evaluation_batches, training_batches
from rotnet_keras.data.datasets import Dataset, labelled_subset
from rotnet_keras.data.stores import Split
from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import DataError
from rotnet_keras.files import make_folder
from rotnet_keras.inference.calibration import describe_classifier
from rotnet_keras.models.backbones.airbench import whiten
from rotnet_keras.models.backbones.registry import (
    build_backbone,
    for_images,
    freeze_up_to,
    layer_outputs,
    with_input_shape,
)
from rotnet_keras.models.export import first_kernels, load_backbone, save_model, with_softmax
from rotnet_keras.models.fused_batch_norm import with_fused_batch_norm, with_stock_layers
from rotnet_keras.models.heads import build_head, start_as_in_voc
from rotnet_keras.models.joint import JointClassifier
from rotnet_keras.models.multi_label import MultiLabelClassifier
from rotnet_keras.models.rescaling import evenly_spaced, folded_and_rescaled
from rotnet_keras.models.rotnet import Classifier
from rotnet_keras.models.s4l import UNLABELLED, SemiSupervised
from rotnet_keras.reports.figures import draw_filters
from rotnet_keras.runs.exports.classifier_card import write_card
from rotnet_keras.training.classifier_trainer import ClassifierTrainer
from rotnet_keras.training.optimizers import scale_learning_rate
from rotnet_keras.training.session import Session
from rotnet_keras.training.setup import backbone_input_shape, prepare_data
from rotnet_keras.training.trainer import configure_tensorflow

# Added to the recipe's seed for the stream of unlabelled images. It is larger than any seed in a recipe.
UNLABELLED_SEED_OFFSET = 2**31


def finetune(session: Session) -> None:
    """Run a recipe of the kind `classify`."""
    recipe = session.recipe
    assert isinstance(recipe, ClassifyRecipe)
    strategy = configure_tensorflow(session, recipe)
    dataset = prepare_data(session, strategy)
    if dataset.train.labels is None:
        raise DataError("training a classifier needs labelled training images, and these have no labels")
    labelled = [split and split.labelled() for split in (dataset.validation, dataset.test)]
    # A split without any label measures nothing.
    validation, test = (split if split is not None and len(split) else None for split in labelled)
    dataset = replace(dataset, validation=validation, test=test)
    trainer = FinetuneTrainer(session, recipe, dataset, strategy)
    trainer.run()


def build_classifier(
    recipe: ClassifyRecipe | ClassificationRecipe, dataset: Dataset, backbone: keras.Model
) -> Classifier:
    """Build the model that a recipe trains: the backbone up to the tap of the recipe, and a new head.

    Raises:
        DataError: the backbone has no such tap, or cannot take images of this size.
    """
    tap = recipe.head.tap
    if tap is not None:
        backbone = keras.Model(backbone.input, layer_outputs(backbone, [tap])[tap], name=backbone.name)
    backbone = for_images(with_input_shape(backbone, backbone_input_shape(dataset, recipe.augment)), dataset.values)
    if isinstance(recipe, ClassificationRecipe) and recipe.rescale:
        images = center_crop(dataset.train.images(evenly_spaced(len(dataset.train))), recipe.augment, dataset.values)
        backbone = folded_and_rescaled(backbone, images, recipe.pretrained is None)
    joint = recipe.joint if isinstance(recipe, ClassifyRecipe) else None
    logits = len(dataset.class_names) * (len(joint.angles) if joint else 1)
    head = build_head(recipe.head.name, backbone.output.shape[1:], logits, backbone.layers[-1].name)
    if isinstance(recipe, ClassificationRecipe) and recipe.head_start == "voc":
        start_as_in_voc(head, recipe.seed)
    synchronized = recipe.devices.sync_batch_norm
    # The file of a pretrained backbone is float32; here it gets the precision of the training.
    backbone = with_fused_batch_norm(backbone, keras.config.dtype_policy().name, synchronized)
    head = with_fused_batch_norm(head, synchronized=synchronized)
    if recipe.pretrained and recipe.pretrained.frozen:
        freeze_up_to(backbone, recipe.pretrained.frozen)
    if isinstance(recipe, ClassificationRecipe):
        model: Classifier = MultiLabelClassifier(backbone, head, augment=recipe.augment, seed=recipe.seed)
    elif joint:
        model = JointClassifier(backbone, head, joint, recipe.augment, recipe.seed)
    elif recipe.auxiliary:
        model = SemiSupervised(backbone, head, recipe.auxiliary, recipe.augment, recipe.seed)
    else:
        model = Classifier(backbone, head, augment=recipe.augment, seed=recipe.seed)
    model.values = dataset.values
    return model


class FinetuneTrainer(ClassifierTrainer):
    """Trains a backbone and a head together.

    With few labels, each labelled image is drawn more often: an epoch always has as many draws as there are
    training images, as in the authors' code.

    Attributes:
        labelled: the labelled images, repeated until they are as many as the training images.
        exclusive: whether an image has exactly one class.
    """

    progress_label = "training"
    exclusive = True
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

        inputs_per_step = recipe.train.batch
        self.auxiliary = auxiliary = recipe.auxiliary if isinstance(recipe, ClassifyRecipe) else None
        if auxiliary:
            unlabelled = auxiliary.unlabelled(recipe.train.batch)
            inputs_per_step = (recipe.train.batch + unlabelled) * len(auxiliary.angles)
        if isinstance(recipe, ClassifyRecipe) and recipe.joint:
            inputs_per_step *= len(recipe.joint.angles)
            self.copies = len(recipe.joint.predicted_angles)
        super().__init__(session, recipe, dataset, strategy, build, len(dataset.train), inputs_per_step)
        scale_learning_rates(self.model, recipe)
        positions = labelled_subset(dataset, recipe.head, (recipe.seed, 0))
        self.labelled = dataset.train.subset(np.resize(positions, len(dataset.train)))
        session.record(labels=len(positions))

    def batches(self, first: int, last: int) -> tf.data.Dataset:
        """Return batches of augmented images (N, H, W, C) and labels (N,) int64, unlabelled images last."""
        recipe = self.recipe

        def augmented(split: Split, batch: int, seed: int) -> tf.data.Dataset:
            steps = {"first": first, "last": last}
            return training_batches(
                split, recipe.augment, batch=batch, seed=seed, labelled=True, replicas=self.replicas, **steps
            )

        labelled = augmented(self.labelled, recipe.train.batch, recipe.seed)
        if not self.auxiliary or not self.auxiliary.unlabelled(recipe.train.batch):
            return labelled
        without_labels = replace(self.dataset.train, labels=np.full(len(self.dataset.train), UNLABELLED))
        unlabelled = augmented(
            without_labels, self.auxiliary.unlabelled(recipe.train.batch), recipe.seed + UNLABELLED_SEED_OFFSET
        )
        both = tf.data.Dataset.zip(labelled, unlabelled)
        return both.map(lambda *pair: tuple(tf.concat(values, axis=0) for values in zip(*pair, strict=True)))

    def evaluation_batches(self, split: Split) -> tf.data.Dataset:
        """Return batches of central crops (N, H, W, C) and labels (N,) int64."""
        return evaluation_batches(split, self.recipe.augment, batch=self.evaluation_batch, labelled=True)

    def export(self) -> None:
        """Save the models, draw the filters of the first layer and evaluate on the test split."""
        folder = self.session.folder
        save_model(with_stock_layers(self.evaluation_model.backbone), folder.backbone, folder.path)
        self.save_classifier(folder.export / "classifier.keras")
        if isinstance(self.evaluation_model, SemiSupervised):
            rotation_head = self.evaluation_model.rotation_head
            model = with_softmax(self.evaluation_model.backbone, rotation_head, "rotnet")
            save_model(model, folder.export / "rotnet.keras", folder.path)
        make_folder(folder.figures, folder.path)
        draw_filters(first_kernels(self.evaluation_model.backbone), folder.figures / "filters.png", folder.path)
        self.test("accuracy on test")

    def save_classifier(self, path: Path) -> None:
        """Save the exported model, and its card beside it."""
        model, data = self.exported(), self.dataset
        fit = self.recipe.data.fit if isinstance(self.recipe, ClassifyRecipe) else "crop"
        card = describe_classifier(
            model, data.class_names, data.validation, self.recipe.augment, data.image_shape, self.exclusive, fit
        )
        save_model(model, path, self.session.folder.path)
        write_card(path, card, self.session.folder.path)

    def exported(self) -> keras.Model:
        """Return the exported model: from pixels to a probability for each class."""
        if isinstance(self.evaluation_model, JointClassifier):
            return self.evaluation_model.exported()
        return with_softmax(self.evaluation_model.backbone, self.evaluation_model.head, "classifier")


def scale_learning_rates(model: Classifier, recipe: PretrainRecipe | ClassifyRecipe | ClassificationRecipe) -> None:
    """Set the learning rates of the backbone's variables and of the biases, if the recipe gives them some."""
    rate = recipe.optimizer.learning_rate
    of_backbone = (recipe.pretrained.learning_rate if recipe.pretrained else None) or rate
    bias_rate = recipe.bias_rate if isinstance(recipe, ClassificationRecipe) else 1.0
    scale_learning_rate(model, of_backbone / rate, model.head.trainable_variables, bias_rate)


def starting_backbone(recipe: ClassifyRecipe | ClassificationRecipe, dataset: Dataset) -> keras.Model:
    """Load the pretrained backbone of a recipe, or build a new one with random weights."""
    if recipe.backbone:
        shape = backbone_input_shape(dataset, recipe.augment)
        backbone = build_backbone(recipe.backbone, shape, dataset.mean, dataset.std, dataset.values)
        whiten(backbone, dataset.train, recipe.seed)
        return backbone
    assert recipe.pretrained is not None
    return load_backbone(Path(str(recipe.pretrained.file)))
