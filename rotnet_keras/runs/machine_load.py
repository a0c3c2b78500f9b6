"""How busy processes, the machine and its NVIDIA GPUs are."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rotnet_keras.runs.events import SIDE_KIND, Event
from rotnet_keras.text import percent

if TYPE_CHECKING:
    import psutil


@dataclass(frozen=True)
class GpuLoad:
    """One GPU, as its driver sees it; a figure that the driver does not know is None.

    Attributes:
        index: its number, as in CUDA_VISIBLE_DEVICES.
        load: in percent.
        memory: in use, in bytes.
        total: memory, in bytes.
        temperature: in degrees Celsius.
        power: in watts.
    """

    index: int
    load: float | None
    memory: float | None
    total: float | None
    temperature: float | None
    power: float | None


@lru_cache(maxsize=1)
def _nvml() -> Any:
    """NVIDIA's library, initialised; None if there is no driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # pynvml defines its errors at run time, and a driver can fail in many ways.
        return None
    return pynvml


def read_gpus() -> list[GpuLoad]:
    """Return the present state of all GPUs; an empty list where there is no driver."""
    nvml = _nvml()
    if nvml is None:
        return []

    def figure(read: Any, *arguments: Any) -> Any:
        try:
            return read(*arguments)
        except nvml.NVMLError:
            return None

    found = []
    for index in range(figure(nvml.nvmlDeviceGetCount) or 0):
        handle = figure(nvml.nvmlDeviceGetHandleByIndex, index)
        if handle is None:
            continue
        memory, rates = figure(nvml.nvmlDeviceGetMemoryInfo, handle), figure(nvml.nvmlDeviceGetUtilizationRates, handle)
        power = figure(nvml.nvmlDeviceGetPowerUsage, handle)
        found.append(
            GpuLoad(
                index,
                None if rates is None else float(rates.gpu),
                None if memory is None else float(memory.used),
                None if memory is None else float(memory.total),
                figure(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
                None if power is None else power / 1000,
            )
        )
    return found


def own_gpus(gpus: list[GpuLoad], environment: Mapping[str, str]) -> list[GpuLoad]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES leaves to a process: all, if it is not set or names no numbers."""
    words = environment.get("CUDA_VISIBLE_DEVICES")
    if words is None:
        return gpus
    named = [word.strip() for word in words.split(",") if word.strip()]
    if not named or named == ["-1"]:
        return []
    if not all(word.isdigit() for word in named):
        return gpus
    return [gpu for gpu in gpus if gpu.index in set(map(int, named))]


class FamilyLoad:
    """The load of a process and all that it has started.

    Args:
        pid: of the process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._known: dict[int, psutil.Process] = {}

    def measure(self) -> tuple[float | None, int, int]:
        """Return the percent of one core since the last call, None at the first; the resident bytes; the processes.

        All are 0 if the process has ended.
        """
        import psutil

        first = self._pid not in self._known
        try:
            parent = self._known.setdefault(self._pid, psutil.Process(self._pid))
            family = [parent, *parent.children(recursive=True)]
        except psutil.Error:
            return 0.0, 0, 0
        # The objects must be kept: the CPU percentage of a process refers to the time since the previous call.
        self._known = {p.pid: self._known.get(p.pid, p) for p in family}
        cpu = resident = 0.0
        for process in self._known.values():
            try:
                cpu += process.cpu_percent()
                resident += process.memory_info().rss
            except psutil.Error:
                continue
        return None if first else cpu, int(resident), len(family)


def free_bytes(path: Path) -> float | None:
    """Return the free space of the disk that holds a path; None if it cannot be read."""
    try:
        return float(shutil.disk_usage(path).free)
    except OSError:
        return None


def system_summary(events: Iterable[Event]) -> dict[str, str]:
    """Say what a run has used of its machine, from its `system` events: "CPU of the run": "153 % of a core on average".

    An average weighs each event by the seconds that it stands for. What was not measured is left out.
    """
    measured = [e for e in events if e["kind"] == SIDE_KIND]
    found: dict[str, str] = {}
    cpu, memory = _values(measured, "cpu"), _values(measured, "memory")
    if cpu:
        found["CPU of the run"] = f"{percent(_mean(cpu) / 100, 0)} of a core on average"
    if memory:
        found["memory of the run"] = f"{gigabytes(max(value for value, _ in memory))} at most"
    for index in sorted({gpu["index"] for e in measured for gpu in e.get("gpus", ())}):
        own = [
            {**gpu, "seconds": e.get("seconds")} for e in measured for gpu in e.get("gpus", ()) if gpu["index"] == index
        ]
        words = []
        if load := _values(own, "load"):
            words.append(f"{percent(_mean(load) / 100, 0)} on average")
        if memory := _values(own, "memory"):
            words.append(f"{gigabytes(max(value for value, _ in memory))} at most")
        if power := _values(own, "power"):
            words.append(f"{_mean(power):.0f} W on average")
        if words:
            found[f"GPU {index}"] = ", ".join(words)
    return found


def gigabytes(count: float) -> str:
    """Return a number of bytes as text: "1.5 GB", "20 MB"."""
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"


def _values(events: Iterable[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """Return the known values of a field, each with the seconds that it stands for."""
    known = [(e.get(key), e.get("seconds")) for e in events]
    weighed = [(value, seconds if isinstance(seconds, (int, float)) else 1.0) for value, seconds in known]
    return [(value, seconds) for value, seconds in weighed if value is not None]


def _mean(values: list[tuple[float, float]]) -> float:
    return sum(value * seconds for value, seconds in values) / max(1e-9, sum(seconds for _, seconds in values))
