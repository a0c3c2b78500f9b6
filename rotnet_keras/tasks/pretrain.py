"""The kind `pretrain`: train a RotNet, evaluate and export it, and run its probes."""

from collections.abc import Sequence
from pathlib import Path

from rotnet_keras import engine
from rotnet_keras.config.schema import PretrainRecipe
from rotnet_keras.data.batches import crop_shape, evaluation_batches, training_batches
from rotnet_keras.data.datasets import Dataset
from rotnet_keras.data.stores import Split
from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import DataError
from rotnet_keras.evaluation.feature_meter import FeatureMeter
from rotnet_keras.evaluation.novelty import measure_novelty
from rotnet_keras.evaluation.sample_images import SampleImages
from rotnet_keras.evaluation.suitability.suitability import measure_suitability
from rotnet_keras.files import make_folder
from rotnet_keras.models.backbones import registry
from rotnet_keras.models.backbones.airbench import whiten
from rotnet_keras.models.backbones.registry import (
    build_backbone,
    for_images,
    freeze_up_to,
    with_input_name,
    with_input_shape,
    with_statistics,
)
from rotnet_keras.models.export import first_kernels, load_backbone, save_model, with_softmax
from rotnet_keras.models.fused_batch_norm import with_fused_batch_norm
from rotnet_keras.models.rotation import rotated_shape
from rotnet_keras.models.rotnet import RotNet
from rotnet_keras.models.translation import TRANSFORMATIONS, TranslationRotNet
from rotnet_keras.reports.figures import draw_filters
from rotnet_keras.runs.exports.backbone_file import VALUES
from rotnet_keras.tasks.finetune import scale_learning_rates
from rotnet_keras.tasks.probe import check_probes, run_missing_probes
from rotnet_keras.training.classifier_trainer import ClassifierTrainer
from rotnet_keras.training.session import Session
from rotnet_keras.training.setup import backbone_input_shape, finish, prepare_data
from rotnet_keras.training.trainer import configure_tensorflow


def pretrain(session: Session) -> None:
    """Run a recipe of the kind `pretrain`."""
    recipe = session.recipe
    assert isinstance(recipe, PretrainRecipe)
    strategy = configure_tensorflow(session, recipe)
    dataset = prepare_data(session, strategy)
    check_shape(recipe, dataset)
    recipe = without_missing_labels(session, recipe, dataset)
    check_probes(dataset, recipe.probe)
    trainer = RotNetTrainer(session, recipe, dataset, strategy)
    trainer.restore()
    trainer.train()
    if not session.process.chief:
        return
    with engine.dtype_policy("float32"):
        with trainer.evaluation_weights():
            backbone = trainer.export()
            trainer.assess_suitability()
            trainer.assess_novelty()
        if recipe.probe:
            probes = list(enumerate(recipe.probe))
            run_missing_probes(session, dataset, backbone, recipe.augment, probes, trainer.position.step)
    finish(session)


def without_missing_labels(session: Session, recipe: PretrainRecipe, dataset: Dataset) -> PretrainRecipe:
    """Return the recipe without what needs labels that the images do not have, and say so."""
    recipe, left_out = recipe.for_labels(dataset.labelled)
    if left_out and session.process.chief:
        known = any(event["kind"] == "warning" and event["message"] == left_out for event in session.earlier)
        (session.say if known else session.warn)(left_out)
    return recipe


def check_shape(recipe: PretrainRecipe, dataset: Dataset) -> None:
    """Make sure that images can be rotated and shifted as a recipe says.

    Raises:
        DataError: they are no squares, and an angle would exchange height and width, or they would be shifted by their
            whole side.
    """
    height, width = crop_shape(recipe.augment, dataset.image_shape)
    if height != width and any(angle % 180 for angle in recipe.rotation.angles):
        raise DataError(
            f"{dataset.name}: images of {height} x {width} pixels are no squares, and the angles "
            f"{recipe.rotation.angles} would exchange height and width: set rotation.angles = [0, 180], or data.size "
            "to a side in pixels, which makes them squares"
        )
    if recipe.rotation.translation >= min(height, width):
        raise DataError(
            f"{dataset.name}: images of {height} x {width} pixels cannot be shifted by {recipe.rotation.translation}: "
            "set a smaller rotation.translation, a quarter of the side or so"
        )


