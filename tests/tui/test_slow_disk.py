"""Files on a slow disk: the screen never waits for them."""

import pytest
from rotnet_tui.app import RotnetApp
from rotnet_tui.screens.image import ImageScreen
from rotnet_tui.screens.opening import OpeningScreen, ReadingDialog
from support.fake_runs import fake_run
from support.fake_studies import fake_study
from support.screen_words import drawn, text_of, until
from support.slow_disk import SlowDisk
from textual.widgets import DataTable

from rotnet_keras.config.finder import shipped_recipes

# The keys of the tabs that read files, and what is on the screen when they have.
TABS = {
    "2": "same images every epoch",
    "4": "Filters of the first layer",
    "5": "minutes of work",
    "6": "6 lines",
    "7": "Recipe quickstart",
    "8": "images by conv2",
}


def opened(app):
    """Whether the screen of a run is in front and has read its events."""
    screen = app.screen
    return hasattr(screen, "history") and screen.history.complete


@pytest.mark.long
async def test_no_key_waits_for_the_disk(runs_dir, monkeypatch):
    for number in range(12):
        fake_run(runs_dir, f"run{number:02d}", epochs=1, age=3600 + number, outcome="finished")
    fake_run(runs_dir, "live", epochs=2, age=10, alive=True)
    disk = SlowDisk(runs_dir, 0.005, monkeypatch)
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(120, 36)) as pilot:
        table = app.screen.query_one("#run-table", DataTable)
        await until(pilot, lambda: table.row_count == 13)
        for key in ("down", "space", "up", "3"):
            await pilot.press(key)
        await until(pilot, lambda: "queue is empty" in text_of(app, "#queue-head"))
        await pilot.press("1", "ctrl+home", "enter")
        await until(pilot, lambda: opened(app) and "live" in text_of(app, "#strip"))
        for key, text in TABS.items():
            await pilot.press(key)
            await until(pilot, lambda text=text: text in drawn(app))
        await pilot.press("left")
        await until(pilot, lambda: "Epoch 1 of 2, step 60   32 validation images" in drawn(app))
        await pilot.press("enter")
        await until(pilot, lambda: "Image 1 of 32" in drawn(app) and "✗ 180°  94%" in drawn(app))
        await pilot.press("right")
        await until(pilot, lambda: "epoch 2 of 2, step 120" in drawn(app) and "✗ 180°  94%" in drawn(app))
        await pilot.press("escape", "2", "left")
        await until(pilot, lambda: "Epoch 1 of 2" in drawn(app) and "correct" in drawn(app))
    assert disk.asked > 13 * 5
    assert disk.in_main_thread == []


async def test_no_key_waits_for_the_runs_of_a_study(runs_dir, monkeypatch):
    study = fake_study(runs_dir)
    disk = SlowDisk(runs_dir, 0.005, monkeypatch)
    app = RotnetApp(runs_dir, study)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: "1 of 4 runs finished" in text_of(app, "#strip"))
    assert disk.in_main_thread == []


async def test_no_key_waits_for_recipes(runs_dir, monkeypatch):
    disk = SlowDisk(next(iter(shipped_recipes().values())).parent, 0.002, monkeypatch)
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(120, 36)) as pilot:
        disk.answers.clear()
        await pilot.press("2")
        await until(pilot, lambda: app.screen._tab == "recipes")
        await pilot.press("down")
        disk.answers.set()
        table = app.screen.query_one("#recipe-table", DataTable)
        await until(pilot, lambda: table.row_count > 20)
        await pilot.press("down")
        await until(pilot, lambda: "with all defaults" in text_of(app, "#preview-text"))
    assert disk.asked > 20
    assert disk.in_main_thread == []


@pytest.mark.long
@pytest.mark.parametrize(("key", "reading", "newest"), [
    ("8", "Epoch 2 of 3   reading its points", "Epoch 3 of 3, step 180   32 validation images"),
    ("2", "Epoch 2 of 3, step 120   the same images", "Epoch 3 of 3, step 180   the same images"),
])  # fmt: skip
async def test_what_is_read_late_is_not_shown_for_another_epoch(key, reading, newest, runs_dir, monkeypatch):
    run = fake_run(runs_dir, "a", epochs=3, outcome="finished")
    disk = SlowDisk(runs_dir, 0.0, monkeypatch)
    app = RotnetApp(runs_dir, run)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: opened(app))
        await pilot.press(key)
        await until(pilot, lambda: newest in drawn(app) and "▄" in drawn(app))
        before = drawn(app)
        disk.answers.clear()
        await pilot.press("left")
        await until(pilot, lambda: reading in drawn(app) and "reading its" in drawn(app) and "▄" not in drawn(app))
        # What was read before is there at once, while the disk has not answered yet.
        await pilot.press("right")
        await until(pilot, lambda: drawn(app) == before)
        disk.answers.set()
        await pilot.pause(0.3)
        assert drawn(app) == before
        await pilot.press("left")
        await until(pilot, lambda: "Epoch 2 of 3, step 120" in drawn(app) and "▄" in drawn(app))
        # A screen that was closed meanwhile stays closed.
        disk.answers.clear()
        await pilot.press("left")
        await until(pilot, lambda: "reading its" in drawn(app))
        await pilot.press("escape")
        await until(pilot, lambda: bool(app.screen.query("#run-table")))
        disk.answers.set()
        await pilot.pause(0.3)
        assert app.screen.query("#run-table")
    assert disk.in_main_thread == []


@pytest.mark.long
async def test_screens_and_questions_say_that_they_read(runs_dir, monkeypatch):
    fake_run(runs_dir, "a", epochs=2, outcome="finished")
    fake_run(runs_dir, "b", epochs=1, outcome="finished", age=9000)
    disk = SlowDisk(runs_dir, 0.0, monkeypatch)
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(120, 36)) as pilot:
        home = app.screen
        await until(pilot, lambda: home.query_one("#run-table", DataTable).row_count == 2 and not app._ticking)
        for key, kind in (("T", ReadingDialog), ("d", ReadingDialog), ("enter", OpeningScreen)):
            disk.answers.clear()
            await pilot.press(key)
            await until(pilot, lambda kind=kind: isinstance(app.screen, kind))
            # Keys that are pressed meanwhile do nothing to the run, and after esc nothing opens.
            await pilot.press("p", "escape")
            await until(pilot, lambda: app.screen is home)
            disk.answers.set()
            await pilot.pause(0.3)
            assert app.screen is home
        assert app.settings.pinned == [] and set(app.index.summaries) == {"a", "b"}
        await pilot.press("enter")
        await until(pilot, lambda: opened(app))
        await pilot.press("8")
        await until(pilot, lambda: TABS["8"] in drawn(app))
        disk.answers.clear()
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ImageScreen) and "reading its files" in drawn(app))
        disk.answers.set()
        await until(pilot, lambda: "✗ 180°  94%" in drawn(app))
    assert disk.in_main_thread == []
