"""The terminal UI's screen of one run."""

import asyncio
import json
import time
from pathlib import Path

import pytest
from rotnet_tui.app import RotnetApp
from rotnet_tui.screens import run as run_screen
from rotnet_tui.screens import run_status
from rotnet_tui.screens.study import StudyScreen
from support.fake_runs import fake_run
from support.fake_studies import fake_study
from support.screen_words import drawn, shown, text_of, until

from rotnet_keras.runs.launch import create_run

# The keys of the tabs, and their names.
TABS = {str(n): name for n, name in enumerate(run_screen.TABS, 1)}


async def open_tab(pilot, key):
    """Press the key of a tab and wait until the tab has been drawn."""
    screen = pilot.app.screen
    await pilot.press(key)
    await until(pilot, lambda: screen.query_one("#run-tabs").active == f"tab-{TABS[key]}")
    await until(pilot, lambda: TABS[key] not in screen._stale)
    await pilot.pause()


async def test_a_live_run_is_followed(runs_dir):
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
        await until(pilot, lambda: app.screen.history.columns["step"][-1] == 140)
        loss = app.screen.query_one("#chart-1")
        before = str(loss.border_subtitle)
        await pilot.press("m")
        await until(pilot, lambda: str(loss.border_subtitle) != before)


async def test_a_killed_run_says_why_and_how_to_resume(runs_dir):
    run = fake_run(runs_dir, "dead", epochs=2)
    app = RotnetApp(runs_dir, run)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: "killed" in text_of(app, "#strip"))
        assert "step 120" in text_of(app, "#strip") and "resume dead" in text_of(app, "#strip").replace("\n", " ")


async def test_a_likely_shortcut_is_shown(runs_dir):
    run = fake_run(runs_dir, "boxed", epochs=1, outcome="finished")
    found = {"angles": [0, 90, 180, 270], "images": 20, "split": "validation", "right": [1, 1, 1, 1, 16]}
    found |= {"undecided": 0.0, "half_turns": 0.5, "giveaways": {"bars": {"share": 0.3}}, "reliance": {}}
    *lines, end = run.events_file.read_text().splitlines()
    lines.append(json.dumps({"kind": "suitability", "time": json.loads(end)["time"], "step": 60, **found}))
    run.events_file.write_text("\n".join([*lines, end, ""]))
    app = RotnetApp(runs_dir, run)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "a shortcut is likely (bars of one" in text_of(app, "#strip").replace("\n", " "))


@pytest.mark.long
async def test_unreadable_lines_are_counted_and_a_deleted_folder_is_reported(runs_dir):
    run = fake_run(runs_dir, "odd", epochs=1, outcome="finished")
    with run.events_file.open("ab") as file:
        file.write(b"no event\n\xff\xfe\n")
    app = RotnetApp(runs_dir, run)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: bool(app.screen.query("#run-tabs")))
        await pilot.press("6")
        await until(pilot, lambda: "2 unreadable lines" in text_of(app, "#log-head"))
        run.path.rename(runs_dir / ".away")
        await until(pilot, lambda: "no longer exists" in text_of(app, "#strip"))
        for key in TABS:
            await pilot.press(key)
        await pilot.press("escape")
        await until(pilot, lambda: "No runs in runs yet" in text_of(app, "#runs-empty"))


async def test_odd_events_do_not_crash_it(runs_dir):
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
        await until(pilot, lambda: bool(app.screen.query("#run-tabs")))
        for key in TABS:
            await open_tab(pilot, key)
        await until(pilot, lambda: "odd" in text_of(app, "#strip"))


@pytest.mark.long
async def test_foreign_text_is_shown_as_plain_text(runs_dir):
    """Neither escape sequences of the terminal nor Textual's markup take effect."""
    said = "\x1b[2J[/nope] [red]x\x07"
    run = fake_run(runs_dir, "odd", f"title={json.dumps(said)}", epochs=2, outcome="failed", message=said)
    run.log.write_text(f"10:00:00 {said}\n")
    run.facts_file.write_text(json.dumps({**run.facts(), "recipe": said, "device": said}))
    fake_run(runs_dir, "other", epochs=1).path.rename(runs_dir / "[red]x[@click=y]z")
    create_run(runs_dir, "waits", "", {"recipe": said, "queued": 1.0}).path.rename(runs_dir / said.replace("/", ""))
    app = RotnetApp(runs_dir)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: app.index.ready)
        await pilot.press("3")
        await until(pilot, lambda: "1 waiting" in text_of(app, "#queue-head") and "1 waiting" in drawn(app))
        assert "\x1b" not in drawn(app)
        await pilot.press("1")
        assert set(app.index.summaries) == {"odd", "[red]x[@click=y]z"}
        for _ in range(2):
            await pilot.press("enter")
            await until(pilot, lambda: bool(app.screen.query("#run-tabs")))
            for key in TABS:
                await open_tab(pilot, key)
                assert "\x1b" not in drawn(app) and "\x07" not in drawn(app)
            await pilot.press("escape")
            await until(pilot, lambda: bool(app.screen.query("#run-table")))
            await pilot.press("down")


