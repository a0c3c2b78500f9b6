"""Identifying processes: neither a reused number, a changed clock nor a new host name makes one look like another."""

import os
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from rotnet_keras.host import Machine, this_machine

if TYPE_CHECKING:
    import psutil

# The kernel counts start times in hundredths of a second.
TOLERANCE_SECONDS = 0.1
# The keys of an identity.
IDENTITY_KEYS = ("pid", "since_boot", *Machine._fields)


class Process(Enum):
    """What can be seen of a process from here."""

    RUNNING = "running"
    GONE = "gone"
    # On another machine, or in another container: whether it runs cannot be seen.
    ELSEWHERE = "elsewhere"


def process_identity(process: "psutil.Process") -> dict[str, Any]:
    """Return what identifies a process of this machine: its number, the seconds from boot to its start, the machine.

    The time of day of its start would not do, because it changes when the clock is set.
    """
    return {"pid": process.pid, "since_boot": _since_boot(process), **this_machine()._asdict()}


def same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether two identities are of one process."""
    return all(first.get(key) == second.get(key) for key in IDENTITY_KEYS)


def is_running(identity: Mapping[str, Any]) -> bool:
    """Return whether the process with this identity is running on this machine."""
    return find(identity) is Process.RUNNING


def find(identity: Mapping[str, Any]) -> Process:
    """Return whether a process is running, gone or elsewhere.

    Process numbers are compared only within one boot of one machine and one container. What ran before this machine
    was booted is gone. Without a boot id, as in old folders and on some systems, a machine is known by its host name.

    Args:
        identity: what `process_identity` returned; other keys are ignored.
    """
    here = this_machine()
    boot = identity.get("boot")
    if boot and here.boot:
        if boot == here.boot:
            if identity.get("pid_namespace") != here.pid_namespace:
                return Process.ELSEWHERE
        else:
            return Process.GONE if _on_machine(identity, here) else Process.ELSEWHERE
    elif not _on_machine(identity, here):
        return Process.ELSEWHERE
    return Process.RUNNING if _has_number_and_start(identity) else Process.GONE


def _on_machine(identity: Mapping[str, Any], here: Machine) -> bool:
    if identity.get("machine") and here.machine:
        return bool(identity["machine"] == here.machine)
    return bool(identity.get("host", here.host) == here.host)


def _since_boot(process: "psutil.Process") -> float:
    import psutil

    return float(process.create_time() - psutil.boot_time())


def _has_number_and_start(identity: Mapping[str, Any]) -> bool:
    if not _exists(identity.get("pid")):
        return False
    import psutil

    try:
        process = psutil.Process(int(identity["pid"]))
        difference = _since_boot(process) - float(identity["since_boot"])
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
