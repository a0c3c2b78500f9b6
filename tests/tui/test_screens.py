"""Every screen as a picture; some also in a small terminal and in other themes."""

from types import SimpleNamespace

import pytest
from rotnet_tui.app import RotnetApp
from support.fake_runs import NOW, fake_run
from support.screen_words import drawn, until

# For each screen, the keys that lead to it, each with a text that is on the screen after it.
SCREENS = {
    "home": [],
    "recipes": [("2", "with all defaults")],
    "queue": [("3", "queue is empty")],
    "curves": [("enter", "smoothing 0.8")],
    "samples": [("enter", "smoothing 0.8"), ("2", "same images every epoch")],
    "hardest": [("enter", "smoothing 0.8"), ("2", "same images every epoch"), ("o", "hardest images")],
    "confusion": [("enter", "smoothing 0.8"), ("3", "Recall by epoch")],
    "features": [("down", "finished  second"), ("enter", "smoothing 0.8"), ("4", "conv4")],
    "system": [("down", "finished  second"), ("enter", "smoothing 0.8"), ("5", "minutes of work")],
    "log": [("enter", "smoothing 0.8"), ("6", "6 lines")],
    "recipe": [("enter", "smoothing 0.8"), ("7", "Recipe quickstart")],
    "projection": [("enter", "smoothing 0.8"), ("8", "Epoch 5 of 5")],
    "image": [("enter", "smoothing 0.8"), ("8", "Epoch 5 of 5"), ("enter", "Image 1 of 32")],
    "failed": [("down", "finished  second"), ("down", "failed  first"), ("enter", "smoothing 0.8")],
    "form": [("n", "steps of 64 images")],
    "help": [("question_mark", "lists the newest run first")],
    "compare": [("down", "finished  second"), ("space", "◆"), ("space", "◆"), ("c", "rotation accuracy, validation")],
    "delete": [("down", "finished  second"), ("d", "Same as")],
}
LARGE, SMALL = (120, 36), (80, 24)
LOOKS = {
    "large-dark": (LARGE, "textual-dark"),
    "large-light": (LARGE, "textual-light"),
    "small-dark": (SMALL, "textual-dark"),
    "small-light": (SMALL, "textual-light"),
    "large-colour-blind": (LARGE, "colour-blind-dark"),
}
IN_ALL_LOOKS = ("home", "curves")
DRAWN_IN_ALL_LOOKS = ("projection", "image")


@pytest.fixture
def three_runs(runs_dir, monkeypatch):
    for module in ("words", "index"):
        clock = SimpleNamespace(time=lambda: NOW, perf_counter=lambda: 0.0)
        monkeypatch.setattr(f"rotnet_tui.state.{module}.time", clock)
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
    [(screen, "large-dark") for screen in SCREENS]
    + [(screen, look) for look in LOOKS if look != "large-dark" for screen in IN_ALL_LOOKS]
    + [
        pytest.param(screen, look, marks=pytest.mark.long)
        for look in LOOKS
        if look != "large-dark"
        for screen in DRAWN_IN_ALL_LOOKS
    ],
)
def test_screen(screen, look, three_runs, snap_compare):
    size, theme = LOOKS[look]
    app = RotnetApp(three_runs)
    app.settings.theme = theme

    async def press(pilot):
        await _shows(pilot, "✓ finished")
        for key, text in SCREENS[screen]:
            await pilot.press(key)
            await _shows(pilot, text)
        await _unchanging(pilot)

    assert snap_compare(app, terminal_size=size, run_before=press)


async def _shows(pilot, text):
    """Wait until a text is on the screen."""
    await until(pilot, lambda: text in drawn(pilot.app))


async def _unchanging(pilot):
    """Wait until nothing is being read or drawn."""
    before = ""
    while before != (now := pilot.app.export_screenshot()):
        before = now
        await pilot.pause(0.1)
