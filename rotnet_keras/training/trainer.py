"""The trainer: fits a model from the first step to the last, and writes events, evaluations and checkpoints."""

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
from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import DivergedError, RecipeError, RotnetError
from rotnet_keras.models.base import TrainingModel
from rotnet_keras.text import percent
from rotnet_keras.training.callbacks import AfterStep, LearningRate, StepEvents
from rotnet_keras.training.checkpoints import Position, restore_checkpoint, save_checkpoint, step_checkpoints
from rotnet_keras.training.devices import (
    broadcast_from_chief,
    check_processes_agree,
    distributed_batches,
    local_replicas,
    strategy_for,
)
from rotnet_keras.training.optimizers import build_optimizer, updating_optimizer, using_averaged_weights
from rotnet_keras.training.session import Session
from rotnet_keras.training.setup import finish
from rotnet_keras.training.tensorboard import TensorBoard

TrainingRecipe = PretrainRecipe | ClassifyRecipe | TransferRecipe
# TensorFlow raises these in the remaining processes when one of several has ended.
LOST_PROCESS_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


def run_precision(session: Session, recipe: TrainingRecipe) -> str:
    """The precision of a run, decided at its first start and read from `run.json` on every resume.

    "auto" depends on the hardware; a run resumed on another machine must not change its precision.
    """
    requested = session.folder.facts().get("precision", recipe.train.precision)
    on_tpu = requested == "auto" and recipe.devices.strategy == "tpu"
    precision = "mixed_bfloat16" if on_tpu else engine.resolve_precision(requested)
    session.record(precision=precision)
    return precision


def configure_tensorflow(session: Session, recipe: TrainingRecipe) -> tf.distribute.Strategy:
    """Set precision, seeds and devices before anything is built, and return the distribution strategy.

    Raises:
        RecipeError: the devices that the recipe asks for are not available.
    """
    precision = run_precision(session, recipe)
    engine.configure(recipe.seed, precision, recipe.devices.deterministic and recipe.devices.strategy != "tpu")
    strategy = strategy_for(recipe.devices)
    session.stop.listen()
    return strategy


def compile_model(model: TrainingModel, recipe: TrainingRecipe) -> None:
    """Compile a model with the optimizer and the label smoothing of a recipe."""
    model.compile_for(build_optimizer(recipe.optimizer), recipe.train.label_smoothing)
    # Keras leaves XLA off where operations are deterministic. On a CPU, XLA's convolutions are slow. It cannot compile
    # the parts of a batch, whose sizes depend on the batch.
    if recipe.devices.strategy != "tpu" and (recipe.train.accumulate > 1 or not tf.config.list_physical_devices("GPU")):
        model.jit_compile = False
    model.optimizer.build(model.trainable_variables)


DatasetT = TypeVar("DatasetT", bound=Dataset | AnnotatedDataset)


