"""What there is before TensorFlow is loaded: the processor, of which Python knows little, and the environment."""

import os
import platform
from pathlib import Path

from rotnet_keras.errors import RotnetError


def check_backend() -> None:
    """Refuse an environment that wants another backend of Keras.

    Raises:
        RotnetError: it does.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise RotnetError(
            f"rotnet-keras needs Keras's TensorFlow backend, and KERAS_BACKEND asks for {backend!r}: unset it, or set "
            "it to 'tensorflow'"
        )


def processor() -> str:
    """Its name, or at least its architecture."""
    return _first("model name") or platform.processor() or platform.machine()


def processor_flags() -> list[str]:
    """Its instruction sets, as Linux calls them ("avx2", "amx_bf16"); none where that cannot be told."""
    return _first("flags").split()


def _first(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")
