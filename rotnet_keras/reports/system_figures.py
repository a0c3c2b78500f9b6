"""The figure of what a run used of its machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from rotnet_keras.reports.figures import CYCLE, STYLE, save_figure
from rotnet_keras.runs.events import Event

# Of fewer events no curve is drawn.
LEAST_EVENTS = 3


def draw_system(events: Sequence[Event], path: Path, inside: Path) -> bool:
    """Draw CPU, memory and GPUs over the minutes of work; return False if there are too few `system` events.

    Args:
        events: all events of the run, in order. Pauses between a stop and the next start are left out.
        path: the PNG file to write.
        inside: as of `save_figure`.
    """
    minutes, measured, passed, last = [], [], 0.0, None
    for event in events:
        if last is not None and event["kind"] != "start":
            passed += max(0.0, event["time"] - last)
        last = event["time"]
        if event["kind"] == "system":
            minutes.append(passed / 60)
            measured.append(event)
    if len(measured) < LEAST_EVENTS:
        return False
    gpus = sorted({gpu["index"] for event in measured for gpu in event.get("gpus", ())})

    def of_gpu(index: int, key: str) -> list[float]:
        found = []
        for event in measured:
            own: Event = next((gpu for gpu in event.get("gpus", ()) if gpu["index"] == index), {})
            found.append(float("nan") if own.get(key) is None else own[key])
        return found

    def own(key: str, unit: float = 1.0) -> list[float]:
        return [float("nan") if event.get(key) is None else event[key] / unit for event in measured]

    plots: list[tuple[str, dict[str, list[float]]]] = [
        ("CPU, % of a core", {"run": own("cpu")}),
        ("memory, GB", {"run": own("memory", 2**30), "machine": own("machine_memory", 2**30)}),
    ]
    for title, key, unit in (
        *(("GPU load, %", "load", 1), ("GPU memory, GB", "memory", 2**30), ("GPU power, W", "power", 1)),
    ):
        curves = {f"GPU {index}": [value / unit for value in of_gpu(index, key)] for index in gpus}
        plots += [(title, curves)] if curves else []
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(plots), figsize=(4 * len(plots), 3), layout="constrained")
        for axis, (title, curves) in zip(axes, plots, strict=True):
            styles: Any = zip(CYCLE, ("-", "--", ":", "-.", "-"))
            for (name, values), (color, line) in zip(curves.items(), styles):
                axis.plot(minutes, values, line, color=color, label=name)
            axis.set(title=title, xlabel="minutes", ylim=(0, None))
            if len(curves) > 1:
                axis.legend()
        save_figure(figure, path, inside)
    return True
