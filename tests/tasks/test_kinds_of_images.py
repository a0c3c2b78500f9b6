"""Whole runs on images of more than 8 bits, and on images that are no squares."""

import csv
import json
import subprocess

import keras
import numpy as np
import pytest
from PIL import Image
from support.command_line import command, invoke, run_cli
from support.tiny import TINY_RECIPE, upright_images
from support.value_images import tiff
from support.whole_runs import assert_same_end, events_of, run_of, start, wait_for_step

from rotnet_keras.data.decoding import read_whole

PROBE = '\n[[probe]]\nhead = "linear"\nepochs = 1\nbaselines = ["random", "pixels"]\n'
pytestmark = pytest.mark.long


def twelve_bits(pixels):
    """Images of five channels and twelve bits, each on its own scale, whose content is that of bytes."""
    grey = pixels[..., :1].astype(np.float64)
    return np.concatenate([4 * grey + 500, 8 * grey, grey + 3000, 4095 - 4 * grey, 2 * grey], axis=-1).astype(np.uint16)


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """A folder of twelve-bit TIFF files in folders of classes, and a recipe for it."""
    folder = tmp_path_factory.mktemp("cells")
    images, labels = upright_images(160)
    for number, (image, label) in enumerate(zip(twelve_bits(images), labels, strict=True)):
        place = folder / "data" / f"class-{label}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.tif").write_bytes(tiff(image, deflate=True, rows=5))
    recipe = TINY_RECIPE.format(data=folder / "data").replace("validation = 0.2", "validation = 0.2\nsize = 16")
    (folder / "cells.toml").write_text(recipe + PROBE)
    return folder


@pytest.fixture(scope="module")
def trained(cells):
    result, run = start(cells / "cells.toml")
    assert result.returncode == 0, result.stdout + result.stderr
    return run


def test_twelve_bits_are_learned_from_and_the_export_takes_the_numbers_of_the_files(cells, trained):
    ranges = trained.facts()["value_range"]
    assert ranges["percentiles"] == [0.1, 99.9] and len(ranges["low"]) == len(ranges["high"]) == 5
    assert ranges["low"][0] == pytest.approx(500, abs=40) and ranges["high"][3] == pytest.approx(4095, abs=40)
    (accuracy,) = [event["accuracy"] for event in events_of(trained, "test")]
    assert accuracy > 0.6
    model = keras.models.load_model(trained.backbone)
    assert model.input.name == "values" and model.input.shape[1:] == (16, 16, 5)
    scaling = model.get_layer("normalization")
    files = sorted((cells / "data").rglob("*.tif"))
    scaled = np.asarray(scaling(np.stack([read_whole(file, 5, deep=True) for file in files])))
    np.testing.assert_allclose(scaled.mean(axis=(0, 1, 2)), 0, atol=0.1)
    np.testing.assert_allclose(scaled.std(axis=(0, 1, 2)), 1, atol=0.1)
    with Image.open(next(trained.samples.glob("step-*.png"))) as strip:
        assert strip.mode == "RGB" and np.asarray(strip).std() > 20


def test_a_run_on_such_files_resumes_to_the_bit(cells, trained):
    process = subprocess.Popen(command("run", "cells.toml", "--name", "again"), cwd=cells, stdout=subprocess.DEVNULL)
    again = run_of(cells, "again")
    wait_for_step(again, 4)
    process.terminate()
    assert process.wait(60) == 143 and again.state() == "stopped"
    before = again.facts()["value_range"]
    assert run_cli("resume", "again", cwd=cells).returncode == 0
    assert again.facts()["value_range"] == before == trained.facts()["value_range"]
    assert_same_end(again, trained)


def test_commands_on_files_take_such_files_with_a_model_of_them(cells, trained):
    assert invoke("embed", "run", "data", "--to", "f.npz", cwd=cells).returncode == 0
    with np.load(cells / "f.npz") as features:
        assert len(features["files"]) == 160 and np.isfinite(features["features"]).all()
    result = invoke("predict", "run", "data", "--to", "p.csv", "--page", "p.html", cwd=cells)
    assert result.returncode == 0, result.stderr
    rows = list(csv.DictReader((cells / "p.csv").open()))
    assert not any(row["error"] for row in rows) and "data:image/jpeg" in (cells / "p.html").read_text()
    last = invoke("predict", "run", "data", "--to", "q.csv", "--page", "q.html", "--shown", 4, cwd=cells)
    assert last.returncode == 0 and (cells / "q.html").read_text() != (cells / "p.html").read_text()
    found = json.loads(invoke("anomalies", "run", "data", "--json", cwd=cells).stdout)
    assert len(found["pictures"]) == 160 and not found["unreadable"]
    upright = json.loads(invoke("upright", "data", "--model", "run", "--json", cwd=cells).stdout)
    assert sum(each["clockwise"] == 0 for each in upright["pictures"]) > 100 and not upright["failed"]
    Image.new("RGB", (20, 20)).save(cells / "eight.png")
    eight = invoke("embed", "run", "eight.png", "--to", "e.npz", cwd=cells)
    assert eight.returncode == 3 and "3 channels, and 5 are expected" in eight.stderr and not (cells / "e.npz").exists()


