"""Stopping a run after its present step, with everything saved."""

import os
import signal
from pathlib import Path
from types import FrameType

from rotnet_keras.errors import RunStopped


class Stop:
    """Collects stop requests: SIGINT, SIGTERM, and a file `stop` in the run folder.

    The first signal requests a stop; a second one ends the process at once. SIGHUP is ignored, so that closing the
    terminal does not stop the run.

    Args:
        stop_file: the file that requests a stop; removed at first, as it may be left from an earlier session.
    """

    def __init__(self, stop_file: Path) -> None:
        self._file = stop_file
        self._signal: int | None = None
        stop_file.unlink(missing_ok=True)
        self.listen()

    def listen(self) -> None:
        """Install the signal handlers. Called again after TensorFlow has installed its own for several processes."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._received)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            os._exit(128 + number)
        self._signal = number

    def request(self) -> None:
        """Request a stop from this process itself."""
        self._signal = self._signal or signal.SIGTERM

    def requested(self) -> bool:
        """Whether a stop was requested."""
        if self._signal is None and self._file.exists():
            self._signal = signal.SIGTERM
        return self._signal is not None

    def check(self) -> None:
        """Raise if a stop was requested.

        Raises:
            RunStopped: with the exit code of the signal, 130 or 143.
        """
        if self.requested():
            raise RunStopped(self._signal or signal.SIGTERM)
