"""Keras callbacks of the training loop: learning rate, work after each step, step events."""

import math
import time
from collections.abc import Callable
from typing import Any

from rotnet_keras.config.sections import Length, Optimizer, Schedule
from rotnet_keras.engine import keras
from rotnet_keras.errors import DivergedError
from rotnet_keras.training.schedules import learning_rate


class LearningRate(keras.callbacks.Callback):
    """Sets the learning rate of every step from the schedule, a function of the step alone.

    Args:
        optimizer: the recipe's section, with the peak learning rate.
        schedule: the recipe's section.
        length: the recipe's section that gives the total number of steps.
        images: images per epoch.
        first: the step at which the next `fit` starts.
    """

    def __init__(self, optimizer: Optimizer, schedule: Schedule, length: Length, images: int, first: int) -> None:
        super().__init__()
        self.peak = optimizer.learning_rate
        self.schedule = schedule
        self.steps_per_epoch = length.steps_per_epoch(images)
        self.total = length.total_steps(images)
        self.first = first

    def at(self, step: int) -> float:
        """The learning rate of a step."""
        return learning_rate(self.schedule, self.peak, step, self.steps_per_epoch, self.total)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Set the learning rate of the step that begins."""
        self.model.optimizer.learning_rate = self.at(self.first + batch)


class AfterStep(keras.callbacks.Callback):
    """Calls a function after each step with the number of steps done in this `fit`; ends `fit` if it returns True."""

    def __init__(self, call: Callable[[int], bool]) -> None:
        super().__init__()
        self.call = call

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Call the function."""
        if self.call(batch + 1):
            self.model.stop_training = True


# The loss is read for the progress line no more often. Reading it waits for the device, which else works ahead.
READ_SECONDS = 0.5


class StepEvents(keras.callbacks.Callback):
    """Reports the metrics averaged over every few steps, and ends a training whose loss is not finite.

    The loss is read when an event is due, and for the progress line twice a second at most: a GPU waits for nobody in
    the other steps. A loss that is not finite stays so in the average, and is seen at the next reading.

    Args:
        write: called with step, loss, accuracy, learning_rate, images_per_s, steps (how many were averaged) and
            data_wait (the share of the time, 0 to 1, in which the process waited for images; a GPU may have been at
            work meanwhile).
        first: the step at which the next `fit` starts.
        every: the number of steps that are averaged.
        batch: images per step.

    Attributes:
        latest: loss and accuracy of the present average, as last read; empty before the first reading.
    """

    def __init__(self, write: Callable[..., None], first: int, every: int, batch: int) -> None:
        super().__init__()
        self.write, self.first, self.every, self.batch = write, first, every, batch
        self.latest: dict[str, float] = {}
        self._logs: dict[str, Any] = {}
        self._pending, self._last_read = 0, -math.inf

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start the clock."""
        self._since, self._wait = time.perf_counter(), self.model.input_wait

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Write an event if one is due.

        Raises:
            DivergedError: the loss is infinite or NaN.
        """
        self.step = self.first + batch + 1
        self._logs = logs or {}
        self._pending += 1
        if self.step % self.every == 0:
            self.flush()
        elif time.perf_counter() - self._last_read >= READ_SECONDS:
            self._read()

    def _read(self) -> None:
        """Read the metrics from the device, which waits until it has done the step."""
        self.latest = {key: float(self._logs[key]) for key in ("loss", "accuracy")}
        self._last_read = time.perf_counter()
        if not math.isfinite(self.latest["loss"]):
            rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
            raise DivergedError(
                f"the loss became {self.latest['loss']} by step {self.step} at learning rate {rate:.4g}"
            )

    def flush(self) -> None:
        """Write an event for the steps since the last one, and start a new average.

        Raises:
            DivergedError: the loss is infinite or NaN.
        """
        if not self._pending:
            return
        self._read()
        now = time.perf_counter()
        self.write(
            step=self.step,
            **self.latest,
            learning_rate=float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            images_per_s=round(self._pending * self.batch / (now - self._since), 2),
            steps=self._pending,
            data_wait=round((self.model.input_wait - self._wait) / (now - self._since), 4),
        )
        self.model.reset_metrics()
        self._since, self._wait, self._pending = now, self.model.input_wait, 0
