"""Identifying processes, so that neither a reused process number nor a changed clock is mistaken for the same one."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil

# The kernel counts start times in hundredths of a second.
TOLERANCE_SECONDS = 0.1


def process_identity(process: "psutil.Process") -> dict[str, Any]:
    """Return what identifies a process: its number, and the seconds from the machine's boot to its start.

    The time of day of its start would not do, because it changes when the clock is set.
    """
    import psutil

    return {"pid": process.pid, "since_boot": process.create_time() - psutil.boot_time()}


def is_running(identity: Mapping[str, Any]) -> bool:
    """Return whether the process with this identity is running on this machine."""
    if not _exists(identity.get("pid")):
        return False
    import psutil

    try:
        process = psutil.Process(int(identity["pid"]))
        difference = process_identity(process)["since_boot"] - float(identity["since_boot"])
        return abs(difference) < TOLERANCE_SECONDS and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, TypeError, ValueError, OverflowError):
        return False


def _exists(pid: Any) -> bool:
    """Return whether any process has this number: a list of ended runs needs no psutil, which takes long to import."""
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (OSError, TypeError, ValueError, OverflowError):
        return False
    return True
