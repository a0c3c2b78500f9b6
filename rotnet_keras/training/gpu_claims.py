"""Keeps the processes of a training apart: each of several uses GPUs that no other of them uses.

NCCL, which sums their gradients, hangs or fails where two processes are on one GPU. So a process of several claims its
GPUs before TensorFlow sees them. A claim is a name in Linux's abstract namespace of sockets: it belongs to one process
of the machine, takes no file, and ends with the process.
"""

import json
import os
import socket

from rotnet_keras.errors import RecipeError

ADVICE = (
    "Give each process GPUs of its own, by srun --gpus-per-task=1 or by CUDA_VISIBLE_DEVICES, or start one process for "
    "each machine, which uses all its GPUs"
)
# Held until the process ends.
_claims: list[socket.socket] = []


def visible_gpus() -> list[str]:
    """Return the UUIDs of the GPUs that this process may use, in the order of CUDA_VISIBLE_DEVICES; empty without any.

    A name that the driver does not know, such as that of a part of a GPU, stands for itself.
    """
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        found = [
            str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index)))
            for index in range(pynvml.nvmlDeviceGetCount())
        ]
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return found
    chosen = []
    for name in filter(None, map(str.strip, named.split(","))):
        if name == "-1":
            break
        chosen.append(found[int(name)] if name.isdigit() and int(name) < len(found) else name)
    return chosen


def claim_gpus(uuids: list[str]) -> None:
    """Claim GPUs for this process, which trains together with others.

    Raises:
        RecipeError: another process of this kind has one of them.
    """
    for uuid in uuids:
        held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            held.bind(f"\0rotnet-keras-{uuid}")
        except OSError:
            held.close()
            raise RecipeError(
                f"devices.strategy: another process that trains together with others uses GPU {uuid} of "
                f"{os.uname().nodename}. {ADVICE}"
            ) from None
        _claims.append(held)


def check_processes_here(gpus: int, tf_config: str | None) -> None:
    """Make sure that no two processes of TF_CONFIG's cluster would use all GPUs of this machine.

    All of them find this out by themselves, so that none waits for another one, which has ended.

    Args:
        gpus: the number of GPUs that this process may use.
        tf_config: the value of the environment variable TF_CONFIG.

    Raises:
        RecipeError: another process has the same host, and nothing says which GPUs are whose.
    """
    if not gpus or not tf_config or "CUDA_VISIBLE_DEVICES" in os.environ:
        return
    config = json.loads(tf_config)
    task = config["task"]
    hosts = [address.rsplit(":", 1)[0] for kind in ("chief", "worker") for address in config["cluster"].get(kind, [])]
    here = config["cluster"][task["type"]][task["index"]].rsplit(":", 1)[0]
    if hosts.count(here) > 1:
        raise RecipeError(
            f"TF_CONFIG: {hosts.count(here)} processes on {here} would each use the same {gpus} GPU{'s' * (gpus > 1)}. "
            f"{ADVICE}"
        )
