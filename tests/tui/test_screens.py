"""Every screen as a picture, in a large and a small terminal, dark and light."""

from types import SimpleNamespace

import pytest
from rotnet_tui.app import RotnetApp
from support.fake_runs import NOW, fake_run

SCREENS = {
    "home": [],
    "recipes": ["2"],
    "queue": ["3"],
    "curves": ["enter"],
    "samples": ["enter", "2"],
    "hardest": ["enter", "2", "o"],
    "confusion": ["enter", "3"],
    "features": ["down", "enter", "4"],
    "log": ["enter", "6"],
    "recipe": ["enter", "7"],
    "failed": ["down", "down", "enter"],
    "form": ["n"],
    "help": ["question_mark"],
    "compare": ["down", "space", "space", "c"],
    "delete": ["down", "d"],
}
LOOKS = {"large-dark": ((120, 36), "textual-dark"), "small-light": ((80, 24), "textual-light")}
OTHER_LOOKS = {"large-light": ((120, 36), "textual-light"), "small-dark": ((80, 24), "textual-dark")}
IN_ALL_LOOKS = ("home", "curves")


@pytest.fixture
def three_runs(runs_dir, monkeypatch):
    for module in ("words", "index"):
        clock = SimpleNamespace(time=lambda: NOW, perf_counter=lambda: 0.0)
        monkeypatch.setattr(f"rotnet_tui.{module}.time", clock)
    message = "Error: the loss became nan in step 130. Try a new run with optimizer.learning_rate=0.033."
    fake_run(
        runs_dir,
        "first",
        "optimizer.learning_rate=0.3",
        epochs=2,
        age=9000,
        outcome="failed",
        message=message,
        reach=0.6,
    )
    fake_run(runs_dir, "second", "train.epochs=10", age=7200, outcome="finished")
    fake_run(runs_dir, "third", epochs=5, age=600, alive=True)
    return runs_dir


@pytest.mark.parametrize(
    ("screen", "look"),
    [(screen, look) for look in LOOKS for screen in SCREENS]
    + [(screen, look) for look in OTHER_LOOKS for screen in IN_ALL_LOOKS],
)
def test_screen(screen, look, three_runs, snap_compare):
    size, theme = (LOOKS | OTHER_LOOKS)[look]
    app = RotnetApp(three_runs)
    app.settings.theme = theme

    async def press(pilot):
        await _settled(pilot)
        for key in SCREENS[screen]:
            await pilot.press(key)
            await _settled(pilot)

    assert snap_compare(app, terminal_size=size, run_before=press)


async def _settled(pilot):
    """Wait until the screen in front shows what there is."""
    await pilot.pause()
    ticks = [worker for worker in pilot.app.workers if worker.group == "tick"]
    if ticks:
        await pilot.app.workers.wait_for_complete(ticks)
    if hasattr(pilot.app.screen, "tick"):
        await pilot.app.screen.tick()
    await pilot.pause(0.3)
