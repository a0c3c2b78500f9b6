"""The kind `pretrain`: learn from rotations, measure, export, probe, report."""

import time
from typing import Any

import numpy as np

from rotnet_keras import engine
from rotnet_keras.backbones import backbone as build_backbone
from rotnet_keras.batches import crop_size, evaluation_images, training_images
from rotnet_keras.callbacks import AfterStep, LearningRate, StepEvents
from rotnet_keras.checkpoints import Position, restore_checkpoint, save_checkpoint, step_checkpoints
from rotnet_keras.datasets import Dataset
from rotnet_keras.engine import keras
from rotnet_keras.errors import DivergedError
from rotnet_keras.exports import save_model
from rotnet_keras.figures import draw_filters
from rotnet_keras.fused import fused
from rotnet_keras.models import RotNet, first_kernels, rotation_loss, with_softmax
from rotnet_keras.optimizers import build_optimizer
from rotnet_keras.probing import check_probes, run_probes
from rotnet_keras.rotation import rotate_batch, rotated_size
from rotnet_keras.samples import SAMPLES, WORST, write_samples
from rotnet_keras.schema import PretrainRecipe
from rotnet_keras.session import Session
from rotnet_keras.stages import finish, prepare_data
from rotnet_keras.stores import Split
from rotnet_keras.tensorboard import TensorBoard

EVALUATION_BATCH = 125


def pretrain(session: Session) -> None:
    """Run a recipe of the kind `pretrain`."""
    recipe = session.recipe
    assert isinstance(recipe, PretrainRecipe)
    engine.configure(recipe.seed, run_precision(session, recipe))
    dataset = prepare_data(session)
    check_probes(dataset, recipe.probe)
    training = Pretraining(session, recipe, dataset)
    training.restore()
    training.train()
    with engine.under("float32"):
        backbone = training.export()
        if recipe.probe:
            probes = list(enumerate(recipe.probe))
            run_probes(session, dataset, backbone, recipe.augment, probes, training.position.step)
    finish(session)


def run_precision(session: Session, recipe: PretrainRecipe) -> str:
    """What the run computes in, from its first start to its last, wherever it is resumed."""
    precision = engine.precision_here(session.folder.facts().get("precision", recipe.train.precision))
    session.record(precision=precision)
    return precision


