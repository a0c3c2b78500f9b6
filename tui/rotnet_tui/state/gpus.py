"""NVIDIA's GPUs, where there are any."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, its load in percent, and the rest in words."""

    name: str
    load: float
    words: str


@lru_cache(maxsize=1)
def _nvml() -> Any:
    """NVIDIA's library, started; None where there is no driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # pynvml's errors are made while it runs; a driver can fail in many ways.
        return None
    return pynvml


def read_gpus() -> list[Gpu]:
    """All GPUs as they are now."""
    nvml = _nvml()
    if nvml is None:
        return []
    found = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            load = float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
            heat = nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
            watts = nvml.nvmlDeviceGetPowerUsage(handle) / 1000
            used, total = memory.used / 2**30, memory.total / 2**30
            words = f"{load:.0f} %, {used:.1f} of {total:.0f} GB, {heat} °C, {watts:.0f} W"
        except nvml.NVMLError as error:
            load, words = 0.0, str(error)
        found.append(Gpu(f"GPU {index}", load, words))
    return found
