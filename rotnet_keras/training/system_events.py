"""What a run uses of its machine, written by the run itself as sparse events."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from rotnet_keras.runs.machine_load import FamilyLoad, free_bytes, own_gpus, read_gpus

# Seconds that an event averages; after so many events it averages twice as many, and so on.
SECONDS, EVENTS = 15.0, 2000
# A last event is written if it averages at least so many seconds.
LEAST_SECONDS = 5.0


class SystemEvents:
    """A thread that writes `system` events until it is stopped. It takes some milliseconds of a core each time.

    Args:
        write: writes an event; called from the thread with the fields of one.
        folder: on the disk whose free space counts.
        earlier: how many such events the run has already.

    An event has `seconds`, the time that it averages; `cpu`, the percent of one core of the run's processes, and their
    `memory` in bytes; `machine_cpu` in percent of all cores; `machine_memory` in use, of `machine_total`, and
    `disk_free`, all in bytes; and for each GPU of the run its `index`, `load` in percent, `memory` in bytes,
    `temperature` in degrees Celsius and `power` in watts.
    """

    def __init__(self, write: Callable[..., None], folder: Path, earlier: int = 0) -> None:
        self._write, self._folder, self._count = write, folder, earlier
        self._family = FamilyLoad(os.getpid())
        self._stopped = threading.Event()
        self._since = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="system events", daemon=True)

    def start(self) -> None:
        """Begin to measure."""
        self._thread.start()

    def stop(self) -> None:
        """Write what was measured since the last event, and end the thread. No event is written after this."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def interval(self) -> float:
        """The seconds that the next event averages."""
        return SECONDS * 2 ** (self._count // EVENTS)

    def _run(self) -> None:
        self._family.measure()
        psutil.cpu_percent()
        while True:
            stopped = self._stopped.wait(max(0.0, self._since + self.interval - time.monotonic()))
            if not stopped or time.monotonic() - self._since >= LEAST_SECONDS:
                try:
                    self._write(**self._measure())
                except (OSError, ValueError):
                    return  # The disk is full, or the file is closed: the run itself says so.
                self._count += 1
            if stopped:
                return

    def _measure(self) -> dict[str, Any]:
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        cpu, resident, _ = self._family.measure()
        memory = psutil.virtual_memory()
        values: dict[str, Any] = {
            "seconds": round(seconds, 1),
            "cpu": None if cpu is None else round(cpu, 1),
            "memory": resident,
            "machine_cpu": psutil.cpu_percent(),
            "machine_memory": memory.total - memory.available,
            "machine_total": memory.total,
            "disk_free": free_bytes(self._folder),
        }
        gpus = [
            {"index": g.index, "load": g.load, "memory": g.memory, "temperature": g.temperature, "power": g.power}
            for g in own_gpus(read_gpus(), os.environ)
        ]
        return values | ({"gpus": gpus} if gpus else {})
