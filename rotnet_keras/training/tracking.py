"""Starts the processes that mirror a run to experiment trackers, and says in the run what they report."""

import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from rotnet_keras.host import python_command
from rotnet_keras.runs.next_steps import command_line
from rotnet_keras.runs.tracking.trackers import TRACKERS, is_installed
from rotnet_keras.runs.tracking.worker import DONE, WARN
from rotnet_keras.training.session import Session

# How long a run that has ended waits for a tracker that answers.
WAIT_SECONDS = 10.0


class Tracking:
    """The mirrors of a run. Whatever becomes of them, the run goes on.

    Args:
        session: of the run.
        names: of the trackers.
    """

    def __init__(self, session: Session, names: Sequence[str]) -> None:
        self._session = session
        self._over = False
        self._speaking = threading.Lock()
        self._mirrors = []
        for name in names:
            if not is_installed(name):
                install = f"pip install 'rotnet-keras[{name}]'"
                session.warn(f"train.track: {name} is not installed here, and the run is not mirrored to it: {install}")
                continue
            try:
                self._mirrors.append(_Mirror(self, session, name))
            except OSError as error:
                session.warn(f"train.track: the run is not mirrored to {name}, which cannot be started: {error}")

    def tell(self, text: str, warning: bool) -> None:
        """Say what a mirror reports; a warning is also an event, unless the run has written its end."""
        with self._speaking, suppress(OSError, ValueError):
            if warning and not self._over:
                self._session.warn(text)
            else:
                self._session.say(f"Warning: {text}" if warning else text)

    def no_more_events(self) -> None:
        """Write no event from now on: the run is about to write its end."""
        with self._speaking:
            self._over = True

    def wait(self) -> None:
        """Give the mirrors that work a few seconds to send the end of the run; they finish in the background."""
        until = time.monotonic() + WAIT_SECONDS
        for mirror in self._mirrors:
            mirror.settled.wait(max(0.0, until - time.monotonic()))
            if not mirror.done:
                again = f"{command_line('track', self._session.folder)} --to {mirror.name}"
                title, number = TRACKERS[mirror.name].title, mirror.process.pid
                self.tell(
                    f"{title}: process {number} goes on with what is not sent yet. To send it anew: {again}", False
                )


class _Mirror:
    """The process of one tracker, and the thread that reads what it reports.

    Attributes:
        settled: set while there is nothing to wait for: it is done, has ended, or is in trouble.
        done: whether everything has been sent.
    """

    def __init__(self, tracking: Tracking, session: Session, name: str) -> None:
        self.name = name
        self.settled = threading.Event()
        self.done = False
        self._tracking = tracking
        self.process = subprocess.Popen(
            python_command("-m", "rotnet_keras.runs.tracking.worker", str(session.folder.path), name),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        threading.Thread(target=self._listen, name=f"mirror to {name}", daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            word, _, text = line.rstrip("\n").partition(" ")
            self.done = self.done or word == DONE
            if word == WARN or self.done:
                self.settled.set()
            else:
                self.settled.clear()
            self._tracking.tell(text, word == WARN)
        self.settled.set()
