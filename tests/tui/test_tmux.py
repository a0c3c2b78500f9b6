"""The terminal UI as its users meet it: in a terminal, key by key, beside runs that train."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from support.command_line import command
from support.fake_runs import fake_run
from support.fake_studies import fake_study

from rotnet_keras.runs import queue
from rotnet_keras.runs.folder import RunFolder, list_runs
from rotnet_keras.runs.launch import create_run

pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux")

TUI = [sys.executable, "-m", "rotnet_tui"]

FILTER_HAS_FOCUS = r"(?s)\A(?!.*n New run)"


class Terminal:
    """A terminal of its own, in which one program after another can be used."""

    def __init__(self, folder, socket, environment):
        self._tmux = ["tmux", "-L", socket, "-f", os.devnull]
        self._environment = environment
        self._folder = folder
        self._do("new-session", "-d", "-x", "120", "-y", "36", "sleep infinity", ";", "set", "remain-on-exit", "on")

    def start(self, *arguments, **environment):
        words = [f"{name}={value}" for name, value in environment.items()]
        self._do("respawn-pane", "-k", "-c", self._folder, "env", "TERM=xterm-256color", *words, *TUI, *arguments)

    def keys(self, *names):
        self._do("send-keys", *names)

    def type(self, text):
        self._do("send-keys", "-l", text)

    def screen(self, *options):
        return self._do("capture-pane", "-p", *options)

    def resize(self, columns, rows):
        self._do("resize-window", "-x", str(columns), "-y", str(rows))

    def process(self):
        return psutil.Process(int(self._do("display-message", "-p", "#{pane_pid}")))

    def close(self):
        self._do("kill-server")

    def wait_for(self, pattern, seconds=15):
        """The first match of a pattern on the screen."""
        return self._wait(lambda screen: re.search(pattern, screen, re.MULTILINE), f"to see {pattern!r}", seconds)

    def wait_for_end(self, seconds=15):
        """Wait until the program has left."""
        self._wait(lambda _: self._do("display-message", "-p", "#{pane_dead}") == "1\n", "for its end", seconds)

    def press(self, key, until, seconds=15):
        """Press a key, then wait for what it brings."""
        self.keys(key)
        return self.wait_for(until, seconds)

    def fill(self, key, value):
        """Go to a field of the form and write a value over the one it has."""
        self.go_to(key)
        self.keys("C-e", "C-u")
        self.wait_for(rf"{re.escape(key)}=['\"\s]")
        self.type(value)
        self.wait_for(re.escape(f"{key}={value}"))

    def open_table(self, key):
        """Show the fields of a table of the form that is closed."""
        self.go_to(key)
        self.press("Enter", f"{re.escape(key)}: enter hides")

    def go_to(self, key):
        """Press tab until a field or a table of the form has the focus."""
        helped = self.wait_for(r"─ summary ─.*\n(.*)").group(1)
        for _ in range(100):
            if re.match(rf"│ {re.escape(key)}(:| )", helped):
                break
            self.keys("Tab")
            helped = self.wait_for(rf"─ summary ─.*\n(?!{re.escape(helped)})(.*)").group(1)
        else:
            pytest.fail(f"no field {key} in the form:\n{self.screen()}")

    def _wait(self, found, what, seconds):
        deadline = time.monotonic() + seconds
        while not (result := found(screen := self.screen())):
            assert time.monotonic() < deadline, f"waited {seconds} s {what}:\n{screen}"
            time.sleep(0.05)
        return result

    def _do(self, *words):
        result = subprocess.run(
            [*self._tmux, *map(str, words)], env=self._environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, f"tmux {words[0]}: {result.stderr}"
        return result.stdout


@pytest.fixture
def environment(tmp_path):
    """Nothing of the user's: no settings, no keys, no runs."""
    ours = {
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "ROTNET_RUNS_DIR": str(tmp_path / "runs"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    # Python's readline exports COLUMNS and LINES, which a program in a terminal believes more than the terminal.
    theirs = ("TMUX", "NO_COLOR", "COLUMNS", "LINES")
    return {name: value for name, value in os.environ.items() if name not in theirs} | ours


@pytest.fixture
def terminal(tmp_path, environment):
    """A terminal; afterwards neither it nor a run or a queue that was started in it is left."""
    terminal = Terminal(tmp_path, f"rotnet-{os.getpid()}-{time.monotonic_ns()}", environment)
    yield terminal
    subprocess.run([*terminal._tmux, "kill-server"], capture_output=True, check=False)
    worker = queue.worker_pid(tmp_path / "runs")
    for pid in [worker] if worker else []:
        os.kill(pid, signal.SIGKILL)
    for run in list_runs(tmp_path / "runs"):
        if run.alive():
            os.kill(run.facts()["pid"], signal.SIGKILL)


@pytest.fixture
def start_run(tmp_path, tiny_recipe, environment):
    """Starts a run of some seconds, as a process of its own."""

    def start(name, *overrides):
        words = command(
            "run", tiny_recipe, "train.epochs=10", "train.log_every=1", *overrides, "--name", name, "--detach"
        )
        subprocess.run(words, cwd=tmp_path, env=environment, check=True, capture_output=True)
        return RunFolder(tmp_path / "runs" / name)

    return start


def finished_run(runs_dir, name):
    """A run as one finds it when it has finished, without the training."""
    started = time.time() - 60
    facts = {"recipe": "tiny", "created": started, "pid": 2**22 + 1, "since_boot": 0.0, "host": os.uname().nodename}
    run = create_run(runs_dir, name, 'kind = "pretrain"\n\n[train]\nepochs = 1\n', facts)
    events = [{"kind": "start", "time": started}]
    for step in range(1, 11):
        now = {"time": started + step, "step": step, "epoch": step / 10, "learning_rate": 0.1, "images_per_s": 10.0}
        events.append({"kind": "step", "loss": 2 / step, "accuracy": step / 11, **now})
    events.append({"kind": "end", "time": started + 11, "outcome": "finished", "message": ""})
    run.events_file.write_text("".join(json.dumps(event) + "\n" for event in events))
    return run


def wait(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def lifetime(run):
    """When a run's work began, and when it ended for the last time."""
    events = run.events()
    return next(e["time"] for e in events if e["kind"] == "start"), events[-1]["time"]


@pytest.mark.long
def test_a_session(terminal, tmp_path, tiny_recipe):
    terminal.start()
    terminal.wait_for("quickstart takes a few minutes")
    terminal.press("n", "─ summary ─")
    terminal.wait_for("426 steps of 64 images")
    terminal.keys("Tab")
    terminal.fill("backbone.width", "0.25")
    terminal.fill("train.epochs", "five")
    terminal.wait_for("expected an integer, got 'five'")
    terminal.fill("train.epochs", "3")
    terminal.fill("train.log_every", "4")
    terminal.open_table("probe.0")
    terminal.fill("probe.0.epochs", "1")
    terminal.fill("probe.0.baselines", "[]")
    terminal.open_table("probe.1")
    terminal.fill("probe.1.baselines", "[]")
    terminal.fill("probe.1.repeats", "1")
    terminal.wait_for("213 steps of 64 images × 4 rotations")

    terminal.press("F2", r"^│ . (starting|running) +quickstart-")
    terminal.wait_for(r"^│ ● running +quickstart-", 60)
    terminal.press("2", "°→", 60)
    loss = terminal.press("1", r"train (\d\.\d{3})").group(1)
    terminal.press("q", "1 run continues in the background")

    terminal.start()
    terminal.wait_for("● running +quickstart-")
    terminal.press("s", "◐ stopping|‖ stopped")
    terminal.wait_for("‖ stopped +quickstart-", 40)
    terminal.press("r", "◌ starting|● running", 40)
    terminal.press("Enter", rf"train (?!{loss})\d\.\d{{3}}", 60)
    terminal.press("Escape", "Runs +Recipes +Queue")

    terminal.press("2", "tiny.toml")
    terminal.press("Enter", "recipe +.*tiny.toml")
    terminal.wait_for("steps of 16 images")
    terminal.press("F3", "number 1 in the queue")
    terminal.wait_for("Runs +Recipes +Queue")
    terminal.press("3", "1 waiting")
    terminal.press("1", "… queued +tiny-")
    terminal.wait_for("✓ finished +quickstart-", 120)
    terminal.wait_for("✓ finished +tiny-", 60)
    tiny, quickstart = sorted(list_runs(tmp_path / "runs"), key=lambda run: run.name, reverse=True)
    assert lifetime(quickstart)[1] <= lifetime(tiny)[0]
    assert quickstart.facts()["overrides"]["train.epochs"] == 3

    terminal.press("Up", "preview(?s:.*)finished +tiny-")
    terminal.press("Space", "◆")
    terminal.press("Space", "(?s)◆.*◆")
    terminal.press("c", "rotation accuracy, validation")
    terminal.wait_for(rf"│ +━ {quickstart.name} +╍ {tiny.name}")
    terminal.press("End", r"probe.1.schedule.peak +0.25 ")
    terminal.keys("q")
    terminal.wait_for_end()
    assert "continue" not in terminal.screen()


@pytest.mark.slow
def test_killing_the_ui_leaves_the_run_alone(terminal, start_run):
    run = start_run("a")
    terminal.start("a")
    terminal.wait_for("● running", 60)
    terminal.process().kill()
    terminal.close()
    assert run.alive()
    wait(lambda: run.state() == "finished", run.log.read_text())
    events = run.events()
    assert [e["step"] for e in events if e["kind"] == "step"] == list(range(1, 101))
    assert [e["outcome"] for e in events if e["kind"] == "end"] == ["finished"]


@pytest.mark.slow
def test_a_killed_run_is_shown_and_resumed(terminal, start_run):
    run = start_run("a")
    terminal.start()
    terminal.wait_for("● running +a", 60)
    wait(lambda: any(e["kind"] == "epoch" for e in run.last_events()), "no epoch")
    os.kill(run.facts()["pid"], signal.SIGKILL)
    terminal.wait_for("† killed +a", 10)
    terminal.press("Enter", r"^│ † killed +a")
    terminal.press("r", r"^│ ● running +a", 60)
    terminal.wait_for(r"^│ ✓ finished +a", 60)
    assert [e["step"] for e in run.events() if e["kind"] == "step"] == list(range(1, 101))


@pytest.fixture
def study_under_way(tmp_path, monkeypatch, terminal):
    """A study, one of whose runs seems to be made by this process; before the terminal is closed the run is gone."""
    monkeypatch.chdir(tmp_path)
    yield fake_study(tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs" / "wide-s0")


@pytest.mark.long
@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 36)])
def test_queries_tags_charts_and_answers_by_keys(terminal, tmp_path, study_under_way, columns, rows):
    runs = tmp_path / "runs"
    fake_run(runs, "good", epochs=8, age=0, outcome="finished")
    fake_run(runs, "bad", epochs=2, age=9000, outcome="failed", message="Error: the loss became nan by step 130")
    terminal.resize(columns, rows)
    terminal.start()
    terminal.wait_for("finished +good")

    terminal.press("/", "words, state:running")
    terminal.type("rott>80")
    terminal.wait_for("did you mean 'rot'")
    terminal.press("C-u", "words, state:running")
    terminal.type("rot>90 name:go -st")
    terminal.wait_for("name:go -state:$")
    terminal.press("Right", "expected a value, as in state:cifar")
    terminal.type("failed")
    terminal.wait_for(r"finished +good(?s:(?!rotnet-s0).)*rot>90 name:go -state:failed")
    # The line of keys follows the focus, late on a busy machine: while the filter has it, letters are no keys.
    terminal.wait_for(FILTER_HAS_FOCUS)
    terminal.press("Enter", "n New run")
    terminal.press("T", "Tags of good")
    terminal.type("paper")
    terminal.press("Enter", "good #paper")
    terminal.press("Escape", "rotnet-s0")
    terminal.press("/", "words, state:running")
    terminal.type("name:bad")
    terminal.wait_for("(?s)failed +bad(?!.*finished +good)")
    terminal.wait_for(FILTER_HAS_FOCUS)
    terminal.press("Enter", "n New run")
    terminal.press("a", "bad: diverged")
    terminal.wait_for("optimizer.learning_rate=")
    terminal.press("Escape", "failed +bad")
    terminal.press("Escape", "rotnet-s0")

    terminal.press("/", "words, state:running")
    terminal.type("name:good")
    terminal.wait_for("(?s)finished +good(?!.*failed +bad)")
    terminal.wait_for(FILTER_HAS_FOCUS)
    terminal.press("Enter", "n New run")
    terminal.press("Enter", "━ train 0.")
    terminal.press("Left", "cursor step 480")
    terminal.press("Left", "cursor step 4[0-7]0")
    terminal.press("Escape", "← → cursor")
    terminal.press("g", "Arrange the charts")
    terminal.press("C-u", "expected at least one metric")
    terminal.type("accuracy_*, images_per_s")
    terminal.press("Enter", "accuracy_\\*, %")
    terminal.wait_for("━ 0 94.0 +╍ 90 94.0")
    terminal.press("5", "CPU of the run +.*% of a core on average")
    terminal.wait_for("CPU of the run, % of a core")
    terminal.press("Escape", "Runs +Recipes +Queue")
    terminal.press("Escape", "rotnet-s0")

    terminal.press("/", "words, state:running")
    terminal.type("name:study")
    terminal.wait_for("(?s) study (?!.*good)")
    terminal.wait_for(FILTER_HAS_FOCUS)
    terminal.press("Enter", "n New run")
    terminal.press("Enter", "1 of 4 runs finished")
    terminal.wait_for(r"91\.5 \(91\.1\)")
    terminal.press("Enter", "finished +rotnet-s0")
    terminal.keys("q")
    terminal.wait_for_end()


def test_small_terminal(terminal, tmp_path):
    finished_run(tmp_path / "runs", "a")
    terminal.resize(50, 12)
    terminal.start()
    terminal.wait_for("^finished a")
    assert "Runs" not in terminal.screen()
    for columns, rows in ((80, 24), (120, 36), (5, 3), (120, 36)):
        terminal.resize(columns, rows)
        if columns > 5:
            terminal.wait_for("✓ finished +a\\b")
    terminal.press("Enter", "train 0.")
    for columns, rows in ((80, 24), (50, 12), (5, 3), (80, 24)):
        terminal.resize(columns, rows)
        if columns > 5:
            terminal.wait_for("✓ finished +a\\b")
    terminal.wait_for("chart 1 of 4")
    terminal.press("]", "chart 2 of 4")
    terminal.keys("q")
    terminal.wait_for_end()
    assert "rotnet-tui" not in terminal.screen()


def test_a_shipped_recipe_is_copied_before_it_is_edited(terminal, tmp_path):
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/^title = .*/title = \\"of my own\\"/" "$1"\n')
    editor.chmod(0o755)
    terminal.start(EDITOR=editor)
    terminal.wait_for("No runs in")
    terminal.press("2", "cifar_cpu +pretrain")
    terminal.press("e", r"cifar_cpu.toml +pretrain .*of my own")
    assert 'title = "of my own"' in (tmp_path / "cifar_cpu.toml").read_text()


@pytest.mark.long
@pytest.mark.parametrize("arguments", [(), ("a",)])
def test_without_colour(terminal, tmp_path, arguments):
    run = finished_run(tmp_path / "runs", "a")
    terminal.start(*arguments, NO_COLOR=1)
    terminal.wait_for("✓ finished +a\\b")
    (run.events_file).write_text("")
    terminal.wait_for("† killed +a\\b")
    colours = re.findall(r"[34]8;2;(\d+);(\d+);(\d+)", terminal.screen("-e"))
    assert all(red == green == blue for red, green, blue in colours)


def test_a_terminal_that_cannot_be_drawn_on(tmp_path, environment):
    ours, theirs = os.openpty()
    result = subprocess.run(
        TUI,
        cwd=tmp_path,
        env=environment | {"TERM": "dumb"},
        stdout=theirs,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(ours)
    os.close(theirs)
    assert result.returncode == 1 and b"(TERM=dumb). Use instead: rotnet-keras status RUN" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [((), 1, "rotnet-tui needs a terminal"), (("NOSUCHRUN",), 1, "no run called 'NOSUCHRUN'")],
)
def test_a_mistake_ends_in_one_message(tmp_path, environment, arguments, code, message):
    result = subprocess.run(
        [*TUI, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == code and not result.stdout
    assert result.stderr.startswith(message) and len(result.stderr.splitlines()) == 1
