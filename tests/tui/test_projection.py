"""The terminal UI's tab of a projected sample, and the screen of one of its images."""

import json

import pytest
from rotnet_tui.app import RotnetApp
from rotnet_tui.screens.image import ImageScreen
from rotnet_tui.tabs.projection import LETTERS, SHAPES, class_signs
from rotnet_tui.widgets.scatter import Scatter
from support.fake_runs import fake_run
from support.screen_words import drawn, text_of, until

from rotnet_keras.reports.projections import read_projection

SIZES = [(80, 24), (120, 36)]


async def ready(app, pilot, key, text):
    """Open a tab and wait for a text."""
    await until(pilot, lambda: app.screen.query("#run-tabs") and app.screen.history.complete)
    await pilot.press(key)
    await until(pilot, lambda: text in drawn(app))


def without_projections(run):
    """The run as an earlier version would have written it."""
    events = [json.loads(line) for line in run.events_file.read_text().splitlines()]
    for event in events:
        for tile in event.get("tiles", ()):
            del tile["image"]
    lines = [json.dumps(event) + "\n" for event in events if event["kind"] != "projection"]
    run.events_file.write_text("".join(lines))


@pytest.mark.parametrize("size", SIZES)
async def test_points_are_seen_epoch_by_epoch(size, runs_dir):
    app = RotnetApp(runs_dir, fake_run(runs_dir, "a", epochs=3, outcome="finished"))
    async with app.run_test(size=size) as pilot:
        await ready(app, pilot, "8", "Epoch 3 of 3")
        assert "images by conv2" in text_of(app, "#projection-head") and "image 1: bag" in drawn(app)
        points = app.screen.query_one(Scatter)
        late = points._points.copy()
        # The first image is on the right. Its sign is that of its class, and that of its neighbours is another one.
        assert drawn(app).count("●") >= 4 and "▲ boot" in drawn(app)
        await pilot.press("left")
        await until(pilot, lambda: "Epoch 2 of 3" in drawn(app))
        assert (abs(points._points) <= abs(late) + 1e-9).all() and (points._points != late).any()
        await pilot.press("left", "left", "left", "right", "right", "right")
        await until(pilot, lambda: "Epoch 3 of 3" in drawn(app))
        await pilot.press("down")
        await until(pilot, lambda: "image 2: bag" in drawn(app) and points._cursor == 1)
        # 32 images on a circle, counter-clockwise from the right: straight to the left is the one opposite.
        await pilot.press("home", "shift+left")
        await until(pilot, lambda: points._cursor == 16)
        assert "image 17: pullover" in drawn(app) and points._near == [17, 15, 18, 14, 19]
        columns, rows = points._cells()
        await pilot.click(Scatter, offset=(1 + columns[8], 1 + rows[8]))
        await until(pilot, lambda: points._cursor == 8)


@pytest.mark.long
@pytest.mark.parametrize("size", SIZES)
async def test_an_image_is_opened_with_what_the_model_makes_of_it(size, runs_dir):
    app = RotnetApp(runs_dir, fake_run(runs_dir, "a", epochs=2, outcome="finished"))
    async with app.run_test(size=size) as pilot:
        await ready(app, pilot, "2", "same images every epoch")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ImageScreen) and "Image 1 of 32" in drawn(app))
        # The first image of nine is taken for one that is upside down.
        await until(pilot, lambda: "✗ 180°  94%" in drawn(app) and "○   0°   2%" in drawn(app))
        assert len([each for each in app.screen.query("Picture") if each.size.area]) == 4 + 4 + 5
        assert "attention of conv2" in drawn(app)
        await pilot.press("down", "left")
        await until(pilot, lambda: "Image 2 of 32   class bag   epoch 1 of 2" in drawn(app))
        await until(pilot, lambda: "✓  90°  94%" in drawn(app))
        await pilot.press("pagedown")
        await until(pilot, lambda: "0.99 bag" in drawn(app))
        await pilot.press("escape")
        await until(pilot, lambda: "same images every epoch" in drawn(app))
        await pilot.press("down", "down", "down", "enter")
        await until(pilot, lambda: "Image 4 of 32" in drawn(app))