def build_rotnet(recipe: PretrainRecipe, dataset: Dataset) -> RotNet:
    """Build the model that a recipe trains, with random weights."""
    rotation = recipe.rotation
    shape = rotated_shape(crop_shape(recipe.augment, dataset.image_shape), rotation.angles)
    backbone = initial_backbone(recipe, dataset, (*shape, dataset.image_shape[2]))
    synchronized = recipe.devices.sync_batch_norm
    # The file of a pretrained backbone is float32; here it gets the precision of the training.
    precision = keras.config.dtype_policy().name if recipe.pretrained else None
    backbone = with_fused_batch_norm(backbone, precision, synchronized)
    if recipe.pretrained and recipe.pretrained.frozen:
        freeze_up_to(backbone, recipe.pretrained.frozen)
    if rotation.translation:
        model: RotNet = TranslationRotNet(backbone, rotation, recipe.augment, recipe.seed, synchronized)
    else:
        model = RotNet(
            backbone,
            rotation.angles,
            rotation.copies,
            rotation.hidden,
            recipe.augment,
            recipe.seed,
            synchronized,
        )
    model.values = dataset.values
    return model


def initial_backbone(recipe: PretrainRecipe, dataset: Dataset, shape: Sequence[int]) -> keras.Model:
    """Build the backbone that a recipe starts from, or load it where that is a pretrained one.

    Args:
        recipe: the recipe.
        dataset: whose mean and standard deviation pixels are scaled by, unless a pretrained backbone keeps its own.
        shape: (H, W, C) of the images.

    Raises:
        DataError: the file is no model that can be loaded safely, or it cannot take such images.
    """
    if recipe.backbone:
        backbone = build_backbone(recipe.backbone, shape, dataset.mean, dataset.std, dataset.values)
        whiten(backbone, dataset.train, recipe.seed)
        return backbone
    assert recipe.pretrained is not None
    backbone = with_input_shape(load_backbone(Path(str(recipe.pretrained.file))), shape)
    if recipe.pretrained.statistics == "model":
        return for_images(backbone, dataset.values)
    scaled = with_statistics(backbone, dataset.mean, dataset.std)
    return scaled if dataset.values is None else with_input_name(scaled, VALUES)


