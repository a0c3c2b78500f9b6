"""What every part of the check needs: the time that is left, and other processes that end in time."""

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rotnet_keras.host import python_command

# A process that has been asked to end is given so many seconds.
END_SECONDS = 5.0


@dataclass
class Check:
    """What is checked, where, and until when.

    Attributes:
        output: the folder of the results.
        work: a folder for what is thrown away.
        rehearse: run everything on the CPU, with smaller networks.
        deadline: on the clock of `time.monotonic`.
        data_dir: the folder of TensorFlow Datasets that has CIFAR-10; None for the environment's.
        found: the results of the parts, by their names.
        environment: of all processes.
    """

    output: Path
    work: Path
    rehearse: bool
    deadline: float
    data_dir: str | None
    found: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def log(self, text: str) -> None:
        """Add text to the log of the check."""
        with (self.output / "log.txt").open("a", encoding="utf-8") as file:
            file.write(text.rstrip() + "\n")


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def start(check: Check, *words: str, **environment: str) -> "subprocess.Popen[str]":
    """Start this Python with some arguments, in a session of its own, both streams in one pipe."""
    return subprocess.Popen(
        python_command(*words),
        cwd=check.work,
        env={**os.environ, **check.environment, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def end(process: "subprocess.Popen[str]", seconds: float) -> tuple[int, str]:
    """Wait for the end of a process and return its exit code and output; killed with its children after some seconds.

    The exit code of one that was killed is that of `timeout`, 124.
    """
    try:
        output, _ = process.communicate(timeout=max(0.1, seconds))
        return process.returncode, output
    except subprocess.TimeoutExpired:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                output, _ = process.communicate(timeout=END_SECONDS)
                return 124, output
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                break
        return 124, ""


def python(check: Check, *words: str, seconds: float, **environment: str) -> tuple[int, str]:
    """Run this Python to its end, or for some seconds, and log what it printed; return its exit code and output."""
    began = time.monotonic()
    code, output = end(start(check, *words, **environment), min(seconds, check.left()))
    check.log(f"\n== python {' '.join(words)}: exit code {code} after {time.monotonic() - began:.1f} s\n{output}")
    return code, output


def command_line(check: Check, *words: str, seconds: float, **environment: str) -> tuple[int, str]:
    """Run `rotnet-keras` in the same way."""
    return python(check, "-m", "rotnet_keras", *words, seconds=seconds, **environment)


def json_lines(output: str) -> list[dict[str, Any]]:
    """The lines of an output that are JSON objects."""
    found = []
    for line in output.splitlines():
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found
