"""What the terminal UI does, through its keys and its screen."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from command_line import run_python
from fake_runs import fake_run, write_steps
from rich.console import Console
from rotnet_tui import form_fields, settings
from rotnet_tui.app import RotnetApp
from textual.widgets import Button, DataTable, Input, Select, Static

from rotnet_keras.launch import load_for_run
from rotnet_keras.recipe import load_recipe, to_toml
from rotnet_keras.runs import create_run, list_runs

START = """
import asyncio, sys
from pathlib import Path
from rotnet_tui.app import RotnetApp

async def main():
    app = RotnetApp(Path("runs"))
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.pause(0.5)
        assert "Nothing in runs yet" in str(app.screen.query_one("#runs-empty").render())
    heavy = [name for name in ("tensorflow", "keras", "numpy", "matplotlib", "sklearn", "PIL") if name in sys.modules]
    assert not heavy, heavy

asyncio.run(main())
"""


def text_of(app, selector):
    return str(app.screen.query_one(selector, Static).render())


def shown(app, selector):
    """What a widget draws, as plain text."""
    console = Console(width=100, file=io.StringIO())
    console.print(app.screen.query_one(selector, Static).content)
    return console.file.getvalue()


async def until(pilot, condition, seconds=15):
    """Wait until something holds; the clock of the app goes on meanwhile."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        await pilot.pause(0.05)


def test_it_starts_light_and_says_how_to_begin(tmp_path):
    run_python(f"import os; os.chdir({str(tmp_path)!r})\n{START}", XDG_STATE_HOME=str(tmp_path))


async def test_a_run_that_goes_on_is_followed(runs_dir):
    run = fake_run(runs_dir, "live", epochs=2, alive=True)
    app = RotnetApp(runs_dir, run)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: "step 120/480" in text_of(app, "#strip"))
        assert "Learning: validation" in text_of(app, "#strip")
        with run.events_file.open("a") as file:
            for step in (130, 140):
                event = {"kind": "step", "time": time.time(), "step": step, "epoch": step / 60, "loss": 0.1234}
                event |= {"accuracy": 0.99, "learning_rate": 0.1, "images_per_s": 1.0, "data_wait": 0.5}
                file.write(json.dumps(event, separators=(",", ":")) + "\n")
            file.write('{"kind":"step","time":1,"st')
        await until(pilot, lambda: "step 140/480" in text_of(app, "#strip"))
        assert "data wait 50.0 %" in text_of(app, "#strip")
        assert app.screen.history.columns["step"][-1] == 140
        loss = app.screen.query_one("#loss")
        before = str(loss.border_subtitle)
        await pilot.press("m")
        await until(pilot, lambda: str(loss.border_subtitle) != before)


async def test_a_killed_run_says_why_and_how_to_go_on(runs_dir):
    run = fake_run(runs_dir, "dead", epochs=2)
    app = RotnetApp(runs_dir, run)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: "killed" in text_of(app, "#strip"))
        assert "step 120" in text_of(app, "#strip") and "resume dead" in text_of(app, "#strip").replace("\n", " ")


async def test_unreadable_lines_are_counted_and_a_deleted_folder_is_told(runs_dir):
    run = fake_run(runs_dir, "odd", epochs=1, outcome="finished")
    with run.events_file.open("ab") as file:
        file.write(b"no event\n\xff\xfe\n")
    app = RotnetApp(runs_dir, run)
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.press("6")
        await until(pilot, lambda: "2 unreadable lines" in text_of(app, "#log-head"))
        run.path.rename(runs_dir / ".away")
        await until(pilot, lambda: "not there any more" in text_of(app, "#strip"))
        for key in "1234567":
            await pilot.press(key)
        await pilot.press("escape")
        await until(pilot, lambda: "Nothing in runs yet" in text_of(app, "#runs-empty"))


async def test_events_of_another_kind_of_world_do_not_end_it(runs_dir):
    run = fake_run(runs_dir, "odd", epochs=1)
    with run.events_file.open("a") as file:
        for kind in ("epoch", "samples", "probe", "checkpoint", "resume", "end", "nosuch", "step", "epoch"):
            file.write(
                json.dumps({"kind": kind, "time": 1, "step": "x", "file": 3, "validation": [], "tiles": 1}) + "\n"
            )
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: app.index.ready)
        await pilot.press("enter")
        for key in "1234567":
            await pilot.press(key)
            await pilot.pause(0.1)
        await until(pilot, lambda: "odd" in text_of(app, "#strip"))


async def test_a_folder_of_a_newer_version_can_only_be_looked_at(runs_dir):
    run = fake_run(runs_dir, "later", epochs=1)
    facts = run.facts() | {"format": 99}
    run.facts_file.write_text(json.dumps(facts))
    app = RotnetApp(runs_dir, run)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: "newer version" in text_of(app, "#strip"))
        await pilot.press("r")
        await until(pilot, lambda: any("newer version" in n.message for n in app._notifications))
    assert not run.alive()


