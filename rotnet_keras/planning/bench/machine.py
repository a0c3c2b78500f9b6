"""Facts about the machine under test, and its fastest rate of matrix products."""

import os
import time
from typing import Any

import numpy as np

from rotnet_keras.engine import device_name, keras, tf
from rotnet_keras.host import processor

# Rows and columns of the matrices, and how many products are computed one after another: enough on a GPU that its
# start of a computation takes no share of the time.
MATRIX_SIDE, PRODUCTS = 2048, 1
GPU_MATRIX_SIDE, GPU_PRODUCTS = 8192, 10
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
    """Return the rate of the fastest of eight rounds of products of two square matrices, in GFLOP/s."""
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    side, products = (GPU_MATRIX_SIDE, GPU_PRODUCTS) if on_gpu else (MATRIX_SIDE, PRODUCTS)
    rng = np.random.default_rng(0)
    # A product of such matrices has elements of the size of its first factor's.
    a, b = (tf.cast(tf.constant(rng.standard_normal((side, side), np.float32)), dtype) for _ in range(2))
    b = b / tf.cast(side**0.5, dtype)

    def chained() -> tf.Tensor:
        result = a
        for _ in range(products):
            result = tf.matmul(result, b)
        # Fetching one element waits for an accelerator to finish, and costs nothing.
        return result[0, 0]

    function = tf.function(chained)
    function()
    best = min(_seconds(lambda: function().numpy()) for _ in range(REPEATS))
    return 2 * products * side**3 / best / 1e9


def _seconds(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