class Trainer(ABC, Generic[DatasetT]):
    """Trains a model on a data set, epoch by epoch, and resumes from checkpoints. Subclasses say on which batches.

    Args:
        strategy: the distribution strategy of the devices.
        build: makes the model with its initial weights; called within the strategy's scope.
        images: images per epoch.
        inputs: inputs to the network per step, for example four rotated copies of each image of the batch.

    Attributes:
        progress_label: the label of the progress bar.
        model: the model that is trained.
        evaluation_model: the model that is evaluated and exported: `model` itself, or, with several replicas, a copy on
            one device.
        inputs_per_pass: inputs that one device processes in one forward pass.
        position: the steps done so far and the metrics of the present epoch.
        variables: what a checkpoint holds: the variables of the networks, then those of the optimizer.
    """

    progress_label: str

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
            self._warn_about_sizes()
        # Keras draws initial weights from Python's generator, and others may have drawn from it since the start.
        keras.utils.set_random_seed(recipe.seed)
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
        weights = [variable.value for variable in model.trainable_variables]
        self._weight_norm = tf.function(lambda: tf.linalg.global_norm([tf.cast(w, "float32") for w in weights]))
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
        """The training batches of the steps `first` to `last` - 1."""

    def between_epochs(self) -> None:
        """A hook that runs before each epoch, in the chief only."""

    def after_validation(self, step: int) -> None:
        """A hook that runs after each validation, for example to write sample images."""

    def _replicas(self) -> Replicas | None:
        """The replicas of this process that share each batch; None on a single device.

        Raises:
            RecipeError: the batch size is not a multiple of the number of replicas.
        """
        count, batch = self.strategy.num_replicas_in_sync, self.recipe.train.batch
        if count == 1:
            return None
        if batch % count:
            raise RecipeError(
                f"train.batch: expected a multiple of {count}, because {count} devices share each batch; got {batch}. "
                "Change it, or use fewer devices with devices.replicas or devices.strategy='one'"
            )
        return Replicas(local_replicas(self.strategy, self.session.process), count)

    def run(self) -> None:
        """Resume from the newest checkpoint, train to the last step, export, and write the report."""
        self.restore()
        self.train()
        if not self.session.process.chief:
            return
        with engine.dtype_policy("float32"), self.evaluation_weights():
            self.export()
        finish(self.session)

    @abstractmethod
    def export(self) -> Any:
        """Write the exported models, and evaluate on the test split."""

    def restore(self) -> None:
        """Load the newest intact checkpoint, if there is one. With several processes, all get the chief's variables.

        Raises:
            DataError: the processes have different recipes or data.
        """
        self.position, damaged = restore_checkpoint(self.session.folder.checkpoints, self.variables)
        for message in damaged:
            self.session.warn(message)
        process = self.session.process
        if process.count > 1:
            check_processes_agree(
                self.strategy, process, {"recipe": to_toml(self.recipe), "data": self.dataset.fingerprint}
            )
            self.position.step = broadcast_from_chief(self.strategy, process, self.variables, self.position.step)
        if self.session.earlier:
            self.session.event("resume", step=self.position.step)
            self.session.say(f"Resuming at step {self.position.step} of {self.total_steps}.")
            self.session.earlier = self.session.folder.events()

    def train(self) -> None:
        """Train to the last step; validate and save a checkpoint at the end of every epoch.

        Raises:
            RunStopped: a stop was requested; a checkpoint of the present step is saved.
            DivergedError: the loss or a weight became infinite or NaN.
        """
        while self.position.step < self.total_steps:
            if self.session.process.chief:
                self.between_epochs()
            boundary = min(self.total_steps, (self.position.step // self.steps_per_epoch + 1) * self.steps_per_epoch)
            self._fit_until(boundary)
            if self.position.step == boundary and self.session.process.chief:
                self._end_epoch()
            self.session.stop.check()

    def _warn_about_sizes(self) -> None:
        train = self.recipe.train
        if self.images < train.batch:
            self.session.warn(
                f"train.batch is {train.batch}, but there are only {self.images} training images: every step uses all "
                "of them"
            )
        if self.log_every > train.log_every:
            self.session.warn(
                f"train.log_every is {train.log_every}, but a run of {self.total_steps:,} steps would write too many "
                f"events: each event averages {self.log_every:,} steps"
            )

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
            self.session.console.progress(self.progress_label, step, self.total_steps, _metrics_text(events.latest))
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
            events.flush()
        except DivergedError as error:
            raise DivergedError(f"{error}; {self._divergence_advice()}") from None
        except LOST_PROCESS_ERRORS:
            if self.session.process.count == 1:
                raise
            traceback.print_exc()
            raise RotnetError(
                "another process of this training has ended or cannot be reached. Start all processes again with "
                f"rotnet-keras resume; they continue from the last checkpoint. Details are in {self.session.folder.log}"
            ) from None
        self.position.step = events.step

    def _write_step(self, step: int, steps: int, loss: float, accuracy: float, **values: float) -> None:
        for key, value in {"loss": loss, "accuracy": accuracy, "steps": 1.0}.items():
            self.position.sums[key] = self.position.sums.get(key, 0.0) + steps * value
        values |= {"loss": loss, "accuracy": accuracy, **self._norms()}
        self.session.event("step", step=step, epoch=round(step / self.steps_per_epoch, 4), **values)
        if self.tensorboard:
            self.tensorboard.write(step, "train", values)

    def _norms(self) -> dict[str, float]:
        """The Euclidean norms of the last step's gradient, where it is known, and of all trainable weights."""
        gradient = updating_optimizer(self.model).gradient_norm
        found = {} if gradient is None else {"gradient_norm": float(gradient.numpy())}
        found["weight_norm"] = float(self._weight_norm())
        return {name: float(f"{value:.6g}") for name, value in found.items()}

    def _end_epoch(self) -> None:
        """Validate, write samples, write the epoch's event, and save a checkpoint, in this order.

        A run that is killed in between has no checkpoint of this step: the resumed run repeats the end of the epoch.
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
        text = _metrics_text(epoch)
        if "validation" in epoch:
            text += f"; validation {_metrics_text(epoch['validation'])}"
        self.session.say(
            f"Epoch {step / self.steps_per_epoch:.4g} of {self.total_steps / self.steps_per_epoch:.4g}: {text}"
        )

    @contextmanager
    def evaluation_weights(self) -> Iterator[None]:
        """Give `evaluation_model` the weights to evaluate for the block: their EMA where `optimizer.ema` is set."""
        with using_averaged_weights(self.model, self.recipe.optimizer):
            if self.replicas:
                for copy, trained in zip(self.evaluation_model.networks, self.model.networks, strict=True):
                    copy.set_weights(trained.get_weights())
            yield

    @abstractmethod
    def evaluate(self, split: Any, label: str = "") -> dict[str, Any]:
        """The loss, the accuracy and further metrics over a whole split.

        Args:
            split: a split of the data set.
            label: the label of a progress bar; without one, none is shown.
        """

    def test(self, label: str) -> None:
        """Evaluate on the test split, unless an earlier process of this run already has.

        Args:
            label: the label of the progress bar.
        """
        if self.dataset.test and not any(e["kind"] == "test" for e in self.session.earlier):
            self.session.event("test", step=self.position.step, **self.evaluate(self.dataset.test, label))

    def _save(self, best: bool = False) -> None:
        if not self.session.process.chief:
            return
        if not all(np.isfinite(np.asarray(v)).all() for v in self.model.trainable_variables):
            raise DivergedError(f"weights became infinite by step {self.position.step}; {self._divergence_advice()}")
        path = save_checkpoint(self.session.folder.checkpoints, self.variables, self.position, best)
        self.session.event("checkpoint", step=self.position.step, file=path.name, best=best)

    def _divergence_advice(self) -> str:
        checkpoints = step_checkpoints(self.session.folder.checkpoints)
        rate = self.recipe.optimizer.learning_rate / 3
        last = f"the last good checkpoint is {checkpoints[0].name}" if checkpoints else "there is no checkpoint yet"
        return f"{last}. Try a new run with optimizer.learning_rate={rate:.2g}."


def _metrics_text(metrics: dict[str, Any]) -> str:
    if "loss" not in metrics:
        return ""
    score = f", score {percent(metrics['score'])}" if "score" in metrics else ""
    return f"loss {metrics['loss']:.3f}, accuracy {percent(metrics['accuracy'])}{score}"