@pytest.mark.long
async def test_the_image_of_a_live_run_is_followed(runs_dir):
    run = fake_run(runs_dir, "a", epochs=3, alive=True)
    whole = run.events_file.read_text()
    lines = whole.splitlines(keepends=True)
    third = [n for n, line in enumerate(lines) if '"projection"' in line][2]
    run.events_file.write_text("".join(lines[:third]))
    app = RotnetApp(runs_dir, run)
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(app, pilot, "8", "Epoch 2 of 2")
        await pilot.press("enter")
        await until(pilot, lambda: "epoch 2 of 2" in drawn(app))
        run.events_file.write_text(whole)
        await until(pilot, lambda: "epoch 3 of 3" in drawn(app))
        await pilot.press("escape")
        await until(pilot, lambda: "Epoch 3 of 3" in drawn(app))


@pytest.mark.long
async def test_runs_of_earlier_versions_and_damaged_files_get_a_plain_line(runs_dir):
    old = fake_run(runs_dir, "old", epochs=2, outcome="finished")
    without_projections(old)
    app = RotnetApp(runs_dir, old)
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(app, pilot, "8", "An earlier version of rotnet-keras made this run and wrote no projections.")
        assert not app.screen.query_one(Scatter).size.area
        await ready(app, pilot, "2", "same images every epoch")
        await pilot.press("enter")
        await until(pilot, lambda: any("wrote no projections" in n.message for n in app._notifications))
    new = fake_run(runs_dir, "new", epochs=1, outcome="finished")
    for name in ("images.png", "attention-00000060.png"):
        (new.samples / name).write_bytes(b"no image")
    app = RotnetApp(runs_dir, new)
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(app, pilot, "8", "image missing")
        await pilot.press("enter")
        await until(pilot, lambda: "✗ 180°  94%" in drawn(app) and "image missing" in drawn(app))
    (new.samples / "projection-00000060.json").write_bytes(b"{")
    app = RotnetApp(runs_dir, new)
    async with app.run_test(size=(120, 36)) as pilot:
        await ready(app, pilot, "8", "projection-00000060.json of this epoch is missing or damaged")
        await pilot.press("enter")
        await until(pilot, lambda: any("cannot be opened" in n.message for n in app._notifications))


@pytest.mark.parametrize("wrong", [
    '{"points": [[0, 0]]}', '{"points": 1e999}', "[]",
    '{"points":[[0,0]],"labels":["a"],"angles":[0],"probabilities":[[[100]]],"neighbours":[[7]],"similarities":[[1]]}',
    '{"points":[[0,0]],"labels":["a"],"angles":[0],"probabilities":[[[100]]],"neighbours":[["x"]],"similarities":[[1]]}',
    '{"points":[[0,0]],"labels":[1],"angles":[0],"probabilities":[[[100]]],"neighbours":[[0]],"similarities":[[1]]}',
])  # fmt: skip
def test_a_file_of_points_that_makes_no_sense_is_damaged(wrong, tmp_path):
    file = tmp_path / "samples" / "projection-1.json"
    file.parent.mkdir()
    file.write_text(wrong)
    with pytest.raises(ValueError, match="damaged"):
        read_projection(file)


def test_classes_differ_by_their_signs_alone(runs_dir):
    run = fake_run(runs_dir, "a", epochs=1)
    projection = read_projection(run.samples / "projection-00000060.json")
    signs = class_signs(projection)
    assert [signs[name][0] for name in sorted(set(projection.labels))] == list(SHAPES[:8])
    for count, alphabet in ((13, LETTERS[:13]), (32, LETTERS[:32])):
        names = [f"class {number % count:02}" for number in range(32)]
        object.__setattr__(projection, "labels", names)
        assert "".join(sign for name, (sign, _) in class_signs(projection).items() if name) == alphabet
    object.__setattr__(projection, "labels", None)
    assert [sign for sign, _ in class_signs(projection).values()] == ["●", "×"]
