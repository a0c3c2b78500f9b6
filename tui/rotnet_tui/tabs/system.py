"""What the run uses of the machine: now, and over its whole life as it recorded it."""

from collections import deque
from collections.abc import Iterable

import psutil
from rich.table import Table
from rich.text import Text
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from rotnet_keras.runs.machine_load import FamilyLoad, GpuLoad, free_bytes, gigabytes, read_gpus, system_summary
from rotnet_keras.text import percent
from rotnet_tui.settings import Settings
from rotnet_tui.state.history import History
from rotnet_tui.state.metrics import chosen, metrics_of
from rotnet_tui.state.words import bar
from rotnet_tui.tabs.base import RunTab
from rotnet_tui.widgets.chart_grid import ChartGrid
from rotnet_tui.widgets.curves import COLORS, DASHES, Curve

# Past measurements in each row of bars.
BARS_SHOWN = 20
# Cores whose load is listed one by one.
CORES_SHOWN = 16
# What the charts show, where it was recorded; the title of each.
CHARTS = {
    "run_cpu": "CPU of the run, % of a core",
    "run_memory+machine_memory": "memory, GB",
    "gpu*_load": "GPU load, %",
    "gpu*_memory": "GPU memory, GB",
    "gpu*_power": "GPU power, W",
    "gpu*_temperature": "GPU temperature, °C",
    "machine_cpu": "CPU of the machine, %",
    "disk_free": "disk free, GB",
}
GRID = "3x2"


