"""A training from its first step to its last: batches in; events, evaluations and checkpoints out."""

import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import numpy as np

from rotnet_keras import engine
from rotnet_keras.config.loading import to_toml
from rotnet_keras.config.schema import ClassifyRecipe, PretrainRecipe
from rotnet_keras.config.transfer import TransferRecipe
from rotnet_keras.data.annotations import AnnotatedDataset
from rotnet_keras.data.batches import Replicas
from rotnet_keras.data.datasets import Dataset
from rotnet_keras.engine import tf
from rotnet_keras.errors import DivergedError, RecipeError, RotnetError
from rotnet_keras.models.base import TrainingModel
from rotnet_keras.training.callbacks import AfterStep, LearningRate, StepEvents
from rotnet_keras.training.checkpoints import Position, restore_checkpoint, save_checkpoint, step_checkpoints
from rotnet_keras.training.devices import (
    broadcast_from_chief,
    check_processes_agree,
    distributed_batches,
    local_replicas,
    strategy_for,
)
from rotnet_keras.training.optimizers import build_optimizer, using_averaged_weights
from rotnet_keras.training.session import Session
from rotnet_keras.training.setup import finish
from rotnet_keras.training.tensorboard import TensorBoard

TrainingRecipe = PretrainRecipe | ClassifyRecipe | TransferRecipe
# What TensorFlow raises in the processes that are left when one of several is gone.
PEER_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


def run_precision(session: Session, recipe: TrainingRecipe) -> str:
    """What the run computes in, from its first start to its last, wherever it is resumed."""
    asked = session.folder.facts().get("precision", recipe.train.precision)
    on_tpu = asked == "auto" and recipe.devices.strategy == "tpu"
    precision = "mixed_bfloat16" if on_tpu else engine.resolve_precision(asked)
    session.record(precision=precision)
    return precision


def configure_tensorflow(session: Session, recipe: TrainingRecipe) -> tf.distribute.Strategy:
    """Make TensorFlow ready for a training; the strategy of its devices."""
    precision = run_precision(session, recipe)
    engine.configure(recipe.seed, precision, deterministic=recipe.devices.strategy != "tpu")
    strategy = strategy_for(recipe.devices)
    session.stop.listen()
    return strategy


def compile_model(model: TrainingModel, recipe: TrainingRecipe) -> None:
    """Give a model the recipe's optimizer."""
    model.compile_for(build_optimizer(recipe.optimizer), recipe.train.label_smoothing)
    model.optimizer.build(model.trainable_variables)


DatasetT = TypeVar("DatasetT", bound=Dataset | AnnotatedDataset)


