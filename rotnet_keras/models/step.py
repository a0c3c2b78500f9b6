"""How a training step runs: on one device, on several replicas, or in parts where a batch does not fit into memory."""

import time
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

from rotnet_keras.engine import keras, tf

Function = Callable[[Any], dict[str, Any]]


class StepModel(Protocol):
    """What `on_one_device` and `on_replicas` need of a model; see `TrainingModel`."""

    distribute_strategy: tf.distribute.Strategy
    metrics: list[keras.metrics.Metric]
    run_eagerly: bool
    jit_compile: Any
    steps_per_execution: int
    input_wait: float
    stop_save_requests: Callable[[], tuple[bool, bool]]
    agreed_requests: tuple[bool, bool]

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Update the variables by one batch."""


def on_one_device(model: StepModel, keras_function: Function) -> Function:
    """A train function like Keras's, except that it fetches the batch outside the graph and measures the wait.

    Args:
        model: whose step it runs.
        keras_function: Keras's own, for iterators that are not tf.data's; their wait is not measured.
    """

    # One graph for all batches: with a signature, a smaller last batch does not trace another.
    @cache
    def step_on(element: Any) -> Function:
        if model.run_eagerly:
            return model.train_step
        return tf.function(model.train_step, input_signature=[element], autograph=False, jit_compile=model.jit_compile)

    def train_function(iterator: Any) -> dict[str, Any]:
        if not isinstance(iterator, tf.data.Iterator) or model.steps_per_execution > 1:
            return keras_function(iterator)
        results = step_on(iterator.element_spec)(_next(model, iterator))
        model.agreed_requests = model.stop_save_requests()
        return results

    return train_function


def on_replicas(model: StepModel) -> Function:
    """A train function that runs a step on all replicas, and returns the metrics over all their inputs.

    It takes batches of `devices.distributed_batches`. Stop and save requests are summed over the processes in the same
    step, so that all of them stop and save after the same step.
    """
    strategy = model.distribute_strategy

    names: list[str] = []

    def of_replica(batch: Any, requests: tf.Tensor) -> tf.Tensor:
        # Keras returns means over the inputs of this replica since the last reset.
        means, inputs = model.train_step(batch), tf.cast(model.metrics[0].count, tf.float32)
        names[:] = means
        sums = [tf.cast(mean, tf.float32) * inputs for mean in means.values()]
        return tf.concat([tf.stack([*sums, inputs]), requests], axis=0)

    def of_all(batch: Any, requests: tf.Tensor) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(of_replica, (batch, requests)), axis=None)

    compiled = tf.function(of_all, autograph=False, reduce_retracing=True)

    def train_function(iterator: Any) -> dict[str, Any]:
        batch = _next(model, iterator)
        requests = tf.constant(model.stop_save_requests(), tf.float32)
        *sums, inputs, stop, save = compiled(batch, requests).numpy().tolist()
        model.agreed_requests = (bool(stop), bool(save))
        return {name: value / inputs for name, value in zip(names, sums, strict=True)}

    return train_function


def _next(model: StepModel, iterator: Any) -> Any:
    start = time.perf_counter()
    batch = next(iterator)
    model.input_wait += time.perf_counter() - start
    return batch


class AccumulatingModel(Protocol):
    """What `accumulated_step` needs of a model; see `TrainingModel`."""

    metrics: list[keras.metrics.Metric]
    optimizer: keras.optimizers.Optimizer
    trainable_variables: list[keras.Variable]
    compute_loss: Any
    compute_metrics: Any
    get_metrics_result: Any

    def __call__(self, inputs: tf.Tensor, training: bool) -> tf.Tensor:
        """Compute the logits."""

    def training_inputs(self, data: Any, positions: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
        """Make the network's inputs from a batch."""


def accumulated_step(model: AccumulatingModel, data: Any, positions: tf.Tensor, parts: int) -> dict[str, tf.Tensor]:
    """Update the variables by the mean gradient over the parts of a batch.

    The parts are computed one after the other, which takes less memory than the whole batch. The gradient is that of
    the whole batch, except that batch normalisation uses the statistics of each part.

    Args:
        model: that is trained.
        data: images (N, S, S, C), or a tuple of images, labels and weights, where None stands for a missing one.
        positions: (N,) int32, the positions of the images in the batch of all replicas.
        parts: the number of parts, at most N; their sizes differ by at most one image.

    Returns:
        The metrics, as Keras's own step returns them.
    """
    count = tf.shape(positions)[0]
    parts = tf.minimum(parts, count)

    def add_part(i: tf.Tensor, gradients: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        rows = tf.range(i, count, parts)
        part = tf.nest.map_structure(lambda values: None if values is None else tf.gather(values, rows), data)
        inputs = model.training_inputs(part, tf.gather(positions, rows))
        x, y, weights = keras.utils.unpack_x_y_sample_weight(inputs)
        with tf.GradientTape() as tape:
            predicted = model(x, training=True)
            loss = model.compute_loss(x, y, predicted, weights, training=True)
            share = tf.cast(tf.size(rows) / count, loss.dtype)
            scaled = model.optimizer.scale_loss(loss * share)
        more = tape.gradient(scaled, model.trainable_variables)
        # Keras divides losses by the number of replicas, whose gradients it adds.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        model.metrics[0].update_state(loss * replicas, sample_weight=tf.shape(y)[0])
        model.compute_metrics(x, y, predicted, weights)
        return i + 1, [a + b for a, b in zip(gradients, more, strict=True)]

    zeros = [tf.zeros_like(variable.value) for variable in model.trainable_variables]
    _, gradients = tf.while_loop(lambda i, _: i < parts, add_part, (0, zeros), parallel_iterations=1)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    return model.get_metrics_result()
