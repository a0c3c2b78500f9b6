"""Images in the terminal's full resolution: which way is chosen, what is drawn; the terminal is asked nothing."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from typing import get_args

import pytest
from rotnet_tui import cli
from rotnet_tui.app import RotnetApp
from rotnet_tui.settings import Images, Settings
from rotnet_tui.state.terminal import image_protocol
from support.fake_runs import fake_run
from support.screen_words import drawn, until
from textual.widgets import Static

# The character that Kitty replaces by a part of an image, and how its messages and those of Sixel begin.
PLACEHOLDER, KITTY, SIXEL = "\U0010eeee", "\x1b_G", "\x1bP"
CELL = (10, 20)


@pytest.mark.parametrize(("way", "environment"), [
    ("kitty", {"TERM": "xterm-kitty"}),
    ("kitty", {"TERM": "xterm-ghostty"}),
    ("kitty", {"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}),
    ("sixel", {"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}),
    ("sixel", {"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}),
    ("sixel", {"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}),
    ("sixel", {"TERM": "foot-extra"}),
    ("sixel", {"TERM": "xterm-256color", "KONSOLE_VERSION": "220401"}),
    ("half-blocks", {"TERM": "xterm-256color", "KONSOLE_VERSION": "210801"}),
    ("half-blocks", {"TERM": "xterm-256color"}),
    ("half-blocks", {"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1", "VTE_VERSION": "7000"}),
    ("half-blocks", {"TERM": "tmux-256color", "TMUX": "/tmp/tmux,1,0", "KITTY_WINDOW_ID": "1"}),
    ("half-blocks", {"TERM": "screen", "TERM_PROGRAM": "iTerm.app"}),
    ("half-blocks", {"TERM": "foot", "ZELLIJ": "0"}),
    ("half-blocks", {"TERM": "foot", "NO_COLOR": "1"}),
    ("half-blocks", {}),
])  # fmt: skip
def test_the_environment_decides(way, environment):
    assert image_protocol("auto", environment, CELL) == way
    # Where the size of cells is not known, as in a browser or in a pipe, nothing can be drawn in full resolution.
    assert image_protocol("auto", environment, None) == "half-blocks"
    for forced in ("kitty", "sixel", "half-blocks"):
        assert image_protocol(forced, environment, None) == forced


def test_the_option_offers_what_the_setting_takes():
    assert get_args(Images) == cli.IMAGES and Settings().images == "auto"


async def open_sample(app, pilot):
    await until(pilot, lambda: app.screen.query("#run-tabs") and app.screen.history.complete)
    await pilot.press("2")
    await until(pilot, lambda: "same images every epoch" in drawn(app))


@pytest.mark.parametrize("size", [(80, 24), (120, 36)])
async def test_images_by_kittys_protocol(size, runs_dir, capfd):
    app = RotnetApp(runs_dir, fake_run(runs_dir, "a", epochs=2, outcome="finished"))
    app.settings.images = "kitty"
    async with app.run_test(size=size) as pilot:
        await open_sample(app, pilot)
        await until(pilot, lambda: drawn(app).count(PLACEHOLDER) >= 6 * 16 * 8)
        assert "▄" not in drawn(app) and "°→" in drawn(app)
        sent = capfd.readouterr().out
        assert KITTY in sent and "f=100" in sent and "a=q" not in sent
        await pilot.press("4")
        await until(pilot, lambda: "Filters of the first layer" in drawn(app) and PLACEHOLDER in drawn(app))


@pytest.mark.long
@pytest.mark.parametrize("size", [(80, 24), (120, 36)])
async def test_images_as_sixel(size, runs_dir):
    app = RotnetApp(runs_dir, fake_run(runs_dir, "a", epochs=2, outcome="finished"))
    app.settings.images = "sixel"
    async with app.run_test(size=size) as pilot:
        await open_sample(app, pilot)
        await until(pilot, lambda: drawn(app).count(SIXEL) >= 6)
        assert "▄" not in drawn(app) and "°→" in drawn(app)
        await pilot.press("8")
        await until(pilot, lambda: SIXEL in drawn(app) and "image 1: bag" in drawn(app))
        await pilot.press("enter")
        await until(pilot, lambda: "Image 1 of 32" in drawn(app) and drawn(app).count(SIXEL) >= 8)
        await pilot.press("down")
        await until(pilot, lambda: "Image 2 of 32" in drawn(app) and drawn(app).count(SIXEL) >= 8)


async def test_half_blocks_where_the_setting_says_so(runs_dir):
    app = RotnetApp(runs_dir, fake_run(runs_dir, "a", epochs=1, outcome="finished"))
    app.settings.images = "half-blocks"
    async with app.run_test(size=(120, 36)) as pilot:
        await open_sample(app, pilot)
        await until(pilot, lambda: "▄" in drawn(app))
        assert PLACEHOLDER not in drawn(app) and SIXEL not in drawn(app)
        assert isinstance(app.screen.query("Picture").first(), Static)


def seen_by(terminal_environment, begins, runs, tmp_path, key=b"2", seconds=30):
    """What the program writes to a terminal with cells of 10 x 20 pixels, until a tile of the samples is there.

    An image begins with `begins`.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 1200, 720))
    environment = {
        name: value for name, value in os.environ.items() if name not in ("TMUX", "NO_COLOR", "COLUMNS", "LINES")
    }
    environment |= {"COLORTERM": "truecolor", "XDG_STATE_HOME": str(tmp_path / "own"), **terminal_environment}
    process = subprocess.Popen(
        [sys.executable, "-m", "rotnet_tui", "a", "--runs-dir", str(runs)],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen, end, pressed = b"", time.monotonic() + seconds, False
    while time.monotonic() < end and not (b"\xe2\x86\x92270" in seen and begins.encode() in seen):
        if select.select([ours], [], [], 0.2)[0]:
            seen += os.read(ours, 1 << 16)
        if not pressed and b"Projection" in seen:
            pressed = bool(os.write(ours, key))
    # Until nothing more comes for a while: other images or questions would.
    while select.select([ours], [], [], 0.5)[0] and time.monotonic() < end:
        seen += os.read(ours, 1 << 16)
    process.kill()
    process.wait()
    os.close(ours)
    return seen.decode(errors="replace")


@pytest.mark.long
@pytest.mark.parametrize(("environment", "begins"), [
    ({"TERM": "foot"}, SIXEL), ({"TERM": "xterm-kitty"}, KITTY), ({"TERM": "tmux-256color", "TMUX": "x"}, "▄"),
])  # fmt: skip
def test_a_terminal_gets_its_images_and_is_asked_nothing(environment, begins, runs_dir, tmp_path):
    fake_run(runs_dir, "a", epochs=1, outcome="finished")
    seen = seen_by(environment, begins, runs_dir.absolute(), tmp_path)
    assert begins in seen
    assert all((each in seen) == (each == begins) for each in (SIXEL, KITTY, "▄"))
    # The questions of the library: what the terminal is, the size of its cells, and Kitty's.
    assert not re.search(r"\x1b\[(16t|c)|a=q", seen)
