"""What every model in training has: a clock on its input pipeline, a step on one device or several, stop_save_requests to stop."""

from collections.abc import Callable
from typing import Any

from rotnet_keras.engine import keras, tf
from rotnet_keras.models.step import accumulated_step, on_one_device, on_replicas


class TrainingModel(keras.Model):
    """A model in training. What it learns, and how that is scored, is a subclass's business.

    Args:
        seed: of what is drawn in a step, together with its number.

    Attributes:
        parts: that a batch is computed in, one after the other.
        input_wait: seconds that training has input_wait for its input pipeline so far.
        stop_save_requests: asked in every step whether to stop and whether to save after it.
        agreed_requests: what came of it: where several processes train together, what any of them wished.
    """

    train_function: Any

    def __init__(self, name: str, seed: int) -> None:
        super().__init__(name=name)
        self.seed = seed
        self.accumulation_parts = 1
        self.input_wait = 0.0
        self.stop_save_requests: Callable[[], tuple[bool, bool]] = lambda: (False, False)
        self.agreed_requests = (False, False)
        self._reset: Any = None

    @property
    def networks(self) -> list[keras.Model]:
        """What is trained."""
        raise NotImplementedError

    @property
    def passes_per_image(self) -> list[int]:
        """How often a step shows something of an input to each network."""
        return [1] * len(self.networks)

    def compile_for(self, optimizer: keras.optimizers.Optimizer, label_smoothing: float) -> None:
        """Compile it with the loss and the metrics of what it learns; one of these is called "accuracy"."""
        raise NotImplementedError

    def training_inputs(self, data: Any, positions: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
        """What the network is shown of a batch, what it is to answer and, if it was said, what each counts.

        Args:
            positions: (N,) the images' positions in the whole batch, if they are a part of one.
        """
        raise NotImplementedError

    def example_batch(self) -> tuple[Any, ...]:
        """The smallest batch there is."""
        raise NotImplementedError

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One update on a batch, or on this replica's part of one."""
        positions = self.image_positions(keras.utils.unpack_x_y_sample_weight(data)[0])
        if self.accumulation_parts > 1:
            return accumulated_step(self, data, positions, self.accumulation_parts)
        return super().train_step(self.training_inputs(data, positions))

    def step_seed(self) -> tf.Tensor:
        """(2,) int64: the seed of what is drawn in this step."""
        return tf.stack([self.seed, tf.cast(self.optimizer.iterations.value, tf.int64)])

    def image_positions(self, images: tf.Tensor) -> tf.Tensor | None:
        """The positions of images in the whole batch, (N,); None where they are all of it at once."""
        replicas, count = tf.distribute.get_strategy().num_replicas_in_sync, tf.shape(images)[0]
        if replicas == 1:
            return tf.range(count) if self.accumulation_parts > 1 else None
        first = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int32)
        return first + replicas * tf.range(count)

    def make_train_function(self, force: bool = False) -> None:
        """Make what runs a step, on one device or on all replicas."""
        if self.train_function is None or force:
            super().make_train_function(force)
            several = self.distribute_strategy.num_replicas_in_sync > 1
            self.train_function = on_replicas(self) if several else on_one_device(self, self.train_function)

    def reset_metrics(self) -> None:
        """Set all metrics back, on every replica by itself: what is reset for all at once is also read for all."""
        reset = super().reset_metrics
        if self.distribute_strategy.num_replicas_in_sync == 1:
            return reset()
        if self._reset is None:
            self._reset = tf.function(lambda: self.distribute_strategy.run(reset), autograph=False)
        self._reset()

    def build_as_compiled(self) -> None:
        """Make the variables that Keras leaves until the first batch, so that a strategy's scope holds them too."""
        self._symbolic_build(data_batch=self.example_batch())

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # Keras would fetch a batch to learn its shape, and average it over all processes.
        if self.distribute_strategy.num_replicas_in_sync == 1:
            super()._maybe_symbolic_build(iterator, data_batch)
