"""The kind `pretrain`: learn from rotations, measure, export, probe, report."""

import numpy as np

from rotnet_keras import engine
from rotnet_keras.config.schema import PretrainRecipe
from rotnet_keras.data.batches import crop_size, evaluation_images, training_images
from rotnet_keras.data.datasets import Dataset
from rotnet_keras.data.stores import Split
from rotnet_keras.engine import keras, tf
from rotnet_keras.evaluation.suitability.suitability import look_into
from rotnet_keras.models.backbones.registry import build
from rotnet_keras.models.export import first_kernels, save_model, with_softmax
from rotnet_keras.models.fused_batch_norm import fused
from rotnet_keras.models.rotation import rotate_batch, rotated_size
from rotnet_keras.models.rotnet import RotNet
from rotnet_keras.reports.figures import draw_filters
from rotnet_keras.reports.samples import FIXED_SAMPLES, SEARCHED_SAMPLES, write_samples
from rotnet_keras.tasks.probe import check_probes, run_missing_probes
from rotnet_keras.training.classifier_trainer import ClassifierTrainer
from rotnet_keras.training.session import Session
from rotnet_keras.training.setup import finish, network_input, prepare_data
from rotnet_keras.training.trainer import set_up


def pretrain(session: Session) -> None:
    """Run a recipe of the kind `pretrain`."""
    recipe = session.recipe
    assert isinstance(recipe, PretrainRecipe)
    strategy = set_up(session, recipe)
    dataset = prepare_data(session)
    check_probes(dataset, recipe.probe)
    training = RotNetTrainer(session, recipe, dataset, strategy)
    training.restore()
    training.train()
    if not session.place.chief:
        return
    with engine.under("float32"):
        with training.counting():
            backbone = training.export()
            training.look_into_suitability()
        if recipe.probe:
            probes = list(enumerate(recipe.probe))
            run_missing_probes(session, dataset, backbone, recipe.augment, probes, training.position.step)
    finish(session)


def build_rotnet(recipe: PretrainRecipe, dataset: Dataset) -> RotNet:
    """The model that a recipe trains, with its first weights."""
    rotation = recipe.rotation
    side = rotated_size(crop_size(recipe.augment, dataset.image_shape[0]), rotation.angles)
    backbone = build(recipe.backbone, (side, side, dataset.image_shape[2]), dataset.mean, dataset.std)
    whole = recipe.devices.sync_batch_norm
    return RotNet(
        fused(backbone, synchronized=whole),
        rotation.angles,
        rotation.copies,
        rotation.hidden,
        recipe.augment,
        recipe.seed,
        whole,
    )


class RotNetTrainer(ClassifierTrainer):
    """A RotNet in training."""

    what = "pretraining"
    recipe: PretrainRecipe

    def __init__(
        self, session: Session, recipe: PretrainRecipe, dataset: Dataset, strategy: tf.distribute.Strategy
    ) -> None:
        rotation = recipe.rotation
        copies = len(rotation.angles) if rotation.copies == "all" else 1
        inputs = recipe.train.batch * copies
        super().__init__(
            session, recipe, dataset, strategy, lambda: build_rotnet(recipe, dataset), len(dataset.train), inputs
        )
        self.copies = len(rotation.angles)

    def batches(self, first: int, last: int) -> tf.data.Dataset:
        """Augmented, unrotated images: (N, T, T, C) uint8."""
        recipe = self.recipe
        return training_images(
            self.dataset.train,
            recipe.augment,
            batch=recipe.train.batch,
            seed=recipe.seed,
            first=first,
            last=last,
            replicas=self.replicas,
        )

    def evaluation_batches(self, split: Split) -> tf.data.Dataset:
        """Central crops, unrotated: (N, T, T, C) uint8."""
        return evaluation_images(split, self.recipe.augment, batch=self.evaluation_batch)

    def after_validation(self, step: int) -> None:
        """Show samples and filters."""
        split, angles = self.dataset.validation, self.recipe.rotation.angles
        assert split is not None
        first = split.subset(np.arange(min(len(split), FIXED_SAMPLES + SEARCHED_SAMPLES)))
        batches = self.evaluation_batches(first)
        inputs = np.concatenate([np.asarray(rotate_batch(batch, angles)[0]) for batch in batches])
        labels = np.concatenate([np.asarray(rotate_batch(batch, angles)[1]) for batch in batches])
        logits = np.concatenate([self.measured.predict_on_batch(part) for part in np.array_split(inputs, 4)])
        probabilities = np.asarray(keras.ops.softmax(logits.astype(np.float32)))
        folder = self.session.folder.samples
        event = write_samples(folder, step, inputs, labels, probabilities, angles)
        filters = f"filters-{step:08d}.png"
        draw_filters(first_kernels(self.measured.backbone), folder / filters)
        self.session.event("samples", step=step, filters=filters, **event)

    def between_epochs(self) -> None:
        """Probe as often as the recipe says."""
        epoch, rest = divmod(self.position.step, self.per_epoch)
        probes = enumerate(self.recipe.probe)
        due = [(i, p) for i, p in probes if p.every and epoch and not rest and epoch % p.every == 0]
        if due:
            with engine.under("float32"):
                with self.counting():
                    backbone = self._upright_backbone()
                run_missing_probes(self.session, self.dataset, backbone, self.recipe.augment, due, self.position.step)

    def _upright_backbone(self) -> keras.Model:
        """The backbone with its weights of now, for images larger than what oblique turns leave of them."""
        dataset = self.dataset
        shape = network_input(dataset, self.recipe.augment)
        backbone = build(self.recipe.backbone, shape, dataset.mean, dataset.std)
        backbone.set_weights(self.measured.backbone.get_weights())
        return backbone

    def export(self) -> keras.Model:
        """Write the models, the test of the pretext task and the first filters; return the backbone."""
        backbone = self._upright_backbone()
        save_model(backbone, self.session.folder.backbone)
        save_model(
            with_softmax(self.measured.backbone, self.measured.head, "rotnet"),
            self.session.folder.export / "rotnet.keras",
        )
        self.session.folder.figures.mkdir(exist_ok=True)
        draw_filters(first_kernels(backbone), self.session.folder.figures / "filters.png")
        self.test("rotation accuracy on test")
        return backbone

    def look_into_suitability(self) -> None:
        """Tell whether rotation is a sensible task for these images, once in the life of a run."""
        if not any(event["kind"] == "suitability" for event in self.session.earlier):
            step, batch = self.position.step, self.evaluation_batch
            look_into(self.session, self.dataset, self.measured, self.recipe.augment, batch, step)