class SystemTab(RunTab):
    """The load of the run and its machine. What it is now is measured only while the tab is visible."""

    def __init__(self, settings: Settings, *, id: str) -> None:
        super().__init__(settings, id=id)
        self._past: dict[str, deque[float]] = {}
        self._family: FamilyLoad | None = None
        self._pid: int | None = None
        self._patterns: list[str] = []
        self._cursor: float | None = None
        self._history: History | None = None

        self._free: float | None = None

    def contents(self) -> Iterable[Widget]:
        """A table, and charts below it."""
        with VerticalScroll(id="system-now"):
            yield Static(id="system-table")
        yield ChartGrid(id="system-charts", prefix="system-")
        yield Static(id="system-hint")

    def on_mount(self) -> None:
        """Look for a driver before the tab is opened, since this takes a while."""
        self.run_worker(read_gpus, thread=True)

    def fetch(self, history: History) -> None:
        """Ask the disk of the run how much is free."""
        self._free = free_bytes(history.run.path)

    def show(self, history: History, state: str) -> None:
        """Measure and draw."""
        self._history = history
        alive = history.run.alive()
        self.query_one("#system-table", Static).update(self._now(history) if alive else self._recorded(history, state))
        self._draw_charts(history)

    # What was recorded

    def _draw_charts(self, history: History) -> None:
        metrics = metrics_of(history)
        self._patterns = [pattern for pattern in CHARTS if chosen(pattern, metrics)]
        grid = self.query_one(ChartGrid)
        grid.display = bool(self._patterns)
        for chart, pattern in grid.lay_out(self._patterns, GRID):
            chart.border_title = Content(CHARTS[pattern])
            curves = []
            for number, name in enumerate(chosen(pattern, metrics)):
                series = metrics[name]()
                minutes = [second / 60 for second in series.seconds or ()]
                word = name.partition("_")[0]
                curves.append(Curve(word, minutes, series.values, COLORS[number % len(COLORS)], number % len(DASHES)))
            chart.show(curves, format=".1f", cursor=self._cursor)
        self._show_hint(grid)

    def _show_hint(self, grid: ChartGrid) -> None:
        words = (
            ["minutes of work"] if self._patterns else ["Figures are recorded from the first quarter of a minute on."]
        )
        if page := grid.page_words(self._patterns, GRID):
            words.append(page)
        if self._patterns:
            at = "[b]← →[/] cursor" if self._cursor is None else f"[b]cursor[/] {self._cursor:.1f} min"
            words.append(at)
        self.query_one("#system-hint", Static).update(Content.from_markup("   ".join(words)), layout=False)

    def next_chart(self, by: int) -> None:
        """Bring another page of charts to the front."""
        if self._patterns:
            self.query_one(ChartGrid).turn(by, self._patterns, GRID)

    def sideways(self, by: int) -> None:
        """Move the cursor by so many columns; the first time it appears at the end."""
        measured = self._history.system if self._history else []
        if not measured:
            return
        low, high = measured[0]["at"] / 60, measured[-1]["at"] / 60
        step = (high - low) / max(1, self.query_one(ChartGrid).current().size.width)
        self._set_cursor(high if self._cursor is None else min(high, max(low, self._cursor + by * step)))

    def clear_cursor(self) -> bool:
        """Take the cursor away; returns whether there was one."""
        had = self._cursor is not None
        if had:
            self._set_cursor(None)
        return had

    def _set_cursor(self, minutes: float | None) -> None:
        self._cursor = minutes
        if self._history is not None:
            self._draw_charts(self._history)

    def _recorded(self, history: History, state: str) -> Table:
        """What a run without a process has used."""
        table = _empty_table()
        table.add_row("run", "", Text(f"no process on this machine; the run is {state}"))
        for name, words in system_summary(history.system).items():
            table.add_row(Text(name), "", Text(words))
        self._add_data_wait(table, history)
        return table

    # What is now

    def _now(self, history: History) -> Table:
        table = _empty_table()
        memory = psutil.virtual_memory()
        pid = history.run.facts().get("pid")
        if self._family is None or pid != self._pid:
            self._pid, self._family = pid, FamilyLoad(int(pid or 0))
        cpu, resident, count = self._family.measure()
        cores = psutil.cpu_count() or 1
        if cpu is None:
            table.add_row("run, CPU", "", "measuring …")
        else:
            words = f"{percent(cpu / 100, 0)} of {percent(cores, 0)}, {count} process{'es' if count > 1 else ''}"
            table.add_row("run, CPU", self._bars("run", cpu / cores), words)
        table.add_row("run, memory", self._bars("rss", 100 * resident / memory.total), gigabytes(resident))
        table.add_row("CPU", self._bars("cpu", psutil.cpu_percent()), self._cores())
        used = f"{gigabytes(memory.total - memory.available)} of {gigabytes(memory.total)} used"
        table.add_row("memory", self._bars("memory", memory.percent), used)
        table.add_row("disk", "", _disk(self._free))
        self._add_data_wait(table, history)
        gpus = read_gpus()
        for gpu in gpus:
            table.add_row(
                Text(f"GPU {gpu.index}"), self._bars(f"gpu{gpu.index}", gpu.load or 0.0), Text(_gpu_words(gpu))
            )
        if not gpus:
            table.add_row("GPU", "", "no NVIDIA driver found: CPU only")
        return table

    def _add_data_wait(self, table: Table, history: History) -> None:
        waits = [w for w in list(history.columns["data_wait"])[-BARS_SHOWN:] if w == w]
        if waits:
            line = "".join(map(bar, waits))
            words = f"{percent(waits[-1])} of each step is spent waiting for data"
            table.add_row("data wait", Text(line, style=self._color), words)

    @property
    def _color(self) -> str:
        return self.app.theme_variables["text-primary"]

    def _bars(self, name: str, load: float) -> Text:
        """Remember a load in percent; returns the bars of the last ones."""
        past = self._past.setdefault(name, deque(maxlen=BARS_SHOWN))
        past.append(load)
        return Text("".join(bar(value / 100) for value in past), style=self._color)

    def _cores(self) -> str:
        loads = " ".join(f"{load:.0f}" for load in psutil.cpu_percent(percpu=True)[:CORES_SHOWN])
        one, five, _ = psutil.getloadavg()
        return f"by core: {loads} %; load average {one:.1f} (1 min), {five:.1f} (5 min)"


def _empty_table() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", min_width=13)
    table.add_column(max_width=BARS_SHOWN)
    table.add_column()
    return table


def _disk(free: float | None) -> str:
    return "cannot be read" if free is None else f"{gigabytes(free)} free"


def _gpu_words(gpu: GpuLoad) -> str:
    words = [] if gpu.load is None else [percent(gpu.load / 100, 0)]
    if gpu.memory is not None and gpu.total is not None:
        words.append(f"{gpu.memory / 2**30:.1f} of {gpu.total / 2**30:.0f} GB")
    words += [] if gpu.temperature is None else [f"{gpu.temperature:.0f} °C"]
    words += [] if gpu.power is None else [f"{gpu.power:.0f} W"]
    return ", ".join(words) or "its driver says nothing"
