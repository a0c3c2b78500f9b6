"""A runs folder on a slow disk: the screen never waits for it."""

from rotnet_tui.app import RotnetApp
from support.fake_runs import fake_run
from support.screen_words import text_of, until
from support.slow_disk import SlowDisk
from textual.widgets import DataTable


def opened(app):
    """Whether the screen of a run is in front and has read its events."""
    screen = app.screen
    return hasattr(screen, "history") and screen.history.complete


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
        await pilot.press("1", "enter")
        await until(pilot, lambda: opened(app))
        for key, target in (("curves", "#curves-hint"), ("log", "#log-lines"), ("recipe", "#recipe-text")):
            app.screen.action_tab(key)
            await until(pilot, lambda target=target: bool(app.screen.query(target)))
            await app.screen.tick()
        await until(pilot, lambda: "quickstart" in text_of(app, "#recipe-text"))
    assert disk.asked > 13 * 5
    assert disk.in_main_thread == []
