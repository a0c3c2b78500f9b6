"""Loss, accuracy and learning rate as charts."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Static

from rotnet_keras.text import percent
from rotnet_tui.settings import Settings
from rotnet_tui.state.history import History
from rotnet_tui.state.words import LIVE
from rotnet_tui.tabs.base import RunTab
from rotnet_tui.widgets.chart import SMOOTHING, Chart, Curve

TRAIN, VALIDATION, RATE = "$text-primary", "$text-warning", "$text-success"
CHARTS = ("loss", "accuracy", "rate")


class CurvesTab(RunTab):
    """Three charts; in a narrow terminal one at a time."""

    def __init__(self, settings: Settings, *, id: str) -> None:
        super().__init__(settings, id=id)
        self._front = 0

    def compose(self) -> ComposeResult:
        """The charts, and a line with their settings and keys."""
        with Horizontal(id="charts"):
            yield Chart("loss", id="loss")
            yield Chart("rotation accuracy, %", id="accuracy")
        yield Chart("learning rate", id="rate")
        yield Static(id="curves-hint")

    def on_mount(self) -> None:
        """In a narrow terminal, begin with the first chart."""
        self.next_chart(0)

    def next_chart(self, by: int) -> None:
        """Bring another chart to the front, which matters where there is room for one only."""
        self._front = (self._front + by) % len(CHARTS)
        for i, name in enumerate(CHARTS):
            self.query_one(f"#{name}").set_class(i == self._front, "-front")
        self.query_one("#charts").set_class(CHARTS[self._front] != "rate", "-front")

    def current_chart(self) -> Chart:
        """The chart that has the focus, else the one in front."""
        focused = self.screen.focused
        return focused if isinstance(focused, Chart) else self.query_one(f"#{CHARTS[self._front]}", Chart)

    def show(self, history: History, state: str) -> None:
        """Draw all three charts."""
        columns, settings = history.columns, self.settings
        x = _x_values(columns, settings.x_axis)
        epochs = [e for e in history.epochs if "validation" in e]
        at_epochs = _at_steps(columns, x, [e["step"] for e in epochs])
        classes = history.task.num_classes
        resumed = [e["step"] for e in history.events["resume"]]
        marks = _rate_drops(columns["learning_rate"], x) + _at_steps(columns, x, resumed)
        smoothing, log = settings.smoothing, settings.log_axis
        loss = [
            Curve("train", x, columns["loss"], TRAIN, smooth=True),
            Curve("validation", at_epochs, [e["validation"]["loss"] for e in epochs], VALIDATION),
        ]
        accuracy = [
            Curve("train", x, [100 * v for v in columns["accuracy"]], TRAIN, smooth=True),
            Curve("validation", at_epochs, [100 * e["validation"]["accuracy"] for e in epochs], VALIDATION),
        ]
        self.query_one("#loss", Chart).show(loss, chance=math.log(classes), log=log, smoothing=smoothing, marks=marks)
        chart = self.query_one("#accuracy", Chart)
        chart.border_title = f"{history.task.accuracy_name}, %"
        chart.show(accuracy, chance=100 / classes, smoothing=smoothing, marks=marks, format=".1f")
        rate = [Curve("current", x, columns["learning_rate"], RATE)]
        self.query_one("#rate", Chart).show(rate, log=log, marks=marks, format=".3g")
        self.query_one("#curves-hint", Static).update(self._hint(history, state), layout=False)

    def _hint(self, history: History, state: str) -> str:
        if history.is_study:
            return "A study has no curves of its own. Its tables are in the tab Features, its runs on the home screen."
        if not len(history.columns["step"]):
            if state and state not in LIVE:
                return "There is nothing to draw: this run has not made a step."
            return "No step yet. The first step is slow, because TensorFlow traces the graph."
        settings = self.settings
        axis = {"epoch": "epochs", "step": "steps", "time": "minutes"}[settings.x_axis]
        words = [f"[b]x[/] {axis}", f"[b]y[/] {'log' if settings.log_axis else 'linear'}"]
        words.append(f"[b]m[/] smoothing {SMOOTHING[settings.smoothing]:g}")
        if self.screen.has_class("-narrow"):
            words.append(f"[b]\\[ ][/] chart {self._front + 1} of {len(CHARTS)}")
        else:
            words.append("dotted: chance")
        if history.stride > 1:
            words.append(f"every {history.stride}th logged step is drawn")
        if not history.complete:
            words.append(f"reading events, {percent(history.fraction_read, 0)}")
        return "   ".join(words)


def _x_values(columns: Mapping[str, Sequence[float]], axis: str) -> np.ndarray:
    if axis == "time":
        return np.asarray(columns["seconds"]) / 60
    return np.asarray(columns[axis])


def _at_steps(columns: Mapping[str, Sequence[float]], x: np.ndarray, steps: list[float]) -> list[float]:
    """The positions of some steps on the x axis."""
    if not len(x) or not steps:
        return []
    return [float(v) for v in np.interp(steps, np.asarray(columns["step"]), x)]


def _rate_drops(rates: Sequence[float], x: np.ndarray) -> list[float]:
    """Where a learning rate drops after having been constant: not on the slope of a cosine schedule."""
    rate = np.asarray(rates)
    dropped = np.flatnonzero((rate[2:] < 0.9 * rate[1:-1]) & (rate[1:-1] == rate[:-2])) + 2
    return [float(x[i]) for i in dropped]
