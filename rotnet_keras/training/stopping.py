"""Stopping a run gently: after the step at hand, with everything saved."""

import os
import signal
from pathlib import Path
from types import FrameType

from rotnet_keras.errors import RunStopped


class Stop:
    """Listens for SIGINT, SIGTERM and a file called `stop`.

    The first signal asks the run to stop; a second one ends the process at once. SIGHUP is ignored, so
    that closing a terminal leaves the run going.
    """

    def __init__(self, stop_file: Path) -> None:
        self._file = stop_file
        self._signal: int | None = None
        stop_file.unlink(missing_ok=True)
        self.listen()

    def listen(self) -> None:
        """Take the signals, from whoever has them; TensorFlow takes SIGTERM where several processes train."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._received)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            os._exit(128 + number)
        self._signal = number

    def request(self) -> None:
        """Ask for it from within."""
        self._signal = self._signal or signal.SIGTERM

    def requested(self) -> bool:
        """Whether the run should come to its end now."""
        if self._signal is None and self._file.exists():
            self._signal = signal.SIGTERM
        return self._signal is not None

    def check(self) -> None:
        """Raise if a stop was asked for.

        Raises:
            RunStopped: with the exit code that belongs to the signal.
        """
        if self.requested():
            raise RunStopped(self._signal or signal.SIGTERM)
