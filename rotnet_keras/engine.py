"""Settles how TensorFlow is started; every module that needs Keras imports this one first.

The environment has to be right before TensorFlow's first import, so this module's import sets it and
`configure` does what has to come after. Values that a user has set already are left alone.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from rotnet_keras.errors import RotnetError
from rotnet_keras.host import check_backend, processor_flags

check_backend()
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# TensorFlow leaves oneDNN off on some processors where it makes a training step 1.4 to 1.6 times as fast.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# How lines begin that TensorFlow's libraries print at any log level when they are loaded, and what a machine without a
# GPU says besides. Warnings and errors of other kinds are let through.
CHATTER = ("I0000", "WARNING: All log messages before absl::InitializeLog", "To enable the following instructions")
NO_DRIVER = "UNKNOWN ERROR (303)"


@contextmanager
def _without_chatter() -> Iterator[None]:
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            said.seek(0)
            for line in said.read().decode("utf-8", "replace").splitlines():
                if not line.startswith(CHATTER) and NO_DRIVER not in line:
                    print(line, file=sys.stderr)


with _without_chatter():
    import keras
    import tensorflow as tf

    # The first look for GPUs says the rest.
    tf.config.list_physical_devices()

__all__ = ["configure", "device_name", "dtype_policy", "keras", "resolve_precision", "tf"]

if keras.backend.backend() != "tensorflow":
    raise RotnetError(
        f"rotnet-keras needs Keras's TensorFlow backend, and Keras runs on {keras.backend.backend()!r} already: set "
        "KERAS_BACKEND to 'tensorflow' before it is imported"
    )


def configure(seed: int, precision: str, deterministic: bool = True) -> None:
    """Fix every global source of randomness and the dtype policy of the layers built from here on.

    Args:
        seed: feeds Python's, NumPy's and TensorFlow's global generators, which only the initial weights
            use; everything later is drawn from (seed, step).
        precision: "float32", "mixed_bfloat16" or "mixed_float16", no longer "auto".
        deterministic: let operations sum in a fixed order. XLA, and so a TPU, has no such gradient of a max pool.
    """
    for gpu in tf.config.list_physical_devices("GPU"):
        if not tf.config.experimental.get_memory_growth(gpu):
            tf.config.experimental.set_memory_growth(gpu, True)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)


def resolve_precision(asked: str) -> str:
    """What a recipe's precision comes to on this machine: the same, but for "auto"."""
    return _fastest_precision() if asked == "auto" else asked


def _fastest_precision() -> str:
    """The precision that convolutions train fastest in here, of those that lose no accuracy.

    A CPU gains from bfloat16 only if it has instructions for it: matrix units (AMX), or AVX-512's dot products
    (results/performance.md); without them it is slower than float32.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "mixed_bfloat16" if {"amx_bf16", "avx512_bf16"} & set(processor_flags()) else "float32"
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    weakest = min(detail.get("compute_capability", (0, 0)) for detail in details)
    if weakest >= (8, 0):
        return "mixed_bfloat16"
    return "mixed_float16" if weakest >= (7, 0) else "float32"


@contextmanager
def dtype_policy(precision: str) -> Iterator[None]:
    """Build layers that compute in some precision, whatever those around them do."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)


def device_name() -> str:
    """A word for what the training runs on, for example "1 GPU" or "CPU"."""
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus == 0:
        return "CPU"
    return f"{gpus} GPU" if gpus == 1 else f"{gpus} GPUs"
