"""A slow disk under a folder, as of a network: each question about a file in it takes a while."""

import io
import os
import threading
import time
import traceback
from pathlib import Path

QUESTIONS = ("stat", "lstat", "open", "scandir", "listdir", "mkdir", "unlink", "replace", "access", "readlink")


class SlowDisk:
    """Delays what is asked about files in a folder, and notes what the main thread asks, which keys wait for.

    Attributes:
        asked: the number of questions.
        in_main_thread: where each question of the main thread came from.
        answers: while this event is cleared, no question of another thread is answered.
    """

    def __init__(self, folder, seconds, monkeypatch):
        self.folder, self.seconds = os.path.realpath(folder), seconds
        self.asked, self.in_main_thread = 0, []
        self.answers = threading.Event()
        self.answers.set()
        for module, names in ((os, QUESTIONS), (io, ("open",))):
            for name in names:
                monkeypatch.setattr(module, name, self._slow(getattr(module, name)))

    def _slow(self, ask):
        def asked(path=".", *arguments, **options):
            if isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(self.folder):  # noqa: PTH100
                self.asked += 1
                if threading.current_thread() is threading.main_thread():
                    self.in_main_thread.append(_caller())
                else:
                    self.answers.wait(timeout=60)
                time.sleep(self.seconds)
            return ask(path, *arguments, **options)

        return asked


def _caller():
    """The places in the terminal UI and in the package that lead to a question, the nearest last."""
    frames = [f for f in traceback.extract_stack() if "/rotnet_tui/" in f.filename or "/rotnet_keras/" in f.filename]
    return " > ".join(f"{Path(f.filename).stem}.{f.name}" for f in frames[-4:])
