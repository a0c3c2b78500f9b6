"""Checkpoints: every variable of model and optimizer in one .npz, written whole or not at all."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.engine import keras
from rotnet_keras.files import write_atomically

KEPT = 2


@dataclass
class Position:
    """How far training had come at a checkpoint, beyond what the variables say.

    Attributes:
        step: optimizer steps done.
        sums: running sums of the current epoch's training metrics, weighted by inputs.
        best: highest validation accuracy so far.
    """

    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    best: float = -1.0


def save_checkpoint(folder: Path, variables: Sequence[keras.Variable], position: Position, best: bool) -> Path:
    """Write `step-<n>.npz`, and `best.npz` too if it is the best so far; keep the last two.

    Raises:
        OSError: the disk is full or the folder is gone; older checkpoints are untouched.
    """
    folder.mkdir(exist_ok=True)
    arrays: dict[str, Any] = {f"{i:04d}": np.asarray(variable) for i, variable in enumerate(variables)}
    buffer = io.BytesIO()
    # No pickle on this way: the file holds plain arrays, and reading one runs nobody's code.
    np.savez(buffer, progress=np.frombuffer(json.dumps(asdict(position)).encode(), np.uint8), **arrays)
    path = folder / f"step-{position.step:08d}.npz"
    write_atomically(path, buffer.getvalue())
    if best:
        write_atomically(folder / "best.npz", buffer.getvalue())
    for old in step_checkpoints(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def step_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints by step, the newest first."""
    return sorted(folder.glob("step-*.npz"), reverse=True)


def restore_checkpoint(folder: Path, variables: Sequence[keras.Variable]) -> tuple[Position, list[str]]:
    """Set the variables from the newest intact checkpoint.

    Returns:
        Where training goes on, from the start where there is no checkpoint; and a word for each
        damaged file that was passed over.
    """
    for torn in folder.glob(".*.npz.tmp"):
        torn.unlink()  # A kill came between the beginning and the end of writing it.
    damaged = []
    for path in step_checkpoints(folder):
        try:
            position, arrays = _read(path)
            if [a.shape for a in arrays] != [tuple(v.shape) for v in variables]:
                raise ValueError("it belongs to another model")
        except Exception as error:  # A damaged archive raises nearly anything.
            damaged.append(f"checkpoint {path.name} cannot be used ({error}); trying the one before")
            continue
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        return position, damaged
    return Position(), damaged


def _read(path: Path) -> tuple[Position, list[np.ndarray]]:
    with np.load(path, allow_pickle=False) as archive:
        position = Position(**json.loads(bytes(archive["progress"])))
        return position, [archive[name] for name in sorted(set(archive.files) - {"progress"})]
