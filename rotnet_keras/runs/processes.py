"""Which process works on something, told so that neither a later one of its number nor a changed clock deceives."""

from collections.abc import Mapping
from typing import Any

import psutil

# The kernel counts in hundredths of a second.
SAME_SECONDS = 0.1


def marks(process: psutil.Process) -> dict[str, Any]:
    """What a file keeps of a process: its number, and the seconds from the machine's boot to its start.

    The time of day at which it started would not do: it changes when the clock is set.
    """
    return {"pid": process.pid, "since_boot": process.create_time() - psutil.boot_time()}


def runs(kept: Mapping[str, Any]) -> bool:
    """Whether the process that was kept runs on this machine."""
    try:
        process = psutil.Process(int(kept["pid"]))
        apart = marks(process)["since_boot"] - float(kept["since_boot"])
        return abs(apart) < SAME_SECONDS and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, TypeError, ValueError, OverflowError):
        return False
