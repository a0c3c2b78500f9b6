"""Facts about the machine under test, and its fastest rate of matrix products."""

import os
import time
from typing import Any

import numpy as np

from rotnet_keras.engine import device_name, keras, tf
from rotnet_keras.host import processor

# Rows and columns of the matrices.
MATRIX_SIDE = 2048
REPEATS = 8


def machine_facts() -> dict[str, Any]:
    """Return the hardware and software that the measurements hold for."""
    return {
        "processor": processor(),
        "cpus": os.cpu_count(),
        "device": device_name(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "1",
    }


def matrix_product_gflops(dtype: str) -> float:
    """Return the rate of the fastest of eight products of two 2048 x 2048 matrices, in GFLOP/s."""
    rng = np.random.default_rng(0)
    a, b = (tf.cast(tf.constant(rng.normal(size=(MATRIX_SIDE, MATRIX_SIDE)), tf.float32), dtype) for _ in range(2))
    # Fetching one element waits for an accelerator to finish, and costs nothing.
    product = tf.function(lambda: tf.matmul(a, b)[0, 0])
    product()
    best = min(_seconds(lambda: product().numpy()) for _ in range(REPEATS))
    return 2 * MATRIX_SIDE**3 / best / 1e9


def _seconds(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