class RotNetTrainer(ClassifierTrainer):
    """Trains a RotNet."""

    progress_label = "pretraining"
    recipe: PretrainRecipe
    model: RotNet
    evaluation_model: RotNet

    def __init__(
        self, session: Session, recipe: PretrainRecipe, dataset: Dataset, strategy: tf.distribute.Strategy
    ) -> None:
        rotation = recipe.rotation
        copies = len(rotation.angles) if rotation.copies == "all" else 1
        inputs_per_step = recipe.train.batch * copies
        super().__init__(
            session,
            recipe,
            dataset,
            strategy,
            lambda: build_rotnet(recipe, dataset),
            len(dataset.train),
            inputs_per_step,
        )
        self.copies = len(rotation.angles)
        self.sample: SampleImages | None = None
        self.meter = (
            FeatureMeter(self.evaluation_model.backbone, dataset, recipe.augment, recipe.features)
            if recipe.features.images and session.process.chief
            else None
        )
        if recipe.pretrained:
            scale_learning_rates(self.model, recipe)
            # A report compares a NIN with the paper's of as many blocks.
            backbone = self.model.backbone
            session.record(backbone={"name": backbone.name, "taps": registry.taps(backbone)})

    def batches(self, first: int, last: int) -> tf.data.Dataset:
        """Return batches of augmented, unrotated images (N, H, W, C); the model rotates them."""
        recipe = self.recipe
        return training_batches(
            self.dataset.train,
            recipe.augment,
            batch=recipe.train.batch,
            seed=recipe.seed,
            first=first,
            last=last,
            replicas=self.replicas,
        )

    def evaluation_batches(self, split: Split) -> tf.data.Dataset:
        """Return batches of unrotated central crops (N, H, W, C)."""
        return evaluation_batches(split, self.recipe.augment, batch=self.evaluation_batch)

    def after_validation(self, step: int) -> None:
        """Write what the model makes of some validation images, and the filters of the first layer."""
        if self.sample is None:
            self.sample = SampleImages(
                self.session, self.dataset, self.evaluation_model, self.recipe.augment, self.evaluation_batch
            )
        event = self.sample.write(step)
        filters = f"filters-{step:08d}.png"
        run = self.session.folder
        draw_filters(first_kernels(self.evaluation_model.backbone), run.samples / filters, run.path)
        self.session.event("samples", step=step, filters=filters, **event)

    def _end_epoch(self) -> None:
        """Measure the features, besides what every training does at the end of an epoch."""
        if self.meter:
            with self.session.timed() as took, self.evaluation_weights():
                found = self.meter.measure()
            count = min(self.recipe.features.images, len(self.dataset.train))
            self.session.event("features", step=self.position.step, images=count, taps=found, **took)
        super()._end_epoch()

    def between_epochs(self) -> None:
        """Run the probes whose `every` divides the number of epochs so far."""
        epoch, rest = divmod(self.position.step, self.steps_per_epoch)
        probes = enumerate(self.recipe.probe)
        due = [(i, p) for i, p in probes if p.every and epoch and not rest and epoch % p.every == 0]
        if due:
            with engine.dtype_policy("float32"):
                with self.evaluation_weights():
                    backbone = self._backbone_for_crops()
                augment, step = self.recipe.augment, self.position.step
                run_missing_probes(self.session, self.dataset, backbone, augment, due, step, exports=False)

    def _backbone_for_crops(self) -> keras.Model:
        """Return the backbone with its present weights, for whole crops.

        With angles that are not multiples of 90 degrees, training sees a smaller square from the middle of each crop.
        """
        shape = backbone_input_shape(self.dataset, self.recipe.augment)
        backbone = initial_backbone(self.recipe, self.dataset, shape)
        backbone.set_weights(self.evaluation_model.backbone.get_weights())
        return backbone

    def export(self) -> keras.Model:
        """Save the models, draw the filters of the first layer and evaluate on the test split; return the backbone."""
        backbone, run = self._backbone_for_crops(), self.session.folder
        save_model(backbone, run.backbone, run.path)
        save_model(
            with_softmax(self.evaluation_model.backbone, self.evaluation_model.head, "rotnet"),
            run.export / "rotnet.keras",
            run.path,
        )
        if isinstance(self.evaluation_model, TranslationRotNet):
            save_model(self.evaluation_model.exported(), run.export / TRANSFORMATIONS, run.path)
        make_folder(run.figures, run.path)
        draw_filters(first_kernels(backbone), run.figures / "filters.png", run.path)
        self.test("rotation accuracy on test")
        return backbone

    def assess_suitability(self) -> None:
        """Assess whether rotation prediction is a sensible task for these images, once per run."""
        if not any(event["kind"] == "suitability" for event in self.session.earlier):
            step, batch = self.position.step, self.evaluation_batch
            measure_suitability(self.session, self.dataset, self.evaluation_model, self.recipe.augment, batch, step)

    def assess_novelty(self) -> None:
        """Measure how well the rotations tell test images of classes that were left out, once per run."""
        only = self.recipe.data.only
        if only is None or any(event["kind"] == "novelty" for event in self.session.earlier):
            return
        model, batch = self.evaluation_model, self.evaluation_batch
        found = measure_novelty(self.dataset, only, model, self.recipe.augment, batch, self.session.progress)
        if found is None:
            self.session.warn("there are no labelled test images of data.only and of other classes to compare")
        else:
            self.session.event("novelty", step=self.position.step, **found)
