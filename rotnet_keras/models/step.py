"""How a training step is run: the batch fetched against the clock, the step in a graph, on one device or on several."""

import time
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

from rotnet_keras.engine import keras, tf

Function = Callable[[Any], dict[str, Any]]


class Timed(Protocol):
    """A Keras model with a clock on its input pipeline; see `Trained`."""

    distribute_strategy: tf.distribute.Strategy
    metrics: list[keras.metrics.Metric]
    run_eagerly: bool
    jit_compile: Any
    steps_per_execution: int
    waited: float
    wishes: Callable[[], tuple[bool, bool]]
    granted: tuple[bool, bool]

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
        model.granted = model.wishes()
        return results

    return train_function


def on_replicas(model: Timed) -> Function:
    """A step of all replicas on what `devices.shared_out` gives, with the metrics of all their inputs together.

    What the processes wish goes round with them, so that all stop and save after the same step.
    """
    strategy = model.distribute_strategy

    names: list[str] = []

    def of_replica(batch: Any, wishes: tf.Tensor) -> tf.Tensor:
        # What Keras returns are means over the inputs that this replica has seen since they were reset.
        means, inputs = model.train_step(batch), tf.cast(model.metrics[0].count, tf.float32)
        names[:] = means
        sums = [tf.cast(mean, tf.float32) * inputs for mean in means.values()]
        return tf.concat([tf.stack([*sums, inputs]), wishes], axis=0)

    def of_all(batch: Any, wishes: tf.Tensor) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(of_replica, (batch, wishes)), axis=None)

    compiled = tf.function(of_all, autograph=False, reduce_retracing=True)

    def train_function(iterator: Any) -> dict[str, Any]:
        batch = _next(model, iterator)
        wishes = tf.constant(model.wishes(), tf.float32)
        *sums, inputs, stop, save = compiled(batch, wishes).numpy().tolist()
        model.granted = (bool(stop), bool(save))
        return {name: value / inputs for name, value in zip(names, sums, strict=True)}

    return train_function


def _next(model: Timed, iterator: Any) -> Any:
    start = time.perf_counter()
    batch = next(iterator)
    model.waited += time.perf_counter() - start
    return batch
