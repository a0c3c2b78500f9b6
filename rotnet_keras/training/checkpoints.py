"""Checkpoints: all variables of the model and the optimizer in one .npz file, written atomically."""

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.data.npz import read_array_header
from rotnet_keras.engine import keras
from rotnet_keras.files import make_folder, write_atomically

# The newest checkpoints that are kept; the best one is kept besides.
KEPT = 2
# The array of a checkpoint that holds the position as JSON, and its largest size.
POSITION, MAX_POSITION_BYTES = "progress", 2**20


@dataclass
class Position:
    """The state of a training that is not in its variables. Its fields are stored in the checkpoint as JSON.

    Attributes:
        step: optimizer steps done.
        sums: sums over the steps of the present epoch, by metric, and the number of `steps` summed.
        best: the highest validation score so far; -1 before the first.
    """

    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    best: float = -1.0


def save_checkpoint(folder: Path, variables: Sequence[keras.Variable], position: Position, best: bool) -> Path:
    """Write `step-<n>.npz`, and a copy as `best.npz` if it is the best so far; keep the last two by step.

    Args:
        folder: the folder `checkpoints` in that of the run; made if it does not exist.
        variables: in a fixed order; the file has them by number.
        position: stored beside them.
        best: whether its validation score is the highest so far.

    Returns:
        The file written.

    Raises:
        OSError: it cannot be written, for example on a full disk, or the folder is a link; older checkpoints stay as
            they are.
    """
    run = folder.parent
    make_folder(folder, run)
    arrays: dict[str, Any] = {POSITION: np.frombuffer(json.dumps(asdict(position)).encode(), np.uint8)}
    arrays |= {f"{i:04d}": np.asarray(variable) for i, variable in enumerate(variables)}
    buffer = io.BytesIO()
    # Plain arrays, no pickle: reading a checkpoint runs no code.
    np.savez(buffer, **arrays)
    path = folder / f"step-{position.step:08d}.npz"
    write_atomically(path, buffer.getvalue(), run)
    if best:
        write_atomically(folder / "best.npz", buffer.getvalue(), run)
    for old in step_checkpoints(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def step_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the newest first, without `best.npz`."""
    return sorted(folder.glob("step-*.npz"), reverse=True)


def restore_checkpoint(folder: Path, variables: Sequence[keras.Variable]) -> tuple[Position, list[str]]:
    """Set the variables from the newest intact checkpoint.

    Returns:
        The position to continue from, step 0 where there is no usable checkpoint; and a message for each checkpoint
        that cannot be used.
    """
    damaged = []
    for path in step_checkpoints(folder):
        try:
            position, arrays = _read(path, [tuple(variable.shape) for variable in variables])
        except Exception as error:  # Damaged archives raise many types.
            damaged.append(f"checkpoint {path.name} cannot be used ({error}); trying the previous one")
            continue
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        return position, damaged
    return Position(), damaged


def _read(path: Path, shapes: Sequence[tuple[int, ...]]) -> tuple[Position, list[np.ndarray]]:
    """Return what a checkpoint holds. Nothing is unpacked before it is known to be of the size of the variables."""
    with zipfile.ZipFile(path) as members, np.load(path, allow_pickle=False) as archive:
        names = sorted(set(archive.files) - {POSITION})
        if [read_array_header(members, f"{name}.npy")[0] for name in names] != list(shapes):
            raise ValueError("its arrays have other shapes than the model's variables")
        if members.getinfo(f"{POSITION}.npy").file_size > MAX_POSITION_BYTES:
            raise ValueError(f"its {POSITION} has more than {MAX_POSITION_BYTES:,} bytes")
        return Position(**json.loads(bytes(archive[POSITION]))), [archive[name] for name in names]