class Pretraining:
    """The model in training and how far it has come."""

    def __init__(self, session: Session, recipe: PretrainRecipe, dataset: Dataset) -> None:
        self.session, self.recipe, self.dataset = session, recipe, dataset
        self.images = len(dataset.train)
        self.total = recipe.train.total_steps(self.images)
        self.per_epoch = recipe.train.steps_per_epoch(self.images)
        angles = recipe.rotation.angles
        self.side = crop_size(recipe.augment, dataset.image_shape[0])
        backbone = fused(self._backbone(rotated_size(self.side, angles)))
        self.model = RotNet(backbone, angles, recipe.rotation.copies, recipe.seed)
        self.model.compile(
            build_optimizer(recipe.optimizer),
            loss=rotation_loss(len(angles), recipe.train.label_smoothing),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        )
        self.model.optimizer.build(self.model.trainable_variables)
        self.variables = [*self.model.backbone.variables, *self.model.head.variables, *self.model.optimizer.variables]
        self.position = Position()
        self.tensorboard = TensorBoard(session.folder.path / "tensorboard") if recipe.train.tensorboard else None
        session.record(
            parameters=int(sum(np.prod(v.shape) for v in self.model.trainable_variables)),
            steps=self.total,
            steps_per_epoch=self.per_epoch,
            inputs_per_step=recipe.train.batch * (len(angles) if recipe.rotation.copies == "all" else 1),
        )

    def _backbone(self, side: int) -> keras.Model:
        spec = self.recipe.backbone
        shape = (side, side, self.dataset.image_shape[2])
        options = {"blocks": spec.blocks, "width": spec.width, "mean": self.dataset.mean, "std": self.dataset.std}
        return build_backbone(spec.name, shape, **options)

    def restore(self) -> None:
        """Go on from the newest intact checkpoint, if there is one."""
        self.position, damaged = restore_checkpoint(self.session.folder.checkpoints, self.variables)
        for word in damaged:
            self.session.warn(word)
        if self.session.earlier:
            self.session.event("resume", step=self.position.step)
            self.session.say(f"Going on from step {self.position.step} of {self.total}.")
            self.session.earlier = self.session.folder.events()

    def train(self) -> None:
        """Train to the last step, with what belongs to the end of every epoch."""
        while self.position.step < self.total:
            self._probe_between_epochs()
            boundary = min(self.total, (self.position.step // self.per_epoch + 1) * self.per_epoch)
            self._fit_until(boundary)
            if self.position.step == boundary:
                self._end_epoch()
            self.session.stop.check()

    def _fit_until(self, boundary: int) -> None:
        first, train = self.position.step, self.recipe.train
        batches = training_images(
            self.dataset.train,
            self.recipe.augment,
            batch=train.batch,
            seed=self.recipe.seed,
            first=first,
            last=boundary,
        )
        rate = LearningRate(self.recipe.optimizer, self.recipe.schedule, train, self.images, first)
        events = StepEvents(self._write_step, first, train.log_every, train.batch)
        saved = time.monotonic()

        def after_step(done: int) -> bool:
            nonlocal saved
            step = first + done
            self.session.console.progress("pretraining", step, self.total, _in_words(events.latest))
            stop = self.session.stop.requested()
            due = time.monotonic() - saved >= 60 * train.checkpoint_minutes
            if step < boundary and (stop or due):
                events.flush()
                self.position.step = step
                self._save()
                saved = time.monotonic()
            return stop

        try:
            self.model.fit(batches, verbose=0, shuffle=False, callbacks=[rate, events, AfterStep(after_step)])
        except DivergedError as error:
            raise DivergedError(f"{error}; {self._way_on()}") from None
        events.flush()
        self.position.step = events.step

    def _write_step(self, step: int, steps: int, loss: float, accuracy: float, **values: float) -> None:
        for key, value in {"loss": loss, "accuracy": accuracy, "steps": 1.0}.items():
            self.position.sums[key] = self.position.sums.get(key, 0.0) + steps * value
        values |= {"loss": loss, "accuracy": accuracy}
        self.session.event("step", step=step, epoch=round(step / self.per_epoch, 4), **values)
        if self.tensorboard:
            self.tensorboard.write(step, "train", values)

    def _end_epoch(self) -> None:
        """Validate, show samples, write the epoch's event and a checkpoint, in this order.

        A kill anywhere in between makes the resumed run repeat the rest of the epoch and this with it.
        """
        step = self.position.step
        while self.dataset.notes:
            self.session.warn(self.dataset.notes.pop(0))
        steps = self.position.sums.pop("steps")
        epoch: dict[str, Any] = {key: value / steps for key, value in self.position.sums.items()}
        self.position.sums = {}
        best = False
        if self.dataset.validation:
            validation = self._evaluate(self.dataset.validation)
            best = validation["accuracy"] > self.position.best
            self.position.best = max(self.position.best, validation["accuracy"])
            epoch["validation"] = validation
            if self.tensorboard:
                self.tensorboard.write(step, "validation", validation)
            self._write_samples(step)
        self.session.event("epoch", step=step, epoch=round(step / self.per_epoch, 4), **epoch)
        self._save(best)
        words = _in_words(epoch)
        if "validation" in epoch:
            words += f"; validation {_in_words(epoch['validation'])}"
        self.session.say(f"Epoch {step / self.per_epoch:.4g} of {self.total / self.per_epoch:.4g}: {words}")

    def _evaluate(self, split: Split, what: str = "") -> dict[str, Any]:
        """Metrics over every copy of every image of a split; `what` shows how far it has come."""
        batches = evaluation_images(split, self.recipe.augment, batch=EVALUATION_BATCH)
        total = -(-len(split) // EVALUATION_BATCH)

        def after_batch(batch: int, logs: Any = None) -> None:
            if what:
                self.session.console.progress(what, batch + 1, total)

        watch = keras.callbacks.LambdaCallback(on_test_batch_end=after_batch)
        results = self.model.evaluate(batches, verbose=0, return_dict=True, callbacks=[watch])
        confusion = np.asarray(self.model.confusion.counts)
        per_angle = confusion.diagonal() / np.maximum(confusion.sum(axis=1), 1)
        return {
            "loss": float(results["loss"]),
            "accuracy": float(results["accuracy"]),
            "per_angle": per_angle.tolist(),
            "confusion": confusion.tolist(),
        }

    def _write_samples(self, step: int) -> None:
        split, angles = self.dataset.validation, self.recipe.rotation.angles
        assert split is not None
        first = split.subset(np.arange(min(len(split), SAMPLES + WORST)))
        batches = evaluation_images(first, self.recipe.augment, batch=EVALUATION_BATCH)
        inputs = np.concatenate([np.asarray(rotate_batch(batch, angles)[0]) for batch in batches])
        labels = np.concatenate([np.asarray(rotate_batch(batch, angles)[1]) for batch in batches])
        logits = np.concatenate([self.model.predict_on_batch(part) for part in np.array_split(inputs, 4)])
        probabilities = np.asarray(keras.ops.softmax(logits.astype(np.float32)))
        folder = self.session.folder.samples
        event = write_samples(folder, step, inputs, labels, probabilities, angles)
        filters = f"filters-{step:08d}.png"
        draw_filters(first_kernels(self.model.backbone), folder / filters)
        self.session.event("samples", step=step, filters=filters, **event)

    def _save(self, best: bool = False) -> None:
        if not all(np.isfinite(np.asarray(v)).all() for v in self.model.trainable_variables):
            raise DivergedError(f"weights became infinite by step {self.position.step}; {self._way_on()}")
        path = save_checkpoint(self.session.folder.checkpoints, self.variables, self.position, best)
        self.session.event("checkpoint", step=self.position.step, file=path.name, best=best)

    def _way_on(self) -> str:
        good = step_checkpoints(self.session.folder.checkpoints)
        rate = self.recipe.optimizer.learning_rate / 3
        last = f"the last good checkpoint is {good[0].name}" if good else "there is no checkpoint yet"
        return f"{last}. Try a new run with optimizer.learning_rate={rate:.2g}."

    def _probe_between_epochs(self) -> None:
        epoch, rest = divmod(self.position.step, self.per_epoch)
        probes = enumerate(self.recipe.probe)
        due = [(i, p) for i, p in probes if p.every and epoch and not rest and epoch % p.every == 0]
        if due:
            with engine.under("float32"):
                backbone = self._upright_backbone()
                run_probes(self.session, self.dataset, backbone, self.recipe.augment, due, self.position.step)

    def _upright_backbone(self) -> keras.Model:
        """The backbone with its weights of now, for images larger than what oblique turns leave of them."""
        backbone = self._backbone(self.side)
        backbone.set_weights(self.model.backbone.get_weights())
        return backbone

    def export(self) -> keras.Model:
        """Write the models, the test of the pretext task and the first filters; return the backbone."""
        backbone = self._upright_backbone()
        save_model(backbone, self.session.folder.backbone)
        rotnet = with_softmax(self.model.backbone, self.model.head, "rotnet")
        save_model(rotnet, self.session.folder.export / "rotnet.keras")
        self.session.folder.figures.mkdir(exist_ok=True)
        draw_filters(first_kernels(backbone), self.session.folder.figures / "filters.png")
        if self.dataset.test and not any(e["kind"] == "test" for e in self.session.earlier):
            self.session.event(
                "test", step=self.position.step, **self._evaluate(self.dataset.test, "rotation accuracy on test")
            )
        return backbone


def _in_words(metrics: dict[str, Any]) -> str:
    if "loss" not in metrics:
        return ""
    return f"loss {metrics['loss']:.3f}, accuracy {100 * metrics['accuracy']:.1f} %"