def test_backbones_of_bytes_get_such_values_as_bytes(cells):
    arguments = ("pretrained.run=compact4_cifar10", f"data.name={cells / 'rgb'}", "train.steps=2", "train.batch=8")
    for file in sorted((cells / "data").rglob("*.tif"))[::4]:
        place = cells / "rgb" / file.parent.name
        place.mkdir(parents=True, exist_ok=True)
        (place / file.name).write_bytes(tiff(read_whole(file, 5, deep=True)[..., :3].astype(np.uint16)))
    result = run_cli("run", "finetune", *arguments, "--name", "tuned", cwd=cells)
    assert result.returncode == 0, result.stdout + result.stderr
    model = keras.models.load_model(run_of(cells, "tuned").export / "classifier.keras")
    assert model.input.name == "values"
    assert invoke("predict", "tuned", "rgb", "--to", "t.csv", cwd=cells).returncode == 0


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """A finished run on images of twice the width, and its folder."""
    folder = tmp_path_factory.mktemp("scans")
    images, labels = upright_images(160, size=40)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / "data" / f"class-{label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[10:30]).save(place / f"{number}.png")
    recipe = TINY_RECIPE.format(data=folder / "data").replace("validation = 0.2", "validation = 0.2\nsize = [16, 32]")
    recipe = recipe.replace("pad = 2", "crop = [12, 24]\narea = [0.5, 1.0]")
    (folder / "scans.toml").write_text(recipe.replace("[rotation]\n", "[rotation]\nangles = [0, 180]\n") + PROBE)
    result, run = start(folder / "scans.toml")
    assert result.returncode == 0, result.stdout + result.stderr
    return folder, run


def test_rectangles_are_trained_on_probed_and_exported(scans):
    _, run = scans
    assert run.facts()["data"]["image_shape"] == [16, 32, 3]
    assert keras.models.load_model(run.backbone).input.shape[1:] == (12, 24, 3)
    (accuracy,) = [event["accuracy"] for event in events_of(run, "test")]
    assert accuracy > 0.6 and {event["weights"] for event in events_of(run, "probe")} == {"rotnet", "random", "pixels"}
    with Image.open(next(run.samples.glob("step-*.png"))) as strip:
        assert strip.height == 12 and strip.width % 24 == 0
    assert (run.path / "report.html").is_file()


def test_upright_finds_scans_that_lie_upside_down(scans):
    folder, _ = scans
    album = folder / "album"
    album.mkdir()
    for number, file in enumerate(sorted((folder / "data").rglob("*.png"))[:40]):
        with Image.open(file) as image:
            (image.rotate(180) if number % 4 == 0 else image).save(album / f"{number}.png")
    result = invoke("upright", "album", "--model", "run", "--json", "--page", "u.html", cwd=folder)
    assert result.returncode == 0, result.stderr
    found = {each["file"].split("/")[-1]: each["clockwise"] for each in json.loads(result.stdout)["pictures"]}
    assert set(found.values()) == {0, 180}
    assert sum((angle == 180) == (int(name[:-4]) % 4 == 0) for name, angle in found.items()) >= 34
    measured = invoke("measure-upright", "data", "--model", "run", "--to", "measured", "--json", cwd=folder)
    assert measured.returncode == 0, measured.stderr
    shares = json.loads(measured.stdout)
    assert [each["counter_clockwise"] for each in shares["angles"]] == [0, 180] and shares["accuracy"]["value"] > 0.8


def test_other_commands_take_rectangles(scans):
    folder, _ = scans
    assert invoke("embed", "run", "data", "--to", "f.npz", cwd=folder).returncode == 0
    assert invoke("predict", "run", "data", "--to", "p.csv", cwd=folder).returncode == 0
    assert not any(row["error"] for row in csv.DictReader((folder / "p.csv").open()))
    assert invoke("plan", "scans.toml", cwd=folder).returncode == 0
    card = json.loads((folder / "runs/run/export/classifier.json").read_text())
    assert (card["size"], card["side"], card["fit"]) == ([16, 32], [12, 24], "crop")
