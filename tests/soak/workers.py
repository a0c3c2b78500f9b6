"""A process that tries one file after another, and its end where one hangs, crashes or takes all memory."""

import multiprocessing
import os
import resource
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

# What a person waits for a word on a file, and what one of a few kilobytes may cost.
SECONDS = 10.0
MEMORY_BYTES = 1_000_000_000

# Whether an example is usable; an error of the package's own where it is not, and what else it raises is a fault.
Check = Callable[[Any], bool]


class Worker:
    """Tries examples in a process of its own, which lives as long as they do it no harm.

    Args:
        prepare: called in the process; returns what checks an example.
    """

    def __init__(self, prepare: Callable[[], Check]) -> None:
        self.prepare = prepare
        self.restarts = 0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(self.prepare, theirs), daemon=True)
        self.process.start()
        theirs.close()
        # Imports take their time on a busy machine.
        assert self.pipe.poll(300) and self.pipe.recv() == "ready"

    def attempt(self, example: Any) -> tuple[bool, str]:
        """Try an example; return whether it is usable, and what went wrong, if anything."""
        self.pipe.send(example)
        try:
            if self.pipe.poll(SECONDS):
                answer: tuple[bool, str] = self.pipe.recv()
                return answer
            problem = f"hung for {SECONDS:.0f} s"
        except EOFError:
            self.process.join()
            problem = f"ended its process with {self.process.exitcode}"
        self.close()
        self.restarts += 1
        self._start()
        return False, problem

    def close(self) -> None:
        """End the process and what it started."""
        if self.process.pid and self.process.is_alive():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()
        self.pipe.close()


def _serve(prepare: Callable[[], Check], pipe: Connection) -> None:
    os.setsid()
    # Warnings of libraries about thousands of damaged files.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    check = prepare()
    before = _peak()
    pipe.send("ready")
    while True:
        try:
            example = pipe.recv()
        except EOFError:
            return
        usable, problem = False, ""
        try:
            usable = check(example)
        except Exception:  # Whatever comes of it is what the drill is for.
            problem = traceback.format_exc(limit=-3)[-900:]
        if _peak() > before + MEMORY_BYTES:
            problem = problem or f"took {(_peak() - before) / 1e9:.1f} GB of memory"
            before = _peak()
        pipe.send((usable, problem))


def _peak() -> int:
    """The most memory that the process or one of its children has had, in bytes."""
    return 1024 * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
