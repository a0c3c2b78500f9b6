"""The orientation of single images, anomaly scores, and the commands around them."""

import base64
import csv
import json
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support.tiny import shared_data, upright_images

from rotnet_keras.cli.main import app
from rotnet_keras.errors import DataError
from rotnet_keras.inference.loading import ImageLoader
from rotnet_keras.inference.orientation import (
    OrientationModel,
    anomaly_score,
    fit_temperature,
    load_orientation_model,
    orientation_probabilities,
    predict,
)
from rotnet_keras.inference.orientation_metrics import calibration_bins, calibration_error


@pytest.fixture
def pictures(tmp_path):
    """Six upright images, three of noise, and a file that cannot be read."""
    images, _ = upright_images(6, seed=2)
    noise = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    for kind, arrays in (("usual", images), ("noise", noise)):
        (tmp_path / kind).mkdir()
        for number, pixels in enumerate(arrays):
            Image.fromarray(pixels).save(tmp_path / kind / f"{number}.png")
    (tmp_path / "usual" / "empty.png").touch()
    return tmp_path


def anomalies(*arguments):
    return CliRunner().invoke(app, ["anomalies", *map(str, arguments)], catch_exceptions=True)


def test_predictions_are_combined_over_the_copies():
    """Three copies say that the image is rotated by 90 degrees, the fourth that it is upright."""
    said = np.full((1, 4, 4), 0.05)
    for copy, turn in ((0, 1), (1, 2), (2, 3), (3, 3)):
        said[0, copy, turn] = 0.85
    (found,) = orientation_probabilities(np.log(said))
    assert found.argmax() == 1 and found.sum() == pytest.approx(1)
    weights = np.exp([[0.25 * np.log(0.85) + 0.75 * np.log(0.05)], [0.75 * np.log(0.85) + 0.25 * np.log(0.05)]])[:, 0]
    assert found[0] / found[1] == pytest.approx(weights[0] / weights[1])
    (softer,) = orientation_probabilities(np.log(said), temperature=10)
    assert 0.25 < softer[1] < found[1]


def test_an_image_of_unrecognised_rotations_is_an_anomaly():
    sure, unsure = np.full((4, 4), 1e-6), np.full((4, 4), 0.25)
    np.fill_diagonal(sure, 1 - 3e-6)
    assert anomaly_score(np.log([sure, unsure])) == pytest.approx([0, np.log(4)], abs=1e-5)


def test_the_angle_of_rotated_images_is_predicted(finished, pictures):
    network = load_orientation_model(finished[1])
    images, _ = upright_images(30, seed=5)
    for turn in range(4):
        found = orientation_probabilities(network.log_probabilities(np.rot90(images, turn, (1, 2)))).argmax(axis=1)
        assert (found == turn).mean() > 0.9
    seen = predict(network, sorted((pictures / "usual").iterdir()))
    assert [file.name for file in seen.files] == [f"{number}.png" for number in range(6)]
    assert [(file.name, why) for file, why in seen.unreadable] == [("empty.png", "the file is empty")]
    assert (
        isinstance(network, OrientationModel)
        and network.angles == (0, 90, 180, 270)
        and network.loader == ImageLoader(16, 16, 3)
    )


