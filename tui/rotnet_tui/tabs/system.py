"""The machine: what the run takes of it, and what is left."""

import shutil
from collections import deque
from pathlib import Path

import psutil
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from rotnet_tui.state.gpus import read_gpus
from rotnet_tui.state.history import History
from rotnet_tui.tabs.base import Pane

BARS = "▁▂▃▄▅▆▇█"
REMEMBERED = 40


class System(Pane):
    """Load of the run's processes, of the machine, of its disks and GPUs; measured while it is looked at."""

    def __init__(self) -> None:
        super().__init__(id="system")
        self._past: dict[str, deque[float]] = {}
        self._processes: dict[int, psutil.Process] = {}

    def compose(self) -> ComposeResult:
        """The table."""
        with VerticalScroll():
            yield Static(id="system-table")

    def on_mount(self) -> None:
        """Look for a driver before the tab is opened: the first look takes a while."""
        self.run_worker(read_gpus, thread=True)

    def show(self, history: History, state: str) -> None:
        """Measure and draw."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", min_width=13)
        table.add_column(width=REMEMBERED // 2)
        table.add_column()
        cpu, memory, count = self._of_run(history.run.facts().get("pid") if history.run.alive() else None)
        if count:
            cores = psutil.cpu_count() or 1
            if cpu is None:
                table.add_row("run, CPU", "", "measuring …")
            else:
                words = f"{cpu:.0f} % of {100 * cores} %, {count} process{'es' if count > 1 else ''}"
                table.add_row("run, CPU", self._bars("run", cpu / cores), words)
            table.add_row(
                "run, memory", self._bars("rss", 100 * memory / psutil.virtual_memory().total), _bytes(memory)
            )
        else:
            table.add_row("run", "", f"no process here: it is {state}")
        table.add_row("CPU", self._bars("cpu", psutil.cpu_percent()), self._cores())
        virtual = psutil.virtual_memory()
        used = f"{_bytes(virtual.total - virtual.available)} of {_bytes(virtual.total)} in use"
        table.add_row("memory", self._bars("memory", virtual.percent), used)
        table.add_row("disk", "", _disk(history.run.path))
        waits = [w for w in list(history.columns["data_wait"])[-REMEMBERED // 2 :] if w == w]
        if waits:
            line = "".join(_bar(100 * w) for w in waits)
            table.add_row("data wait", Text(line, style=self._color), f"{waits[-1]:.1%} of the time of the last steps")
        gpus = read_gpus()
        for gpu in gpus:
            table.add_row(gpu.name, self._bars(gpu.name, gpu.load), gpu.words)
        if not gpus:
            table.add_row("GPU", "", "no NVIDIA driver found: CPU only")
        self.query_one("#system-table", Static).update(table)

    @property
    def _color(self) -> str:
        return self.app.theme_variables["text-primary"]

    def _bars(self, name: str, percent: float) -> Text:
        past = self._past.setdefault(name, deque(maxlen=REMEMBERED // 2))
        past.append(percent)
        return Text("".join(map(_bar, past)), style=self._color)

    def _cores(self) -> str:
        loads = " ".join(f"{load:.0f}" for load in psutil.cpu_percent(percpu=True)[:16])
        one, five, _ = psutil.getloadavg()
        return f"by core {loads} %; load {one:.1f} (1 min), {five:.1f} (5 min)"

    def _of_run(self, pid: int | None) -> tuple[float | None, int, int]:
        """CPU percent (None at first: it takes two looks), resident bytes and number of processes of the run."""
        if pid is None:
            return 0.0, 0, 0
        first = pid not in self._processes
        try:
            parent = self._processes.setdefault(pid, psutil.Process(pid))
            family = [parent, *parent.children(recursive=True)]
        except psutil.Error:
            return 0.0, 0, 0
        # A process object must be kept: its CPU percentage is of the time since the call before.
        self._processes = {p.pid: self._processes.get(p.pid, p) for p in family}
        cpu = memory = 0.0
        for process in self._processes.values():
            try:
                cpu += process.cpu_percent()
                memory += process.memory_info().rss
            except psutil.Error:
                continue
        return None if first else cpu, int(memory), len(family)


def _bar(percent: float) -> str:
    return BARS[min(len(BARS) - 1, max(0, int(percent / 100 * len(BARS))))]


def _disk(path: Path) -> str:
    try:
        usage = shutil.disk_usage(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return f"{_bytes(usage.free)} free of {_bytes(usage.total)}"


def _bytes(count: float) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"
