"""The base of all models in training: batches in parts, stop and save requests, replicas, and the wait for data."""

from collections.abc import Callable
from typing import Any

from rotnet_keras.engine import keras, tf
from rotnet_keras.models.step import accumulated_step, on_one_device, on_replicas


class TrainingModel(keras.Model):
    """A model in training. Subclasses define its inputs, its loss and its metrics.

    Args:
        name: of the Keras model.
        seed: of the random numbers of a step, together with the step's number.

    Attributes:
        accumulation_parts: the parts that a batch is split into, computed one after the other; 1 by default.
        input_wait: seconds that training has waited for the input pipeline so far.
        stop_save_requests: called in every step; whether to stop, and whether to save a checkpoint, after the step.
        agreed_requests: the requests after the last step. With several processes, a request of any of them counts.
    """

    train_function: Any

    def __init__(self, name: str, seed: int) -> None:
        # Keras would cast pixels to the precision of the computation, in which 16 bits are too many.
        super().__init__(name=name, autocast=False)
        self.seed = seed
        self.accumulation_parts = 1
        self.input_wait = 0.0
        self.stop_save_requests: Callable[[], tuple[bool, bool]] = lambda: (False, False)
        self.agreed_requests = (False, False)
        self._reset: Any = None

    @property
    def networks(self) -> list[keras.Model]:
        """The functional models that are trained, in a fixed order; a checkpoint holds their variables."""
        raise NotImplementedError

    @property
    def passes_per_image(self) -> list[int]:
        """The inputs of each network per input of a step, in the order of `networks`."""
        return [1] * len(self.networks)

    def compile_for(self, optimizer: keras.optimizers.Optimizer, label_smoothing: float) -> None:
        """Compile the model with its loss and its metrics, of which one is called "accuracy".

        Args:
            optimizer: of the training.
            label_smoothing: in [0, 1).
        """
        raise NotImplementedError

    def training_inputs(self, data: Any, positions: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
        """Make the inputs of the network, their targets and any sample weights from a batch of the data set.

        Args:
            data: a batch of N images, with labels and sample weights where there are any.
            positions: (N,) int32, the positions of the images in the whole batch, where they are only a part of it.
        """
        raise NotImplementedError

    def example_batch(self) -> tuple[Any, ...]:
        """A batch of size 1 of zeros, to build the model from."""
        raise NotImplementedError

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Update the variables by one batch, or by this replica's part of it, and return the metrics."""
        positions = self.image_positions(keras.utils.unpack_x_y_sample_weight(data)[0])
        if self.accumulation_parts > 1:
            return accumulated_step(self, data, positions, self.accumulation_parts)
        return super().train_step(self.training_inputs(data, positions))

    def step_seed(self) -> tf.Tensor:
        """The seed of this step's random numbers: (2,) int64, the model's seed and the step."""
        return tf.stack([self.seed, tf.cast(self.optimizer.iterations.value, tf.int64)])

    def image_positions(self, images: tf.Tensor) -> tf.Tensor | None:
        """The positions (N,) of these images in the whole batch; None where they are the whole batch."""
        replicas, count = tf.distribute.get_strategy().num_replicas_in_sync, tf.shape(images)[0]
        if replicas == 1:
            return tf.range(count) if self.accumulation_parts > 1 else None
        first = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int32)
        return first + replicas * tf.range(count)

    def make_train_function(self, force: bool = False) -> None:
        """Make the function that runs a step, on one device or on all replicas."""
        if self.train_function is None or force:
            super().make_train_function(force)
            several = self.distribute_strategy.num_replicas_in_sync > 1
            self.train_function = on_replicas(self) if several else on_one_device(self, self.train_function)

    def reset_metrics(self) -> None:
        """Reset all metrics, on each replica by itself: resetting them for all replicas would also aggregate them."""
        reset = super().reset_metrics
        if self.distribute_strategy.num_replicas_in_sync == 1:
            return reset()
        if self._reset is None:
            self._reset = tf.function(lambda: self.distribute_strategy.run(reset), autograph=False)
        self._reset()

    def build_as_compiled(self) -> None:
        """Build what Keras would build at the first batch, so that these variables are within the strategy's scope."""
        self._symbolic_build(data_batch=self.example_batch())

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Keras would fetch a batch for its shape, and average it over all processes.
        if self.distribute_strategy.num_replicas_in_sync == 1:
            super()._maybe_symbolic_build(iterator, data_batch)
