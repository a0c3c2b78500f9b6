"""The load of NVIDIA GPUs."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, its load in percent, and its memory, temperature and power as text."""

    name: str
    load: float
    details: str


@lru_cache(maxsize=1)
def _nvml() -> Any:
    """NVIDIA's library, initialised; None if there is no driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # pynvml defines its errors at run time, and a driver can fail in many ways.
        return None
    return pynvml


def read_gpus() -> list[Gpu]:
    """The current state of all GPUs."""
    nvml = _nvml()
    if nvml is None:
        return []
    found = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            load = float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
            temperature = nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
            watts = nvml.nvmlDeviceGetPowerUsage(handle) / 1000
            used, total = memory.used / 2**30, memory.total / 2**30
            details = f"{load:.0f} %, {used:.1f} of {total:.0f} GB, {temperature} °C, {watts:.0f} W"
        except nvml.NVMLError as error:
            load, details = 0.0, str(error)
        found.append(Gpu(f"GPU {index}", load, details))
    return found