class Trainer(ABC, Generic[DatasetT]):
    """A model in training and how far it has come. What it learns from is a subclass's business.

    Args:
        strategy: of the devices that it is trained on.
        build: makes the model, with its first weights.
        images: those of one epoch.
        inputs: what the network is shown in a step.

    Attributes:
        what: the word for it, in progress bars.
        model: what is trained.
        evaluation_model: what is evaluated and exported: the same, or a copy on one device where it is trained on several.
        inputs_per_pass: what a device is shown at a time in a step.
    """

    what: str

    def __init__(
        self,
        session: Session,
        recipe: TrainingRecipe,
        dataset: DatasetT,
        strategy: tf.distribute.Strategy,
        build: Callable[[], TrainingModel],
        images: int,
        inputs: int,
    ) -> None:
        self.session, self.recipe, self.dataset, self.strategy, self.images = session, recipe, dataset, strategy, images
        self.total_steps = recipe.train.total_steps(images)
        self.steps_per_epoch = recipe.train.steps_per_epoch(images)
        self.replicas = self._replicas()
        self.inputs_per_pass = inputs // strategy.num_replicas_in_sync // recipe.train.accumulate
        self.log_every = recipe.train.steps_per_event(images)
        if not session.earlier:
            self._warn_of_sizes()
        with strategy.scope():
            self.model = model = build()
            model.accumulation_parts = recipe.train.accumulate
            compile_model(model, recipe)
            model.build_as_compiled()
        self.evaluation_model: TrainingModel = model
        if self.replicas:
            self.evaluation_model = build()
            compile_model(self.evaluation_model, recipe)
        of_networks = [variable for network in model.networks for variable in network.variables]
        self.variables = [*of_networks, *model.optimizer.variables]
        self.position = Position()
        self.tensorboard = TensorBoard(session.folder.path / "tensorboard") if recipe.train.tensorboard else None
        session.record(
            parameters=int(sum(np.prod(v.shape) for v in model.trainable_variables)),
            steps=self.total_steps,
            steps_per_epoch=self.steps_per_epoch,
            inputs_per_step=inputs,
        )

    @abstractmethod
    def batches(self, first: int, last: int) -> tf.data.Dataset:
        """What the model trains on in the steps from `first` up to, without, `last`."""

    def between_epochs(self) -> None:
        """What is due before the coming epoch."""

    def after_validation(self, step: int) -> None:
        """What is shown of the model beside its metrics."""

    def _replicas(self) -> Replicas | None:
        """Who shares the batches; None on a single device.

        Raises:
            RecipeError: the batches cannot be shared.
        """
        count, batch = self.strategy.num_replicas_in_sync, self.recipe.train.batch
        if count == 1:
            return None
        if batch % count:
            raise RecipeError(
                f"train.batch: {count} devices share a batch, and {batch} images cannot be shared evenly; choose a "
                f"multiple of {count}, or fewer devices with devices.replicas or devices.strategy='one'"
            )
        return Replicas(local_replicas(self.strategy, self.session.process), count)

    def run(self) -> None:
        """All of a run whose training is all there is: from the newest checkpoint to the report."""
        self.restore()
        self.train()
        if not self.session.process.chief:
            return
        with engine.dtype_policy("float32"), self.evaluation_weights():
            self.export()
        finish(self.session)

    @abstractmethod
    def export(self) -> Any:
        """Write the models, and the test."""

    def restore(self) -> None:
        """Go on from the newest intact checkpoint, if there is one; where several processes train, from the chief's."""
        self.position, damaged = restore_checkpoint(self.session.folder.checkpoints, self.variables)
        for word in damaged:
            self.session.warn(word)
        process = self.session.process
        if process.count > 1:
            check_processes_agree(
                self.strategy, process, {"recipe": to_toml(self.recipe), "data": self.dataset.fingerprint}
            )
            self.position.step = broadcast_from_chief(self.strategy, process, self.variables, self.position.step)
        if self.session.earlier:
            self.session.event("resume", step=self.position.step)
            self.session.say(f"Going on from step {self.position.step} of {self.total_steps}.")
            self.session.earlier = self.session.folder.events()

    def train(self) -> None:
        """Train to the last step, with what belongs to the end of every epoch."""
        while self.position.step < self.total_steps:
            if self.session.process.chief:
                self.between_epochs()
            boundary = min(self.total_steps, (self.position.step // self.steps_per_epoch + 1) * self.steps_per_epoch)
            self._fit_until(boundary)
            if self.position.step == boundary and self.session.process.chief:
                self._end_epoch()
            self.session.stop.check()

    def _warn_of_sizes(self) -> None:
        train = self.recipe.train
        if self.images < train.batch:
            told = f"train.batch is {train.batch}, but there are only {self.images} images: a step takes them all"
            self.session.warn(told)
        if self.log_every > train.log_every:
            told = f"of {self.total_steps:,} steps an event averages {self.log_every:,}, or there would be too many"
            self.session.warn(f"train.log_every is {train.log_every}, but {told}")

    def _fit_until(self, boundary: int) -> None:
        first, train = self.position.step, self.recipe.train
        batches: Any = self.batches(first, boundary)
        if self.replicas:
            batches = distributed_batches(self.strategy, batches)
        rate = LearningRate(self.recipe.optimizer, self.recipe.schedule, train, self.images, first)
        events = StepEvents(self._write_step, first, self.log_every, train.batch)
        saved = time.monotonic()

        def requests() -> tuple[bool, bool]:
            due = self.session.process.chief and time.monotonic() - saved >= 60 * train.checkpoint_minutes
            return self.session.stop.requested(), due

        def after_step(done: int) -> bool:
            nonlocal saved
            step, (stop, save) = first + done, self.model.agreed_requests
            self.session.console.progress(self.what, step, self.total_steps, _metrics_line(events.latest))
            if stop:
                self.session.stop.request()
            if step < boundary and (stop or save):
                events.flush()
                self.position.step = step
                self._save()
                saved = time.monotonic()
            return stop

        self.model.stop_save_requests = requests

        try:
            self.model.fit(
                batches,
                steps_per_epoch=boundary - first,
                verbose=0,
                shuffle=False,
                callbacks=[rate, events, AfterStep(after_step)],
            )
        except DivergedError as error:
            raise DivergedError(f"{error}; {self._divergence_advice()}") from None
        except PEER_LOST:
            if self.session.process.count == 1:
                raise
            traceback.print_exc()
            raise RotnetError(
                "another process of this training has ended or cannot be reached. Start all of them again, with "
                f"rotnet-keras resume: they go on from the last checkpoint. More in {self.session.folder.log}"
            ) from None
        events.flush()
        self.position.step = events.step

    def _write_step(self, step: int, steps: int, loss: float, accuracy: float, **values: float) -> None:
        for key, value in {"loss": loss, "accuracy": accuracy, "steps": 1.0}.items():
            self.position.sums[key] = self.position.sums.get(key, 0.0) + steps * value
        values |= {"loss": loss, "accuracy": accuracy}
        self.session.event("step", step=step, epoch=round(step / self.steps_per_epoch, 4), **values)
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
            with self.evaluation_weights():
                validation = self.evaluate(self.dataset.validation)
                self.after_validation(step)
            score = validation.get("score", validation["accuracy"])
            best = score > self.position.best
            self.position.best = max(self.position.best, score)
            epoch["validation"] = validation
            if self.tensorboard:
                self.tensorboard.write(step, "validation", validation)
        self.session.event("epoch", step=step, epoch=round(step / self.steps_per_epoch, 4), **epoch)
        self._save(best)
        words = _metrics_line(epoch)
        if "validation" in epoch:
            words += f"; validation {_metrics_line(epoch['validation'])}"
        self.session.say(
            f"Epoch {step / self.steps_per_epoch:.4g} of {self.total_steps / self.steps_per_epoch:.4g}: {words}"
        )

    @contextmanager
    def evaluation_weights(self) -> Iterator[None]:
        """While this lasts `measured` has the weights that count: with `optimizer.ema`, the averages."""
        with using_averaged_weights(self.model, self.recipe.optimizer):
            if self.replicas:
                for copy, trained in zip(self.evaluation_model.networks, self.model.networks, strict=True):
                    copy.set_weights(trained.get_weights())
            yield

    @abstractmethod
    def evaluate(self, split: Any, what: str = "") -> dict[str, Any]:
        """Loss, accuracy and more over a whole split of the data set; `what` shows how far a test has come."""

    def test(self, what: str) -> None:
        """Measure on the test split, once in the life of a run."""
        if self.dataset.test and not any(e["kind"] == "test" for e in self.session.earlier):
            self.session.event("test", step=self.position.step, **self.evaluate(self.dataset.test, what))

    def _save(self, best: bool = False) -> None:
        if not self.session.process.chief:
            return
        if not all(np.isfinite(np.asarray(v)).all() for v in self.model.trainable_variables):
            raise DivergedError(f"weights became infinite by step {self.position.step}; {self._divergence_advice()}")
        path = save_checkpoint(self.session.folder.checkpoints, self.variables, self.position, best)
        self.session.event("checkpoint", step=self.position.step, file=path.name, best=best)

    def _divergence_advice(self) -> str:
        good = step_checkpoints(self.session.folder.checkpoints)
        rate = self.recipe.optimizer.learning_rate / 3
        last = f"the last good checkpoint is {good[0].name}" if good else "there is no checkpoint yet"
        return f"{last}. Try a new run with optimizer.learning_rate={rate:.2g}."


def _metrics_line(metrics: dict[str, Any]) -> str:
    if "loss" not in metrics:
        return ""
    score = f", score {100 * metrics['score']:.1f} %" if "score" in metrics else ""
    return f"loss {metrics['loss']:.3f}, accuracy {100 * metrics['accuracy']:.1f} %{score}"
