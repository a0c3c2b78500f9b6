"""The machine that is measured, and the fastest it multiplies matrices."""

import os
import time
from typing import Any

import numpy as np

from rotnet_keras.engine import device_name, keras, tf
from rotnet_keras.host import processor

SIDE = 2048
REPEATS = 8


def facts() -> dict[str, Any]:
    """What the numbers hold for."""
    return {
        "processor": processor(),
        "cpus": os.cpu_count(),
        "device": device_name(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "1",
    }


def matmul_gflops(dtype: str) -> float:
    """GFLOP/s of the best of eight products of two 2048 x 2048 matrices."""
    rng = np.random.default_rng(0)
    a, b = (tf.cast(tf.constant(rng.normal(size=(SIDE, SIDE)), tf.float32), dtype) for _ in range(2))
    # One element is fetched, which waits for an accelerator and costs nothing.
    product = tf.function(lambda: tf.matmul(a, b)[0, 0])
    product()
    best = min(_seconds(lambda: product().numpy()) for _ in range(REPEATS))
    return 2 * SIDE**3 / best / 1e9


def _seconds(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
