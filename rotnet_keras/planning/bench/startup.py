"""How long the commands that only look take to start, as a shell sees it."""

import subprocess
import sys
import time

from rotnet_keras.planning.bench.registry import Measurement, Settings, measured

COMMANDS = ("--help", "recipes", "runs")


def measure(settings: Settings) -> list[Measurement]:
    """Seconds from the start of the process to its end."""
    return [
        measured("startup", f"rotnet-keras {command}", [_seconds(command) for _ in range(settings.rounds)], "s")
        for command in COMMANDS
    ]


def _seconds(command: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "rotnet_keras", command], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start
