"""A terminal window without a screen: what runs in it can be typed to, and loses it when the window is closed."""

import os
import pty
import select
import subprocess
import termios
import threading
from contextlib import suppress
from typing import Any


class Terminal:
    """A window; whatever is written to it is read, and forgotten."""

    def __init__(self) -> None:
        self._ours, self._theirs = pty.openpty()
        termios.tcsetwinsize(self._ours, (36, 120))
        self._closing = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(self, command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
        """Run a command in it, once: signals of the terminal reach it."""
        theirs = self._theirs
        process = subprocess.Popen(command, preexec_fn=lambda: os.login_tty(theirs), **options)
        os.close(theirs)
        return process

    def type(self, text: bytes) -> None:
        """Press keys; nobody may be there to be reached."""
        with suppress(OSError):
            os.write(self._ours, text)

    def close(self) -> None:
        """Close the window, if that is not done."""
        self._closing.set()
        self._reader.join()

    def _read(self) -> None:
        # Nobody else closes what is read here, for the number could belong to another file by then.
        with suppress(OSError):
            while not self._closing.is_set():
                if select.select([self._ours], [], [], 0.05)[0] and not os.read(self._ours, 65536):
                    break
        self._closing.wait()
        os.close(self._ours)
