"""The processor of this machine, of which Python knows little."""

import platform
from pathlib import Path


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