async def test_the_form_explains_mistakes_beside_the_field(runs_dir):
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(120, 50)) as pilot:
        await pilot.press("n")
        await until(pilot, lambda: bool(list(app.screen.query("Row"))) and "568 steps" in text_of(app, "#form-steps"))
        rows = {row.field.key: row for row in app.screen.query("Row")}
        rows["train.epochs"].query_one(Input).value = "ten"
        rows["optimizer.learning_rate"].query_one(Input).value = "-1"
        rows["seed"].query_one(Input).value = ""
        await until(pilot, lambda: rows["train.epochs"].has_class("-wrong"))
        assert "expected an integer, got 'ten'" in str(rows["train.epochs"].query_one(".error").render())
        assert "greater than 0" in str(rows["optimizer.learning_rate"].query_one(".error").render())
        assert "a value is needed" in str(rows["seed"].query_one(".error").render())
        assert not rows["train.batch"].has_class("-wrong")
        assert app.screen.query_one("#start", Button).disabled
        await pilot.press("f2")
        rows["train.epochs"].query_one(Input).value = "2"
        rows["optimizer.learning_rate"].query_one(Input).value = "0.05"
        rows["seed"].query_one(Input).value = "0"
        rows["backbone.name"].query_one(Select).value = "nin"
        rows["title"].query_one(Input).value = "a 'title' = 3"
        await until(pilot, lambda: "142 steps" in text_of(app, "#form-steps"))
        command = text_of(app, "#form-command")
        for words in ("train.epochs=2", "optimizer.learning_rate=0.05", "backbone.name=nin"):
            assert words in command
        assert "seed" not in command and not app.screen.query_one("#start", Button).disabled
        shown = subprocess.run(
            command.replace("rotnet-keras run", f"{sys.executable} -m rotnet_keras show"),
            shell=True, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert "title = \"a 'title' = 3\"" in shown and "learning_rate = 0.05" in shown
    assert not list_runs(runs_dir)


@pytest.mark.parametrize("name", ["quickstart", "cifar_nin", "folder", "probe", "finetune"])
def test_every_field_of_a_form_gives_the_recipe_back(name):
    recipe = load_recipe(name)
    fields = list(form_fields.form_fields(recipe))
    given = {f.key: f.value for f in fields if f.value}
    overrides = {key: value for key, value in given.items() if next(f for f in fields if f.key == key).text}
    assert load_recipe(name, overrides) == recipe
    assert {"data.name", "seed", "title"} <= given.keys() and all(f.choices is None or f.choices for f in fields)


STUDY = """
kind = "study"
title = "tiny study"
paper = "Table 1"
[scales.full]
note = "small"
recipes = { pretrain = "quickstart" }
[[run]]
name = "rotnet"
recipe = "pretrain"
[[table]]
title = "What came out, %"
entry = [{ row = "rotation", run = "rotnet", column = "test", paper = 91.1 }]
"""


async def test_a_study_shows_its_tables_and_where_its_runs_are(runs_dir):
    Path("study.toml").write_text(STUDY)
    recipe, facts = load_for_run("study.toml", {}, runs_dir)
    run = create_run(runs_dir, "study", to_toml(recipe), {**facts, "pid": 1, "create_time": 1.0, "steps": 1})
    measured = {"name": "rotnet", "seed": 0, "folder": "rotnet-s0", "measures": [{"value": 0.915}]}
    end = {"kind": "end", "time": 3.0, "outcome": "finished", "exit_code": 0, "message": ""}
    events = [{"kind": "run", "time": 2.0, "step": 1, **measured}, end]
    run.events_file.write_text("".join(json.dumps(event) + "\n" for event in events))
    app = RotnetApp(runs_dir, run)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: "1 of its 1 runs are finished" in text_of(app, "#strip"))
        await until(pilot, lambda: "its runs in the list" in text_of(app, "#curves-hint"))
        await pilot.press("4")
        await until(pilot, lambda: "What came out, %" in shown(app, "#probe-tables"))
        assert "91.5 (91.1)" in shown(app, "#probe-tables")


def test_the_form_of_a_study_asks_for_its_scale_and_data():
    recipe = load_recipe("studies/table1_blocks")
    fields = {f.key: f for f in form_fields.form_fields(recipe)}
    assert fields["scale"].choices == ("full", "cpu") and fields["scale"].value == "full"
    changed = load_recipe("studies/table1_blocks", {"scale": "cpu", "set.data.data_dir": "/data"})
    assert {f.key: f.value for f in form_fields.form_fields(changed)} == {
        **{"title": recipe.title, "scale": "cpu", "set.data.data_dir": "/data"},
    }


