"""What can be read without loading TensorFlow: the machine, its processor, the Keras backend, and limits on files."""

import hashlib
import os
import platform
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from rotnet_keras.errors import DataError, RotnetError

# A file that unpacks to less is read whatever its own size; one that unpacks to more, up to so many times its size.
FREE_BYTES, EXPANSION = 2**28, 50
LIMITS = "ROTNET_LIMITS"
LIMITS_HINT = f"If you trust the file, set the environment variable {LIMITS}=off"


def limits_apply() -> bool:
    """Whether files of others are held to limits of size and time: not with ROTNET_LIMITS=off."""
    return os.environ.get(LIMITS, "").lower() != "off"


def check_unpacked(what: str, packed: int, unpacked: int) -> None:
    """Make sure that a file does not unpack to far more than its size justifies.

    Args:
        what: the file, for the message.
        packed: its size in bytes.
        unpacked: the size of its contents in bytes, as it states it.

    Raises:
        DataError: it does.
    """
    if limits_apply() and unpacked > max(FREE_BYTES, EXPANSION * packed):
        raise DataError(
            f"{what}: unpacks from {packed / 1e6:,.1f} to {unpacked / 1e6:,.0f} MB, more than {EXPANSION} times its "
            f"size and more than {FREE_BYTES / 1e6:,.0f} MB. {LIMITS_HINT}"
        )


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


def python_command(*arguments: str, isolated: bool = False) -> list[str]:
    """Return the command that starts this Python with some arguments, such as "-m" and a module.

    All processes of this package are started by it. `-P` keeps the current folder out of the import path: a file there
    that is called like a module of Python would run otherwise.

    Args:
        *arguments: of Python.
        isolated: whether the environment and the user's own packages are left out as well (`-I`).
    """
    return [sys.executable, "-I" if isolated else "-P", *arguments]


def processor() -> str:
    """The name of the processor, or its architecture where the name is unknown."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def processor_flags() -> list[str]:
    """The processor's instruction sets by Linux's names, such as "avx2"; empty on other systems."""
    return _cpuinfo("flags").split()


# Files that container engines put into every container.
CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
# Linux's number of the first namespace of processes; containers have others.
FIRST_NAMESPACE = "pid:[4026531836]"
# An answer of the system's own commands takes milliseconds.
COMMAND_SECONDS = 5


class Machine(NamedTuple):
    """Where a process number has a meaning.

    Attributes:
        host: the host name, for people: it changes with the network on some systems.
        machine: a hash of what identifies the installed system; None where unknown, and in containers, whose image
            often gives the same to all of them.
        boot: identifies the time since the last boot; None where unknown.
        pid_namespace: tells containers of one machine apart; None where there are none.
    """

    host: str
    machine: str | None
    boot: str | None
    pid_namespace: str | None


def this_machine() -> Machine:
    """Return what identifies this machine. Only its host name is read more than once."""
    return Machine(os.uname().nodename, *_lasting_identity())


@lru_cache(maxsize=1)
def _lasting_identity() -> tuple[str | None, str | None, str | None]:
    if platform.system() == "Darwin":
        # One line of the answer is: "IOPlatformUUID" = "00000000-..."
        lines = _output("ioreg", "-rd1", "-c", "IOPlatformExpertDevice").splitlines()
        known = next((line.split('"')[3] for line in lines if line.count('"') == 4 and "IOPlatformUUID" in line), "")
        return _hashed(known), _output("sysctl", "-n", "kern.bootsessionuuid") or None, None
    try:
        namespace: str | None = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = None
    contained = namespace not in (None, FIRST_NAMESPACE) or any(mark.exists() for mark in CONTAINER_MARKS)
    known = "" if contained else _content("/etc/machine-id") or _content("/var/lib/dbus/machine-id")
    return _hashed(known), _content("/proc/sys/kernel/random/boot_id") or None, namespace


def _hashed(identity: str) -> str | None:
    """Return a hash, as run folders are shared with others and a machine's own id is confidential."""
    return hashlib.sha256(f"rotnet-keras {identity}".encode()).hexdigest()[:16] if identity else None


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _output(*command: str) -> str:
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip() if not found.returncode else ""


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")
