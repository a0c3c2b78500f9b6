"""What can be read of the machine without loading TensorFlow: the processor and the Keras backend asked for."""

import os
import platform
from pathlib import Path

from rotnet_keras.errors import RotnetError


def check_backend() -> None:
    """Make sure that Keras will use its TensorFlow backend.

    Raises:
        RotnetError: the environment variable KERAS_BACKEND names another one.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise RotnetError(
            f"rotnet-keras needs Keras's TensorFlow backend, and KERAS_BACKEND is {backend!r}: unset it, or set it to "
            "'tensorflow'"
        )


def processor() -> str:
    """The name of the processor, or its architecture where the name is unknown."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def processor_flags() -> list[str]:
    """The processor's instruction sets by Linux's names, such as "avx2"; empty on other systems."""
    return _cpuinfo("flags").split()


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")
