"""How long commands without TensorFlow take, from the start of their process to its end."""

import subprocess
import time

from rotnet_keras.host import python_command
from rotnet_keras.planning.bench.registry import Measurement, Progress, Settings, measurement

COMMANDS = ("--help", "recipes", "runs")


def measure(settings: Settings, progress: Progress) -> list[Measurement]:
    """Measure the time of each command, in seconds."""
    found = []
    for command in COMMANDS:
        seconds = [_seconds(command) for _ in range(settings.rounds)]
        found.append(measurement("startup", f"rotnet-keras {command}", seconds, "s"))
        progress.note(f"{found[-1].name}, {found[-1].value:.4g} s")
    return found


def _seconds(command: str) -> float:
    start = time.perf_counter()
    subprocess.run(python_command("-m", "rotnet_keras", command), stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start
