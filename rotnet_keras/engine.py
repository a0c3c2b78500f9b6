"""Starts TensorFlow: every module imports `keras` and `tf` from here.

Environment variables have to be set before TensorFlow's first import, so importing this module sets them. `configure`
does what comes after the import. Variables that the user has set are left as they are, but for the one that keeps HDF5
from loading libraries.
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
# On some processors TensorFlow leaves oneDNN off, although a training step is 1.4 to 1.6 times as fast with it.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# A weights file can name a filter, whose library HDF5 looks for in folders. TensorFlow sets the folder to "disable",
# which is one below the current folder. This value, which HDF5 reads once, turns filters of others off.
os.environ["HDF5_PLUGIN_PRELOAD"] = "::"

# TensorFlow's libraries print lines with these beginnings at any log level when they are loaded, and lines with this
# error on a machine without a GPU. Other warnings and errors are passed on.
STARTUP_PREFIXES = (
    "I0000",
    "WARNING: All log messages before absl::InitializeLog",
    "To enable the following instructions",
)
NO_GPU_DRIVER = "UNKNOWN ERROR (303)"


@contextmanager
def _without_startup_messages() -> Iterator[None]:
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            captured.seek(0)
            for line in captured.read().decode("utf-8", "replace").splitlines():
                if not line.startswith(STARTUP_PREFIXES) and NO_GPU_DRIVER not in line:
                    print(line, file=sys.stderr)


with _without_startup_messages():
    import keras
    import tensorflow as tf

    # The first listing of devices prints the rest of the messages.
    tf.config.list_physical_devices()

# Values of ONEDNN_MAX_CPU_ISA that rule out instructions for bfloat16.
WITHOUT_BFLOAT16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}

__all__ = ["configure", "device_name", "dtype_policy", "keras", "resolve_precision", "tf"]

if keras.backend.backend() != "tensorflow":
    raise RotnetError(
        f"rotnet-keras needs Keras's TensorFlow backend, and Keras was imported with {keras.backend.backend()!r}: set "
        "the environment variable KERAS_BACKEND to 'tensorflow' before importing keras"
    )


def configure(seed: int, precision: str, deterministic: bool = True) -> None:
    """Set all global seeds, and the dtype policy of the layers that are built from now on.

    Args:
        seed: of Python's, NumPy's and TensorFlow's global generators. Only the initial weights use them; everything
            later is drawn from (seed, step).
        precision: "float32", "mixed_bfloat16" or "mixed_float16"; not "auto", see `resolve_precision`.
        deterministic: make operations sum in a fixed order. False for XLA, and so for a TPU, which has no deterministic
            gradient of max pooling.
    """
    for gpu in tf.config.list_physical_devices("GPU"):
        if not tf.config.experimental.get_memory_growth(gpu):
            tf.config.experimental.set_memory_growth(gpu, True)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)


def resolve_precision(requested: str) -> str:
    """The precision that a recipe asks for, with "auto" replaced by the fastest one on this machine."""
    return _fastest_precision() if requested == "auto" else requested


def _fastest_precision() -> str:
    """The fastest precision on this machine among those that lose no accuracy.

    A CPU is faster in bfloat16 only if it has instructions for it, AMX or AVX-512's bfloat16 dot products, and slower
    than in float32 without them (measured in results/performance.md).
    """
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        # Where oneDNN is kept from these instructions, it fails on bfloat16.
        limited = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in WITHOUT_BFLOAT16
        able = {"amx_bf16", "avx512_bf16"} & set(processor_flags()) and not limited
        return "mixed_bfloat16" if able else "float32"
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    weakest = min(detail.get("compute_capability", (0, 0)) for detail in details)
    if weakest >= (8, 0):
        return "mixed_bfloat16"
    return "mixed_float16" if weakest >= (7, 0) else "float32"


@contextmanager
def dtype_policy(precision: str) -> Iterator[None]:
    """Set Keras's dtype policy for the block, for example `with dtype_policy("float32"):`."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)


def device_name() -> str:
    """What training runs on, for people: "CPU", "1 GPU", "4 GPUs"."""
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus == 0:
        return "CPU"
    return f"{gpus} GPU" if gpus == 1 else f"{gpus} GPUs"