async def test_filter_marks_and_pins(runs_dir):
    for name in ("apple", "banana", "cherry"):
        fake_run(runs_dir, name, epochs=1, outcome="finished")
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
        await pilot.press("end", "p", "q")
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(120, 36)) as pilot:
        table = app.screen.query_one("#run-table", DataTable)
        await until(pilot, lambda: table.row_count == 3)
        assert app.settings.pinned == [str(table.get_row_at(0)[2])]


async def test_a_chart_is_maximised_and_the_log_searched(runs_dir):
    run = fake_run(runs_dir, "one", epochs=2, outcome="finished")
    app = RotnetApp(runs_dir, run)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "finished" in text_of(app, "#strip"))
        await pilot.press("right_square_bracket", "z")
        await until(pilot, lambda: app.screen.maximized is app.screen.query_one("#accuracy"))
        assert app.screen.query_one("#accuracy").size.height > 18
        await pilot.press("escape")
        await until(pilot, lambda: app.screen.maximized is None)
        await pilot.press("6")
        await until(pilot, lambda: "4 of 6 lines" in text_of(app, "#log-head"))
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
        await pilot.pause(0.2)
        assert run.path.is_dir()
        await pilot.press("d")
        await until(pilot, lambda: bool(app.screen.query(".command")))
        await pilot.press("y")
        await until(pilot, lambda: not run.path.exists())


async def test_killing_asks_first(runs_dir):
    sleeper = psutil.Popen(["sleep", "60"])
    run = fake_run(runs_dir, "live", epochs=2)
    facts = run.facts() | {"pid": sleeper.pid, "create_time": sleeper.create_time()}
    run.facts_file.write_text(json.dumps(facts))
    with run.events_file.open("a") as file:
        file.write('{"kind":"step","time":1,"step":125,"loss":1,"accuracy":1,"learning_rate":1,"images_per_s":1}\n')
    app = RotnetApp(runs_dir, run)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: "running" in text_of(app, "#strip") or "stalled" in text_of(app, "#strip"))
        await pilot.press("K")
        await until(pilot, lambda: bool(app.screen.query(".command")))
        assert "rotnet-keras kill live" in text_of(app, ".command") and "5 steps" in str(
            app.screen.query(Static)[1].render()
        )
        await pilot.press("n")
        await pilot.pause(0.2)
        assert run.alive()
        await pilot.press("K")
        await until(pilot, lambda: bool(app.screen.query(".command")))
        await pilot.press("y")
        await until(pilot, lambda: "killed" in text_of(app, "#strip"), 10)
    assert sleeper.wait(5) == -9


async def test_keys_of_ones_own_and_a_broken_keymap(runs_dir):
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


async def test_settings_that_cannot_be_kept_are_told_at_the_end(runs_dir, tmp_path):
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
            await pilot.pause(0.5)
    assert app.crash_report and "ZeroDivisionError" in app.crash_report.read_text()


async def test_below_60_by_16_it_tells_the_state_in_four_lines(runs_dir):
    run = fake_run(runs_dir, "live", epochs=3, alive=True)
    app = RotnetApp(runs_dir, run)
    async with app.run_test(size=(50, 8)) as pilot:
        await until(pilot, lambda: "running" in text_of(app, "#tiny"))
        assert app.screen.query_one("#tiny").region.height >= 4
        assert "Learning" in text_of(app, "#tiny")
        await pilot.resize_terminal(1, 1)
        await pilot.pause(0.2)
        await pilot.resize_terminal(100, 30)
        await until(pilot, lambda: app.screen.query_one("#loss").region.height > 3)


@pytest.mark.slow
async def test_200_runs_and_a_million_steps(runs_dir):
    for n in range(200):
        fake_run(runs_dir, f"run{n}", epochs=1, outcome="finished")
    big = fake_run(runs_dir, "big", epochs=1, age=0, outcome="finished")
    write_steps(big, 1_000_000)
    before = psutil.Process().memory_info().rss
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: app.index.ready, 5)
        await pilot.pause(0.5)
        await pilot.press("enter")
        await until(pilot, lambda: len(app.screen_stack) > 2 and app.screen.history.complete, 10)
        assert app.screen.history.latest["step"] == 1_000_000
        assert "of" in text_of(app, "#curves-hint")
    assert psutil.Process().memory_info().rss - before < 150e6


@pytest.mark.slow
def test_in_a_browser_on_this_machine_only(runs_dir):
    import socket
    import urllib.request

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "rotnet_tui", "--serve", "--port", str(port)], env=os.environ)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5).read()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        assert b"rotnet-tui" in page
        listening = [c.laddr.ip for c in psutil.Process(server.pid).net_connections() if c.status == "LISTEN"]
        assert listening == ["127.0.0.1"]
    finally:
        server.terminate()
        server.wait(10)
