"""The norms of gradients and weights in the events of a run."""

import numpy as np
import pytest

from rotnet_keras.config.sections import Optimizer
from rotnet_keras.engine import keras, tf
from rotnet_keras.training.optimizers import build_optimizer, updating_optimizer


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_the_norm_of_the_gradient_is_that_before_clipping_and_scaling(name, dtype):
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", dtype=dtype)
    model = keras.Sequential([keras.Input((2,)), layer])
    model.compile(build_optimizer(Optimizer(name=name, clip=0.01, learning_rate=0.001)), loss="mse")
    model.optimizer.build(model.trainable_variables)
    with tf.device("cpu"):
        model.train_on_batch(np.array([[3.0, 4.0]], np.float32), np.array([[6.0]], np.float32))
    # d/dw (w . x - 6)^2 = 2 (7 - 6) (3, 4).
    assert float(updating_optimizer(model).gradient_norm.numpy()) == pytest.approx(10, rel=1e-3)
    assert all("gradient_norm" not in variable.path for variable in model.optimizer.variables)


@pytest.mark.long
def test_events_of_a_run_have_both_norms(finished):
    _, run = finished
    steps = [e for e in run.events() if e["kind"] == "step"]
    assert all(0 < e["gradient_norm"] < 1e4 and 0 < e["weight_norm"] < 1e4 for e in steps)
    assert all(len({e[name] for e in steps}) > len(steps) / 2 for name in ("gradient_norm", "weight_norm"))
    assert max(e["weight_norm"] for e in steps) < 3 * min(e["weight_norm"] for e in steps)
