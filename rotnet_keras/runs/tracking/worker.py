"""The process that mirrors a run while it goes on: `python -m rotnet_keras.runs.tracking.worker FOLDER TRACKER`.

It is a process of its own, so that a tracker that hangs, fails or is slow costs the run nothing. It tells the run what
to say, a line each on standard output that begins with one of the words below. It outlives the run until all is sent.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from rotnet_keras.errors import RunError
from rotnet_keras.files import make_folder, open_to_append
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.next_steps import command_line
from rotnet_keras.runs.processes import Process
from rotnet_keras.runs.tracking.mirror import POLL_SECONDS, Mirror, log_of, only_mirror
from rotnet_keras.runs.tracking.trackers import TRACKERS, open_tracker, reason

# How a line begins.
SAY, WARN, DONE = "say", "warn", "done"
# Between two tries after a failure.
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 5.0, 60.0
# A tracker that does not answer for so long is reported; after the end of the run it is given up.
SILENT_SECONDS, MOST_SECONDS = 45.0, 600.0


class Watchdog:
    """Reports a call that takes long, and ends this process if a call takes very long after the run has ended."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._since: float | None = None
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch over the calls of the block."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def _run(self) -> None:
        reported: float | None = None
        while True:
            time.sleep(0.5)
            since = self._since
            if since is None:
                continue
            seconds = time.monotonic() - since
            if seconds > SILENT_SECONDS and reported != since:
                reported = since
                self._worker.warn("does not answer")
            if seconds > MOST_SECONDS and self._worker.run_is_over():
                os._exit(1)


class Worker:
    """Mirrors one run to one tracker, and tries again after failures for as long as the run goes on.

    Args:
        run: the run folder.
        name: of the tracker.
        lines: where to write for the run.
    """

    def __init__(self, run: RunFolder, name: str, lines: TextIO) -> None:
        self._run, self._name, self._lines = run, name, lines
        self._title = TRACKERS[name].title
        self._in_trouble = False
        self._watchdog = Watchdog(self)

    def run_is_over(self) -> bool:
        """Whether the run's process is gone, or has written its end."""
        last = self._run.last_events()[-1:]
        return self._run.process() is Process.GONE or any(event["kind"] == "end" for event in last)

    def work(self) -> None:
        """Mirror the run to its end."""
        while True:
            try:
                with only_mirror(self._run, self._name):
                    self._mirror_with_retries()
                return
            except RunError:  # The mirror of an earlier session has not sent everything yet.
                if self.run_is_over():
                    return
                time.sleep(POLL_SECONDS)

    def warn(self, trouble: str) -> None:
        """Report a failure to the run, unless one was reported and nothing has been sent since."""
        if not self._in_trouble:
            later = f"{command_line('track', self._run)} --to {self._name}"
            sent = f"The run goes on; what is missing there is sent later, or by: {later}"
            self._tell(WARN, f"{self._title} {trouble}. {sent}")
        self._in_trouble = True

    def _mirror_with_retries(self) -> None:
        wait = FIRST_RETRY_SECONDS
        while True:
            over = self.run_is_over()
            try:
                self._mirror()
                return
            except Exception as error:  # Whatever the tracker's package raises: the run needs nothing of it.
                why = reason(error)
                print(f"{time.strftime('%H:%M:%S')} {type(error).__name__}: {why}", file=sys.stderr, flush=True)
                self.warn(f"fails: {why}")
            if over:
                return
            until = time.monotonic() + wait
            while time.monotonic() < until and not self.run_is_over():
                time.sleep(POLL_SECONDS)
            wait = min(2 * wait, LAST_RETRY_SECONDS)

    def _mirror(self) -> None:
        with self._watchdog.watched():
            mirror = Mirror(self._run, self._name, open_tracker(self._name))
            self._tell(SAY, mirror.begin())
        mirror.send_all(self._watchdog.watched, self._recover)
        with self._watchdog.watched():
            self._tell(DONE, mirror.end())

    def _recover(self) -> None:
        if self._in_trouble:
            self._in_trouble = False
            self._tell(SAY, f"{self._title} has everything up to here again.")

    def _tell(self, word: str, text: str) -> None:
        with suppress(OSError):  # The run may have ended.
            self._lines.write(f"{word} {' '.join(text.split())}\n")
            self._lines.flush()


def main() -> None:
    """Mirror the run folder that the first argument names to the tracker of the second."""
    run, name = RunFolder(Path(sys.argv[1])), sys.argv[2]
    # What packages print goes to a file; the lines for the run have standard output for themselves.
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with only_log(run, name):
        Worker(run, name, lines).work()
    os._exit(0)


@contextmanager
def only_log(run: RunFolder, name: str) -> Iterator[None]:
    """Let standard output and error go to the log of the mirror."""
    make_folder(log_of(run, name).parent, run.path)
    with open_to_append(log_of(run, name), run.path) as log:
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
        yield


if __name__ == "__main__":
    main()
