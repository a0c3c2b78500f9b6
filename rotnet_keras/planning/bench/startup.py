"""How long commands without TensorFlow take, from the start of their process to its end."""

import subprocess
import sys
import time

from rotnet_keras.planning.bench.registry import Measurement, Settings, measurement

COMMANDS = ("--help", "recipes", "runs")


def measure(settings: Settings) -> list[Measurement]:
    """Measure the time of each command, in seconds."""
    return [
        measurement("startup", f"rotnet-keras {command}", [_seconds(command) for _ in range(settings.rounds)], "s")
        for command in COMMANDS
    ]


def _seconds(command: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "rotnet_keras", command], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start
