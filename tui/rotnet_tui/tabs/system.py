"""What the run uses of the machine, and what is left."""

import shutil
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import psutil
from rich.table import Table
from rich.text import Text
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from rotnet_keras.text import percent
from rotnet_tui.settings import Settings
from rotnet_tui.state.gpus import read_gpus
from rotnet_tui.state.history import History
from rotnet_tui.state.words import bar
from rotnet_tui.tabs.base import RunTab

# Past measurements in each row of bars.
BARS_SHOWN = 20
# Cores whose load is listed one by one.
CORES_SHOWN = 16


class SystemTab(RunTab):
    """Load of the run's processes, the machine, its disk and its GPUs. Measured only while visible."""

    def __init__(self, settings: Settings, *, id: str) -> None:
        super().__init__(settings, id=id)
        self._past: dict[str, deque[float]] = {}
        self._processes: dict[int, psutil.Process] = {}

    def contents(self) -> Iterable[Widget]:
        """The table."""
        with VerticalScroll():
            yield Static(id="system-table")

    def on_mount(self) -> None:
        """Look for a driver before the tab is opened, since this takes a while."""
        self.run_worker(read_gpus, thread=True)

    def show(self, history: History, state: str) -> None:
        """Measure and draw."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", min_width=13)
        table.add_column(width=BARS_SHOWN)
        table.add_column()
        memory = psutil.virtual_memory()
        cpu, resident, count = self._run_load(history.run.facts().get("pid") if history.run.alive() else None)
        if count:
            cores = psutil.cpu_count() or 1
            if cpu is None:
                table.add_row("run, CPU", "", "measuring …")
            else:
                words = f"{cpu:.0f} % of {100 * cores} %, {count} process{'es' if count > 1 else ''}"
                table.add_row("run, CPU", self._bars("run", cpu / cores), words)
            table.add_row("run, memory", self._bars("rss", 100 * resident / memory.total), _bytes(resident))
        else:
            table.add_row("run", "", Text(f"no process on this machine; the run is {state}"))
        table.add_row("CPU", self._bars("cpu", psutil.cpu_percent()), self._cores())
        used = f"{_bytes(memory.total - memory.available)} of {_bytes(memory.total)} used"
        table.add_row("memory", self._bars("memory", memory.percent), used)
        table.add_row("disk", "", _disk(history.run.path))
        waits = [w for w in list(history.columns["data_wait"])[-BARS_SHOWN:] if w == w]
        if waits:
            line = "".join(map(bar, waits))
            words = f"{percent(waits[-1])} of each step is spent waiting for data"
            table.add_row("data wait", Text(line, style=self._color), words)
        gpus = read_gpus()
        for gpu in gpus:
            table.add_row(Text(gpu.name), self._bars(gpu.name, gpu.load), Text(gpu.details))
        if not gpus:
            table.add_row("GPU", "", "no NVIDIA driver found: CPU only")
        self.query_one("#system-table", Static).update(table)

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

    def _run_load(self, pid: int | None) -> tuple[float | None, int, int]:
        """CPU percent (None at first: it needs two measurements), resident bytes and number of processes of the run."""
        if pid is None:
            return 0.0, 0, 0
        first = pid not in self._processes
        try:
            parent = self._processes.setdefault(pid, psutil.Process(pid))
            family = [parent, *parent.children(recursive=True)]
        except psutil.Error:
            return 0.0, 0, 0
        # The objects must be kept: the CPU percentage of a process refers to the time since the previous call.
        self._processes = {p.pid: self._processes.get(p.pid, p) for p in family}
        cpu = resident = 0.0
        for process in self._processes.values():
            try:
                cpu += process.cpu_percent()
                resident += process.memory_info().rss
            except psutil.Error:
                continue
        return None if first else cpu, int(resident), len(family)


def _disk(path: Path) -> str:
    try:
        usage = shutil.disk_usage(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return f"{_bytes(usage.free)} of {_bytes(usage.total)} free"


def _bytes(count: float) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"
