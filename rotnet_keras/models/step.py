"""How a training step is run: the batch fetched against the clock, the step in a graph, on one device or on several."""

import time
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

from rotnet_keras.engine import keras, tf

Function = Callable[[Any], dict[str, Any]]


class Timed(Protocol):
    """A Keras model with a clock on its input pipeline; see `TrainingModel`."""

    distribute_strategy: tf.distribute.Strategy
    metrics: list[keras.metrics.Metric]
    run_eagerly: bool
    jit_compile: Any
    steps_per_execution: int
    input_wait: float
    stop_save_requests: Callable[[], tuple[bool, bool]]
    agreed_requests: tuple[bool, bool]

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One update."""


def on_one_device(model: Timed, of_keras: Function) -> Function:
    """Keras's function of an iterator, but the batch is fetched outside of the graph.

    Args:
        of_keras: what other iterators than tf.data's are left to; their wait is not measured.
    """

    # One graph for all batches: the signature keeps a smaller last one from tracing another.
    @cache
    def step_on(element: Any) -> Function:
        if model.run_eagerly:
            return model.train_step
        return tf.function(model.train_step, input_signature=[element], autograph=False, jit_compile=model.jit_compile)

    def train_function(iterator: Any) -> dict[str, Any]:
        if not isinstance(iterator, tf.data.Iterator) or model.steps_per_execution > 1:
            return of_keras(iterator)
        results = step_on(iterator.element_spec)(_next(model, iterator))
        model.agreed_requests = model.stop_save_requests()
        return results

    return train_function


def on_replicas(model: Timed) -> Function:
    """A step of all replicas on what `devices.distributed_batches` gives, with the metrics of all their inputs together.

    What the processes wish goes round with them, so that all stop and save after the same step.
    """
    strategy = model.distribute_strategy

    names: list[str] = []

    def of_replica(batch: Any, requests: tf.Tensor) -> tf.Tensor:
        # What Keras returns are means over the inputs that this replica has seen since they were reset.
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


def _next(model: Timed, iterator: Any) -> Any:
    start = time.perf_counter()
    batch = next(iterator)
    model.input_wait += time.perf_counter() - start
    return batch


class Accumulating(Protocol):
    """A compiled Keras model that makes its inputs of a batch; see `TrainingModel`."""

    metrics: list[keras.metrics.Metric]
    optimizer: keras.optimizers.Optimizer
    trainable_variables: list[keras.Variable]
    compute_loss: Any
    compute_metrics: Any
    get_metrics_result: Any

    def __call__(self, inputs: tf.Tensor, training: bool) -> tf.Tensor:
        """Logits."""

    def training_inputs(self, data: Any, positions: tf.Tensor | None = None) -> tuple[tf.Tensor, ...]:
        """What the network is shown of a batch."""


def accumulated_step(model: Accumulating, data: Any, positions: tf.Tensor, parts: int) -> dict[str, tf.Tensor]:
    """One update by the mean gradient of the parts of a batch: that of the whole, but for batch normalisation.

    Args:
        data: images (N, S, S, C), or these with labels and weights; None stands for what is not there.
        positions: (N,) the images' positions in the batch of all replicas.
        parts: at most so many, of equal size or one image more.

    Returns:
        The metrics, as Keras's own step gives them.
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
