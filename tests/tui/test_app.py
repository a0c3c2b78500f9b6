"""What the terminal UI does, through its keys and its screen."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest
from rotnet_tui import settings
from rotnet_tui.app import RotnetApp
from rotnet_tui.screens import home
from support.command_line import run_python
from support.fake_runs import fake_run, work_on, write_steps
from support.screen_words import drawn, text_of, until
from textual.widgets import DataTable, Input

from rotnet_keras.runs.processes import process_identity
from rotnet_keras.runs.tags import change_tags, read_labels

START = """
import asyncio, sys
from pathlib import Path
from rotnet_tui.app import RotnetApp

async def main():
    app = RotnetApp(Path("runs"))
    async with app.run_test(size=(120, 36)) as pilot:
        for _ in range(300):
            await pilot.pause(0.05)
            if "No runs in runs yet" in str(app.screen.query_one("#runs-empty").render()):
                break
        else:
            sys.exit("no first screen")
    heavy = [name for name in ("tensorflow", "keras", "numpy", "matplotlib", "sklearn", "PIL") if name in sys.modules]
    assert not heavy, heavy

asyncio.run(main())
"""


def test_it_starts_without_heavy_imports_and_says_how_to_begin(tmp_path):
    run_python(f"import os; os.chdir({str(tmp_path)!r})\n{START}", XDG_STATE_HOME=str(tmp_path))


async def test_filter_marks_and_pins(runs_dir):
    for name in ("apple", "banana", "cherry"):
        run = fake_run(runs_dir, name, epochs=1, outcome="finished")
    change_tags(run, ["paper"])
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(120, 36)) as pilot:
        table = app.screen.query_one("#run-table", DataTable)
        await until(pilot, lambda: table.row_count == 3)
        await pilot.press("slash", *"ban")
        await until(pilot, lambda: table.row_count == 1)
        await pilot.press("left_square_bracket", *"yz")
        await until(pilot, lambda: "No run matches 'ban[yz'" in text_of(app, "#runs-empty"))
        await pilot.press("escape")
        await until(pilot, lambda: table.row_count == 3)
        await pilot.press("slash", *"rott>9")
        await until(pilot, lambda: "did you mean 'rot'?" in text_of(app, "#filter-problem"))
        assert table.row_count == 3
        await pilot.press("ctrl+u", *"-tag:pap", "right")
        await until(pilot, lambda: table.row_count == 2)
        assert app.screen.query_one("#filter", Input).value == "-tag:paper"
        await pilot.press("escape")
        await until(pilot, lambda: table.row_count == 3)
        assert not app.screen.query_one("#filter-problem").display
        await pilot.press("end", "p", "q")
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(120, 36)) as pilot:
        table = app.screen.query_one("#run-table", DataTable)
        await until(pilot, lambda: table.row_count == 3)
        assert app.settings.pinned == [str(table.get_row_at(0)[2])]


@pytest.mark.long
async def test_a_chart_is_maximised_and_the_log_searched(runs_dir):
    run = fake_run(runs_dir, "one", epochs=2, outcome="finished")
    app = RotnetApp(runs_dir, run)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "chart 1 of 4" in text_of(app, "#curves-hint"))
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: "chart 2 of 4" in text_of(app, "#curves-hint"))
        await pilot.press("z")
        await until(pilot, lambda: app.screen.maximized is app.screen.query_one("#chart-1"))
        chart = app.screen.query_one("#chart-1")
        assert chart.size.height > 18 and str(chart.border_title) == "rotation accuracy, %"
        await pilot.press("escape")
        await until(pilot, lambda: app.screen.maximized is None)
        await pilot.press("6")
        await until(pilot, lambda: "4 of 6 lines" in text_of(app, "#log-head"))
        # Long lines are not cut in two: they are scrolled, or wrapped on demand.
        log = app.screen.query_one("#log-lines")
        assert len(log.lines) == 4
        await pilot.press("right")
        await until(pilot, lambda: log.scroll_offset.x > 0)
        await pilot.press("v")
        await until(pilot, lambda: len(log.lines) > 4)
        await pilot.press("u")
        await until(pilot, lambda: "6 of 6 lines" in text_of(app, "#log-head"))
        await pilot.press("l", "l")
        await until(pilot, lambda: "2 of 6 lines" in text_of(app, "#log-head"))
        await pilot.press("l", "slash", *"skipped")
        await until(pilot, lambda: "1 of 6 lines" in text_of(app, "#log-head"))
        await pilot.press("escape")
        await until(pilot, lambda: "6 of 6 lines" in text_of(app, "#log-head"))


async def test_deleting_asks_first(runs_dir):
    run = fake_run(runs_dir, "old", epochs=1, outcome="finished")
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: app.index.ready)
        await pilot.press("d")
        await until(pilot, lambda: bool(app.screen.query(".command")))
        assert "rotnet-keras delete old" in text_of(app, ".command")
        await pilot.press("n")
        await until(pilot, lambda: not app.screen.query(".command"))
        assert run.path.is_dir()
        await pilot.press("d")
        await until(pilot, lambda: bool(app.screen.query(".command")))
        await pilot.press("y")
        await until(pilot, lambda: not run.path.exists())


async def test_of_many_runs_the_newest_are_listed_and_the_others_found(runs_dir, monkeypatch):
    monkeypatch.setattr(home, "MAX_ROWS", 3)
    for number in range(6):
        fake_run(runs_dir, f"run{number}", epochs=1, age=1000 * number, outcome="finished")
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(120, 36)) as pilot:
        table = app.screen.query_one("#run-table", DataTable)
        await until(pilot, lambda: "the newest 3 of 6 runs" in text_of(app, "#runs-more"))
        assert [str(table.get_row_at(row)[2]) for row in range(3)] == ["run0", "run1", "run2"]
        await pilot.press("slash", *"run5")
        await until(pilot, lambda: table.row_count == 1 and not app.screen.query_one("#runs-more").display)
        assert str(table.get_row_at(0)[2]) == "run5"


@pytest.mark.long
async def test_tags_and_notes_are_written_in_a_dialog(runs_dir):
    run = fake_run(runs_dir, "one", epochs=1, outcome="finished")
    change_tags(run, ["old"])
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(150, 36)) as pilot:
        await until(pilot, lambda: "one #old" in drawn(app))
        await pilot.press("T")
        await until(pilot, lambda: bool(app.screen.query("#dialog-text")))
        assert "rotnet-keras tag one ..." in text_of(app, ".command")
        await pilot.press("ctrl+u", *"new paper", "enter")
        await until(pilot, lambda: "one #new #paper" in drawn(app))
        await pilot.press("N")
        await until(pilot, lambda: bool(app.screen.query("#dialog-text")))
        await pilot.press(*"-worth it", "enter")
        await until(pilot, lambda: "note  -worth it" in drawn(app))
    assert read_labels(run) == (("new", "paper"), "-worth it")


async def test_killing_asks_first(runs_dir):
    sleeper = psutil.Popen([sys.executable, "-c", "import time; time.sleep(60)", "rotnet_keras"])
    run = fake_run(runs_dir, "live", epochs=2)
    facts = run.facts() | process_identity(sleeper)
    run.facts_file.write_text(json.dumps(facts))
    with run.events_file.open("a") as file:
        file.write(
            '{"kind":"step","time":1,"step":125,"epoch":1,"loss":1,"accuracy":1,"learning_rate":1,"images_per_s":1}\n'
        )
    work_on(run)
    app = RotnetApp(runs_dir, run)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: "running" in text_of(app, "#strip") or "stalled" in text_of(app, "#strip"))
        await pilot.press("K")
        await until(pilot, lambda: bool(app.screen.query(".command")))
        assert "rotnet-keras kill live" in text_of(app, ".command") and "5 steps" in text_of(app, ".loss")
        await pilot.press("n")
        await until(pilot, lambda: not app.screen.query(".command"))
        assert run.alive()
        await pilot.press("K")
        await until(pilot, lambda: bool(app.screen.query(".command")))
        await pilot.press("y")
        await until(pilot, lambda: "killed" in text_of(app, "#strip"), 10)
    assert sleeper.wait(5) == -9


@pytest.mark.long
async def test_user_keys_and_a_broken_keymap(runs_dir):
    fake_run(runs_dir, "one", epochs=1, outcome="finished")
    path = settings.keymap_file()
    path.parent.mkdir(parents=True)
    path.write_text('new = "a"\nnosuch = "b"\n')
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: app.index.ready)
        assert any("no binding called nosuch" in n.message for n in app._notifications)
        await pilot.press("a")
        await until(pilot, lambda: bool(app.screen.query("#form-command")))


async def test_settings_that_cannot_be_saved_are_reported_at_the_end(runs_dir, tmp_path):
    (tmp_path / "state").write_text("in the way")
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press("q")
    assert "tui.json" in str(settings.save_settings(app.settings))


async def test_a_crash_leaves_its_traceback_in_a_file(runs_dir):
    app = RotnetApp(runs_dir)
    with pytest.raises(ZeroDivisionError):
        async with app.run_test(size=(120, 36)) as pilot:
            app.call_later(lambda: 1 / 0)
            await until(pilot, lambda: app.crash_report is not None)
    assert app.crash_report and "ZeroDivisionError" in app.crash_report.read_text()


async def test_below_60_by_16_it_shows_the_state_in_four_lines(runs_dir):
    run = fake_run(runs_dir, "live", epochs=3, alive=True)
    app = RotnetApp(runs_dir, run)
    async with app.run_test(size=(50, 8)) as pilot:
        await until(pilot, lambda: "running" in text_of(app, "#tiny"))
        assert app.screen.query_one("#tiny").region.height >= 4
        assert "Learning" in text_of(app, "#tiny")
        await pilot.resize_terminal(1, 1)
        await until(pilot, lambda: app.screen.size == (1, 1))
        await pilot.resize_terminal(100, 30)
        await until(pilot, lambda: app.screen.query_one("#chart-1").region.height > 3)


@pytest.mark.slow
async def test_200_runs_and_a_million_steps(runs_dir):
    for n in range(200):
        fake_run(runs_dir, f"run{n}", epochs=1, outcome="finished")
    big = fake_run(runs_dir, "big", epochs=1, age=0, outcome="finished")
    write_steps(big, 1_000_000)
    before = psutil.Process().memory_info().rss
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(120, 36)) as pilot:
        table = app.screen.query_one("#run-table", DataTable)
        await until(pilot, lambda: table.row_count == 201, 5)
        await pilot.press("enter")
        await until(pilot, lambda: len(app.screen_stack) > 2 and app.screen.history.complete, 10)
        assert app.screen.history.latest["step"] == 1_000_000
        assert "logged step is drawn" in text_of(app, "#curves-hint")
    assert psutil.Process().memory_info().rss - before < 150e6


@pytest.mark.slow
def test_in_a_browser_on_this_machine_only(runs_dir):
    import socket
    import urllib.request

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "rotnet_tui", "--serve", "--port", str(port)]
    server = subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().split()[-1]
        assert address.startswith(f"http://127.0.0.1:{port}/")
        deadline = time.monotonic() + 20
        while True:
            try:
                page = urllib.request.urlopen(address, timeout=5).read()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert b"rotnet-tui" in page
        listening = [c.laddr.ip for c in psutil.Process(server.pid).net_connections() if c.status == "LISTEN"]
        assert listening == ["127.0.0.1"]
    finally:
        server.terminate()
        server.communicate(timeout=10)


def test_a_port_that_is_in_use_is_reported(runs_dir):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "rotnet_tui", "--serve", "--port", port]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith(f"cannot listen on port {port} (")
    assert "Traceback" not in result.stderr


async def test_a_key_asks_why_a_run_failed(runs_dir):
    fake_run(runs_dir, "bad", epochs=2, outcome="failed", message="Error: the loss became nan by step 130")
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.index.ready)
        await pilot.press("a")
        await until(pilot, lambda: "bad: diverged" in drawn(app))
        assert "rotnet-keras why bad" in drawn(app) and "learning_rate=0.033" in drawn(app)
        await pilot.press("y")
        await until(pilot, lambda: "learning_rate=0.033" in app.clipboard)


async def test_recipes_that_are_read_while_the_screen_is_closed_are_not_shown(runs_dir):
    app = RotnetApp(runs_dir)
    async with app.run_test() as pilot:
        await until(pilot, lambda: app.screen.query_one("#recipe-table", DataTable).row_count > 10)
        await app.screen.query_one("#recipe-table").remove()
        app.screen._recipes = []
        await app.screen._read_recipes().wait()