def test_images_unlike_the_training_data_come_first(finished, pictures):
    result = anomalies(
        finished[1].path, pictures / "usual", "--against", pictures / "noise", "--csv", pictures / "all.csv", "--json"
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["auroc"] > 0.9 and len(found["pictures"]) == 9
    assert sum("noise" in picture["file"] for picture in found["pictures"][:4]) == 3
    assert [entry["reason"] for entry in found["unreadable"]] == ["the file is empty"]
    with (pictures / "all.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [picture["file"] for picture in found["pictures"]]
    short = anomalies(finished[1].export / "rotnet.keras", pictures / "usual", "--top", 2)
    assert len([line for line in short.output.splitlines() if ".png" in line and "Skipped" not in line]) == 2
    assert "Skipped 1 files: " in short.output


@pytest.fixture
def photos(tmp_path):
    """Eight JPEG files, of which three are not upright, and a PNG file that is not upright either."""
    images, _ = upright_images(9, seed=3)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, pixels in enumerate(images[:8]):
        Image.fromarray(np.rot90(pixels, number % 4 if number < 5 else 0)).save(folder / f"{number}.jpg", quality=98)
    Image.fromarray(np.rot90(images[8], 3)).save(folder / "drawing.png")
    return folder


def upright(*arguments):
    result = CliRunner().invoke(app, ["upright", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_images_are_rotated_upright_with_write(finished, photos):
    before = {file.name: file.read_bytes() for file in photos.iterdir()}
    arguments = [photos, "--network", finished[1].path, "--min-confidence", "0.5"]
    found = json.loads(upright(*arguments, "--json"))
    assert 0.02 <= found["temperature"] <= 20
    needed = {Path(picture["file"]).name: picture["clockwise"] for picture in found["pictures"]}
    # Images rotated counter-clockwise need a clockwise correction.
    expected = {"1.jpg": 90, "2.jpg": 180, "3.jpg": 270, "drawing.png": 270}
    assert {name: turn for name, turn in needed.items() if turn} == expected
    told = upright(*arguments)
    assert "4 of 9 images need rotation" in told and "No file was changed. To rotate them: --write exif" in told
    assert {file.name: file.read_bytes() for file in photos.iterdir()} == before
    told = upright(*arguments, "--write", "exif", "--csv", photos.parent / "turns.csv")
    assert (
        "Skipped 1 files: " in told
        and "drawing.png (expected a JPEG file, got PNG" in told
        and "Rotated 3 files." in told
    )
    assert (photos.parent / "turns.csv").read_text().startswith("file,clockwise,confidence,sure")
    changed = {name for name, content in before.items() if (photos / name).read_bytes() != content}
    assert changed == {"1.jpg", "2.jpg", "3.jpg"}
    assert "Rotated 1 files." in upright(*arguments, "--write", "pixels")
    assert "0 of 9 images need rotation" in upright(*arguments)


def test_the_default_is_a_pretrained_model_that_knows_real_photos(tmp_path):
    scenes = sorted(shared_data("scenes15").glob("test/*/*.jpg"))[::12]
    result = CliRunner().invoke(app, ["measure-upright", *map(str, scenes), "--to", str(tmp_path / "to"), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["accuracy"]["of"] == 50 and found["accuracy"]["value"] > 0.7


def test_a_read_only_file_is_named_and_the_others_are_rotated(finished, photos):
    before = {file.name: file.read_bytes() for file in photos.iterdir()}
    (photos / "2.jpg").chmod(0o444)
    told = upright(photos, "--network", finished[1].path, "--min-confidence", "0.5", "--write", "exif")
    assert "2.jpg (the file is read-only)" in told and "Rotated 2 files." in told
    changed = {name for name, content in before.items() if (photos / name).read_bytes() != content}
    assert changed == {"1.jpg", "3.jpg"} and len(list(photos.iterdir())) == len(before)


def test_the_page_shows_what_is_not_upright_and_what_is_doubtful(finished, photos, monkeypatch):
    page, named = photos.parent / "page.html", photos / "<b>&.jpg"
    (photos / "1.jpg").rename(named)
    arguments = [photos, "--network", finished[1].path, "--page", page]
    told = upright(*arguments, "--min-confidence", "0.5", "--write", "exif")
    content = page.read_text()
    assert (
        f"Page: {page}" in told
        and "4 of 9 images need rotation" in content
        and "4 images, the least confident first" in content
    )
    assert content.count("data:image/jpeg;base64,/9j/") == 8 and "http" not in content
    assert "<b>" not in content and "&lt;b&gt;&amp;.jpg" in content
    before, after = (
        np.asarray(Image.open(BytesIO(base64.b64decode(part.split('"')[0]))), float)
        for part in content.split('src="data:image/jpeg;base64,')[1:3]
    )
    quarters = int(re.search(r"rotated (\d+)° clockwise", content).group(1)) // 90
    assert np.abs(np.rot90(before, -quarters) - after).mean() < 4
    monkeypatch.setattr("rotnet_keras.inference.pages.MOST", 2)
    upright(*[photos, "--network", finished[1].export / "rotnet.keras", "--page", page], "--min-confidence", "1")
    content = page.read_text()
    assert "Doubtful, left as they are" in content and "None." in content


def test_orientation_metrics_are_those_of_the_predictions(finished, photos, tmp_path):
    images, _ = upright_images(40, seed=7)
    folder = tmp_path / "upright"
    folder.mkdir()
    for number, pixels in enumerate(images):
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (folder / "text.png").write_text("no picture")
    to = tmp_path / "measured"
    arguments = ["measure-upright", folder, "--network", finished[1].path, "--to", to, "--min-confidence", 0.6]
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert "40 images" in result.output and "text.png (" in result.output
    found = json.loads((to / "upright.json").read_text())
    network = load_orientation_model(finished[1])
    said = network.log_probabilities(images)
    answers = orientation_probabilities(said, found["temperature"])
    # The prediction for a rotated image is that for the upright one, rotated.
    right = answers.argmax(axis=1) == 0
    assert found["accuracy"]["value"] == pytest.approx(right.mean()) and found["accuracy"]["of"] == 40
    assert found["decided"]["value"] == pytest.approx((answers.max(axis=1).round(4) >= 0.6).mean())
    assert found["covered"]["of"] == 36 and found["covered"]["value"] >= found["accuracy"]["value"]
    assert found["accuracy"]["low"] < found["accuracy"]["value"] <= found["accuracy"]["high"] <= 1
    assert [each["counter_clockwise"] for each in found["angles"]] == [0, 90, 180, 270]
    assert sum(each["accuracy"]["of"] for each in found["angles"]) == 40
    text = (to / "upright.md").read_text()
    assert "temperature" in text and "| 270° | " in text and str(tmp_path) not in text
    with Image.open(to / "reliability.png") as image:
        assert image.width > 400
    before = (to / "upright.json").read_bytes()
    assert CliRunner().invoke(app, [*map(str, arguments)]).exit_code == 0
    assert (to / "upright.json").read_bytes() == before


def test_the_calibration_error_of_known_predictions():
    """At a confidence of 0.95 80 % are correct, at 0.55 60 %."""
    confidence = np.repeat([0.95, 0.55], [10, 30])
    right = np.array([True] * 8 + [False] * 2 + [True] * 18 + [False] * 12)
    bins = calibration_bins(confidence, right)
    assert [each.accuracy.count for each in bins] == [30, 10]
    assert calibration_error(bins) == pytest.approx((30 * 0.05 + 10 * 0.15) / 40)


def test_doubtful_images_are_left_alone(finished, photos):
    told = upright(photos, "--network", finished[1].export / "rotnet.keras", "--min-confidence", "1")
    assert "0 of 9 images need rotation; 9 are doubtful" in told and "not calibrated: a .keras file" in told


def test_an_overconfident_model_is_calibrated():
    """Its confidence is 0.99, and three of four predictions are correct."""
    said = np.full((100, 4, 4), 0.01 / 3)
    said[np.arange(100)[:, None], np.arange(4), (np.arange(4) + (np.arange(100) % 4 == 0)[:, None]) % 4] = 0.99
    temperature = fit_temperature(np.log(said))
    assert orientation_probabilities(np.log(said), temperature).max(axis=1) == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize(
    ("network", "paths", "message"),
    [
        ("backbone.keras", ["usual"], "expected 4 probabilities"),
        ("rotnet.keras", ["nothing"], "no file or folder"),
        ("rotnet.keras", ["."], None),
    ],
)
def test_mistakes_are_explained(finished, pictures, network, paths, message):
    result = anomalies(finished[1].export / network, *(pictures / path for path in paths))
    if message is None:
        assert result.exit_code == 0, result.output
    else:
        assert isinstance(result.exception, DataError) and message in str(result.exception)
