"""TensorBoard files, written beside the events where a recipe sets `train.tensorboard`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rotnet_keras.engine import tf


class TensorBoard:
    """Writes scalars to TensorBoard files in a folder; a resumed run adds a file."""

    def __init__(self, folder: Path) -> None:
        self._writer = tf.summary.create_file_writer(str(folder))

    def write(self, step: int, prefix: str, values: Mapping[str, Any]) -> None:
        """Write the numbers among `values` as `prefix/name`; other values are skipped."""
        with self._writer.as_default(step):
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    tf.summary.scalar(f"{prefix}/{name}", value)
        self._writer.flush()