async def test_a_folder_of_a_newer_version_is_read_only(runs_dir):
    run = fake_run(runs_dir, "later", epochs=1)
    facts = run.facts() | {"format": 99}
    run.facts_file.write_text(json.dumps(facts))
    app = RotnetApp(runs_dir, run)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: "newer version" in text_of(app, "#strip"))
        await pilot.press("r")
        await until(pilot, lambda: any("newer version" in n.message for n in app._notifications))
    assert not run.alive()


async def test_a_study_shows_its_tables_its_runs_and_the_time_left(runs_dir):
    app = RotnetApp(runs_dir, fake_study(runs_dir))
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: "1 of 4 runs finished" in text_of(app, "#strip"))
        # Two runs that have not begun take 20 minutes each, as the one that has finished; the third says so itself.
        assert "running: wide, seed 0   on" in text_of(app, "#strip") and "about 4" in text_of(app, "#strip")
        await until(pilot, lambda: "91.5 (91.1)" in drawn(app))
        table = app.screen.query_one("#study-runs")
        states = [str(table.get_row_at(row)[2]) for row in range(4)]
        assert states == ["✓ finished", "● running", "· planned", "· planned"]
        await pilot.press("down", "j", "down", "enter")
        await until(pilot, lambda: any("has not begun" in n.message for n in app._notifications))
        await pilot.press("up", "k", "enter")
        await until(pilot, lambda: "wide-s0" in text_of(app, "#strip") and bool(app.screen.query("#run-tabs")))
        await pilot.press("escape")
        await until(pilot, lambda: bool(app.screen.query("#study-runs")))
        await pilot.press("o")
        await until(pilot, lambda: "its runs on the home screen" in text_of(app, "#curves-hint"))
        await pilot.press("4")
        await until(pilot, lambda: "What came out, %" in shown(app, "#probe-tables"))


async def test_a_run_of_a_study_that_has_not_begun_takes_as_long_as_the_trial_said(runs_dir):
    study = fake_study(runs_dir)
    # Not believed: no number, and one for a run of which the same with another seed has finished.
    timed = {"wide-s1": 7200, "rotnet-s1": 36000, "rotnet-s0": "long"}
    study.facts_file.write_text(json.dumps(study.facts() | {"run_seconds": timed}))
    app = RotnetApp(runs_dir, study)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: "1 of 4 runs finished" in text_of(app, "#strip"))
        assert "about 2 h 2" in text_of(app, "#strip")


async def test_a_screen_that_takes_long_to_build_shows_nothing_before_its_keys_work(runs_dir, monkeypatch):
    build = StudyScreen.on_mount

    async def build_slowly(screen):
        await asyncio.sleep(0.3)
        build(screen)

    monkeypatch.setattr(StudyScreen, "on_mount", build_slowly)
    app = RotnetApp(runs_dir, fake_study(runs_dir))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "1 of 4 runs finished" in text_of(app, "#strip"))
        await pilot.press("enter")
        await until(pilot, lambda: "rotnet-s0" in text_of(app, "#strip") and bool(app.screen.query("#run-tabs")))


async def test_a_mistake_of_the_program_is_said_in_a_line_and_its_traceback_kept(runs_dir, monkeypatch):
    def planted(*arguments):
        raise AttributeError("planted")

    monkeypatch.setattr(run_screen.CurvesTab, "show", planted)
    monkeypatch.setattr(run_status, "verdict", planted)
    app = RotnetApp(runs_dir, fake_run(runs_dir, "good", epochs=2, outcome="finished"))
    async with app.run_test(size=(200, 36)) as pilot:
        await until(pilot, lambda: any("This tab cannot be drawn" in n.message for n in app._notifications))
        (said, *_) = [n.message for n in app._notifications if "This tab cannot be drawn" in n.message]
        assert "by a mistake of rotnet-tui: AttributeError: planted; the traceback is in " in said
        kept = Path(said.rpartition(" is in ")[2]).read_text(encoding="utf-8")
        assert "in planted" in kept and kept.endswith("AttributeError: planted\n")
        await until(pilot, lambda: "This run cannot be judged, by a mistake of rotnet-tui" in text_of(app, "#strip"))


async def test_a_finished_run_shows_what_it_used_of_the_machine(runs_dir):
    run = fake_run(runs_dir, "one", epochs=4, outcome="finished")
    app = RotnetApp(runs_dir, run)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: bool(app.screen.query("#run-tabs")))
        await pilot.press("5")
        await until(pilot, lambda: "156 % of a core on average" in shown(app, "#system-table"))
        assert "load average" not in shown(app, "#system-table")
        titles = {str(chart.border_title) for chart in app.screen.query("#system-charts Chart") if chart.display}
        assert {"CPU of the run, % of a core", "memory, GB", "GPU load, %"} <= titles
        await pilot.press("left")
        await until(pilot, lambda: "cursor 4.0 min" in text_of(app, "#system-hint"))
        await pilot.press("right_square_bracket", "escape")
        await until(pilot, lambda: "charts 2 of 2" in text_of(app, "#system-hint"))
        assert "← → cursor" in text_of(app, "#system-hint")
