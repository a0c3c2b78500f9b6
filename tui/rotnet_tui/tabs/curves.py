"""Loss, rotation accuracy and learning rate, as they come."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Static

from rotnet_tui.state.history import History
from rotnet_tui.tabs.base import Pane
from rotnet_tui.widgets.chart import SMOOTHING, Chart, Curve

TRAIN, VALIDATION, RATE = "$text-primary", "$text-warning", "$text-success"
CHARTS = ("loss", "accuracy", "rate")


class Curves(Pane):
    """Three charts; in a narrow terminal one at a time."""

    def __init__(self) -> None:
        super().__init__(id="curves")
        self._first = 0

    def compose(self) -> ComposeResult:
        """The charts, and a line that says how they are drawn."""
        with Horizontal(id="charts"):
            yield Chart("loss", id="loss")
            yield Chart("rotation accuracy, %", id="accuracy")
        yield Chart("learning rate", id="rate")
        yield Static(id="curves-hint")

    def on_mount(self) -> None:
        """In a narrow terminal, begin with the first chart."""
        self.next_chart(0)

    def next_chart(self, by: int) -> None:
        """Bring another chart to the front, which matters where only one has room."""
        self._first = (self._first + by) % len(CHARTS)
        for i, name in enumerate(CHARTS):
            self.query_one(f"#{name}").set_class(i == self._first, "-front")
        self.query_one("#charts").set_class(CHARTS[self._first] != "rate", "-front")

    def front(self) -> Chart:
        """The chart in front, or the one that has the focus."""
        focused = self.screen.focused
        return focused if isinstance(focused, Chart) else self.query_one(f"#{CHARTS[self._first]}", Chart)

    def show(self, history: History, state: str) -> None:
        """Draw all three charts."""
        columns, settings = history.columns, self.settings
        x = _x(columns, settings.x_axis)
        epochs = [e for e in history.epochs if "validation" in e]
        at_epochs = _at_steps(columns, x, [e["step"] for e in epochs])
        answers = history.task.count
        marks = _marks(columns["learning_rate"], x) + _at_steps(columns, x, [e["step"] for e in history.kept["resume"]])
        smoothing, log = settings.smoothing, settings.log_axis
        loss = [
            Curve("train", x, columns["loss"], TRAIN, smooth=True),
            Curve("validation", at_epochs, [e["validation"]["loss"] for e in epochs], VALIDATION),
        ]
        accuracy = [
            Curve("train", x, [100 * v for v in columns["accuracy"]], TRAIN, smooth=True),
            Curve("validation", at_epochs, [100 * e["validation"]["accuracy"] for e in epochs], VALIDATION),
        ]
        self.query_one("#loss", Chart).show(loss, chance=math.log(answers), log=log, smoothing=smoothing, marks=marks)
        chart = self.query_one("#accuracy", Chart)
        chart.border_title = f"{history.task.accuracy}, %"
        chart.show(accuracy, chance=100 / answers, smoothing=smoothing, marks=marks, format=".1f")
        rate = [Curve("now", x, columns["learning_rate"], RATE)]
        self.query_one("#rate", Chart).show(rate, log=log, marks=marks, format=".3g")
        self.query_one("#curves-hint", Static).update(self._hint(history), layout=False)

    def _hint(self, history: History) -> str:
        if history.is_study:
            return (
                "A study trains nothing itself: its tables are in the tab Features, its runs in the list of all runs."
            )
        if not len(history.columns["step"]):
            return "No step yet: the first one takes longer, it traces the graph. This is normal."
        settings = self.settings
        axis = {"epoch": "epochs", "step": "steps", "time": "minutes at work"}[settings.x_axis]
        words = [f"[b]x[/] {axis}", f"[b]y[/] {'log' if settings.log_axis else 'linear'}"]
        words.append(f"[b]m[/] smoothing {SMOOTHING[settings.smoothing]:g}")
        if self.screen.has_class("-narrow"):
            words.append(f"[b]\\[ ][/] chart {self._first + 1} of {len(CHARTS)}")
        else:
            words.append("dotted: chance")
        if history.stride > 1:
            words.append(f"one of {history.stride} step events is drawn")
        if not history.complete:
            words.append(f"reading events, {100 * history.share_read:.0f} %")
        return "   ".join(words)


def _x(columns: Mapping[str, Sequence[float]], axis: str) -> np.ndarray:
    if axis == "time":
        return np.asarray(columns["seconds"]) / 60
    return np.asarray(columns[axis])


def _at_steps(columns: Mapping[str, Sequence[float]], x: np.ndarray, steps: list[float]) -> list[float]:
    """Where on the x axis some steps are."""
    if not len(x) or not steps:
        return []
    return [float(v) for v in np.interp(steps, np.asarray(columns["step"]), x)]


def _marks(rates: Sequence[float], x: np.ndarray) -> list[float]:
    """Where a learning rate that stood still drops."""
    rate = np.asarray(rates)
    dropped = np.flatnonzero((rate[2:] < 0.9 * rate[1:-1]) & (rate[1:-1] == rate[:-2])) + 2
    return [float(x[i]) for i in dropped]
