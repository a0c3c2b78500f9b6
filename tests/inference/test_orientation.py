"""The orientation of single images, anomaly scores, and the commands around them."""

import base64
import csv
import json
import re
import shlex
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support.photos import photo
from support.tiny import shared_data, upright_images

from rotnet_keras.cli.main import app
from rotnet_keras.errors import DataError
from rotnet_keras.inference.album_metrics import album_metrics, draw_quarters
from rotnet_keras.inference.corrections import (
    MIN_CONFIDENCE,
    SPOIL_COST,
    Correction,
    Corrections,
    estimate_prior,
    find_corrections,
    summarize,
)
from rotnet_keras.inference.loading import ImageLoader
from rotnet_keras.inference.orientation import (
    OrientationModel,
    Predictions,
    anomaly_score,
    fit_temperature,
    joint_anomaly_score,
    load_orientation_model,
    orientation_probabilities,
    predict,
)
from rotnet_keras.inference.orientation_metrics import calibration_bins, calibration_error
from rotnet_keras.runs.zoo import list_pretrained, load_card

# What `measure-upright` found on albums of photos.
ALBUMS = Path(__file__).parents[2] / "results" / "upright_albums"


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


def test_an_image_of_no_class_is_an_anomaly_whose_rotations_are_recognised():
    rotations = np.log([np.full((4, 4), 0.25)] * 2)
    uniform, sure = joint_anomaly_score(rotations, np.array([[0.5, 0.5], [0.8, 0.2]]))
    assert uniform == pytest.approx(np.log(4))
    assert uniform - sure == pytest.approx(0.5 * np.log(0.5 / 0.8) + 0.5 * np.log(0.5 / 0.2))


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


def test_an_image_and_its_mirror_image_are_predicted_alike(finished, tmp_path):
    network = load_orientation_model(finished[1])
    images, _ = upright_images(5, seed=6)
    one, mirrored = network.log_probabilities(images), network.log_probabilities(images[:, :, ::-1])
    for each, copies in (("one", images), ("mirrored", images[:, :, ::-1])):
        (tmp_path / each).mkdir()
        for number, pixels in enumerate(copies):
            Image.fromarray(pixels).save(tmp_path / each / f"{number}.png")
    assert network.mirrored
    plain = replace(network, mirrored=False)
    found = {
        each: predict(network, sorted((tmp_path / each).iterdir())).log_probabilities for each in ("one", "mirrored")
    }
    opposite = [0, 3, 2, 1]
    np.testing.assert_allclose(found["one"], found["mirrored"][:, opposite][:, :, opposite], atol=1e-6)
    expected = (np.exp(one) + np.exp(mirrored[:, opposite][:, :, opposite])) / 2
    np.testing.assert_allclose(np.exp(found["one"]), expected, atol=1e-6)
    alone = predict(plain, sorted((tmp_path / "one").iterdir())).log_probabilities
    np.testing.assert_allclose(alone, one, atol=1e-6)
    assert np.abs(one - mirrored[:, opposite][:, :, opposite]).max() > 1e-3


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
    arguments = [photos, "--model", finished[1].path, "--min-confidence", "0.5"]
    found = json.loads(upright(*arguments, "--json"))
    # Forty validation images are too few to calibrate with.
    assert found["temperature"] == 1 and "40 images are too few to calibrate with" in found["uncalibrated"]
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
    # One of nine is rotated now, so that the estimated share asks for more evidence than the given one.
    assert "Rotated 1 files." in upright(*arguments, "--write", "pixels", "--prior", "0.5")
    assert "0 of 9 images need rotation" in upright(*arguments)


@pytest.mark.long
def test_the_default_is_a_pretrained_model_that_knows_real_photos(tmp_path):
    scenes = sorted(shared_data("scenes15").glob("test/*/*.jpg"))[::12]
    result = CliRunner().invoke(app, ["measure-upright", *map(str, scenes), "--to", str(tmp_path / "to"), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["accuracy"]["of"] == 50 and found["accuracy"]["value"] > 0.7


def test_a_read_only_file_is_named_and_the_others_are_rotated(finished, photos):
    before = {file.name: file.read_bytes() for file in photos.iterdir()}
    (photos / "2.jpg").chmod(0o444)
    told = upright(photos, "--model", finished[1].path, "--min-confidence", "0.5", "--write", "exif")
    assert "2.jpg (the file is read-only)" in told and "Rotated 2 files." in told
    changed = {name for name, content in before.items() if (photos / name).read_bytes() != content}
    assert changed == {"1.jpg", "3.jpg"} and len(list(photos.iterdir())) == len(before)


def test_the_page_shows_what_is_not_upright_and_what_is_doubtful(finished, photos, monkeypatch):
    page, named = photos.parent / "page.html", photos / "<b>&.jpg"
    (photos / "1.jpg").rename(named)
    arguments = [photos, "--model", finished[1].path, "--page", page]
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
    upright(*[photos, "--model", finished[1].export / "rotnet.keras", "--page", page], "--min-confidence", "1")
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
    arguments = ["measure-upright", f"{folder}/", "--model", finished[1].path, "--to", to, "--min-confidence", 0.6]
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert "40 images" in result.output and "text.png (" in result.output
    found = json.loads((to / "upright.json").read_text())
    network = load_orientation_model(finished[1])
    said = network.averaged_log_probabilities(images)
    answers = orientation_probabilities(said, found["temperature"])
    # The prediction for a rotated image is that for the upright one, rotated.
    right = answers.argmax(axis=1) == 0
    assert found["accuracy"]["value"] == pytest.approx(right.mean()) and found["accuracy"]["of"] == 40
    assert found["decided"]["value"] == pytest.approx((answers.max(axis=1) >= 0.6).mean())
    assert found["covered"]["of"] == 36 and found["covered"]["value"] >= found["accuracy"]["value"]
    assert found["accuracy"]["low"] < found["accuracy"]["value"] <= found["accuracy"]["high"] <= 1
    assert [each["counter_clockwise"] for each in found["angles"]] == [0, 90, 180, 270]
    assert sum(each["accuracy"]["of"] for each in found["angles"]) == 40
    text = (to / "upright.md").read_text()
    assert "not calibrated" in text and "| 270° | " in text
    # The command is recorded as it was typed, with the defaults.
    typed = f"measure-upright {folder}/ --model {finished[1].path} --to {to} --min-confidence 0.6"
    assert f"`rotnet-keras {typed} --spoil-cost 10 --seed 0`" in text
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


def album(shares, wrong=0.0):
    """Predictions for images of which a share is rotated by 90, 180 and 270 degrees, and how they are rotated.

    Of 100 images of each kind, `wrong` are predicted 90 degrees too far; all are predicted with a probability of 0.9.
    """
    truth = np.repeat(np.arange(4), shares)
    seen = (truth + (np.arange(len(truth)) % 100 < wrong)) % 4
    said = np.full((len(truth), 4, 4), 0.1 / 3)
    said[np.arange(len(truth))[:, None], np.arange(4), (np.arange(4) + seen[:, None]) % 4] = 0.9
    files = [Path(f"{number}.jpg") for number in range(len(truth))]
    return Predictions(files, np.log(said), []), truth


@pytest.mark.parametrize("share", [0.0, 0.05, 0.33, 0.75])
def test_the_share_of_upright_images_is_estimated_from_the_album(share):
    rotated = round(1000 * share)
    predictions, _ = album([1000 - rotated, rotated, 0, 0])
    likelihoods = orientation_probabilities(predictions.log_probabilities)
    # The likelihood of the share, maximised by hand: these likelihoods are 0.9 or 0.1 / 3.
    shares = np.linspace(0.001, 0.999, 1997)
    mixed = shares[:, None] * likelihoods[:, 0] + (1 - shares[:, None]) / 3 * (1 - likelihoods[:, 0])
    weight = 9 * np.log(shares) + np.log(1 - shares)
    best = shares[(np.log(mixed).sum(axis=1) + weight).argmax()]
    assert estimate_prior(likelihoods) == pytest.approx(best, abs=0.002)
    assert estimate_prior(np.zeros((0, 4))) == 0.9


def test_an_image_is_rotated_at_posterior_odds_above_the_cost_of_spoiling():
    predictions, _ = album([8, 2, 0, 0])
    # The odds for 90 degrees against upright are 0.9 to 0.1 / 3, times those of the prior, 0.1 / 3 to 0.9: one.
    found = find_corrections(predictions, 1.0, min_confidence=0, prior=0.9, spoil_cost=0.9)
    assert [each.clockwise for each in found.images if each.needed] in ([90, 90], [])
    for prior, cost, needed in ((0.5, 8.9, 2), (0.5, 9.1, 0), (0.25, 26.9, 2), (0.25, 27.1, 0)):
        found = find_corrections(predictions, 1.0, min_confidence=0, prior=prior, spoil_cost=cost)
        assert sum(each.needed for each in found.images) == needed, (prior, cost)
    # With a prior of 0.25 the confidence is 0.9.
    found = find_corrections(predictions, 1.0, min_confidence=0.91, prior=0.25)
    assert not any(each.confident for each in found.images)
    found = find_corrections(predictions, 1.0, min_confidence=0.89, prior=0.25)
    assert found.prior == 0.25 and not found.estimated and [each.confidence for each in found.images] == [0.9] * 10
    assert found.wrong_before == pytest.approx((8 * 0.1 + 2 * (1 - 0.1 / 3)) / 10)
    assert found.wrong_after == pytest.approx(0.1) and found.spoiled == pytest.approx(2 * 0.1 / 3 / 10)


def test_few_rotated_images_are_left_alone_where_the_model_errs_as_often():
    """Of the images that seem to be rotated by 90 degrees, half are upright ones that the model errs on."""
    predictions, truth = album([900, 50, 0, 0], wrong=6)
    equal = find_corrections(predictions, 1.0, min_confidence=0.85, prior=0.25)
    assert album_metrics(equal, truth, 10).spoiled.value == pytest.approx(54 / 900)
    found = album_metrics(find_corrections(predictions, 1.0), truth, 10)
    assert found.spoiled.value == 0 and found.prior > 0.9 and found.wrong_after.value == found.wrong_before.value


def test_a_share_of_an_album_is_rotated():
    for seed in range(3):
        quarters = np.array(draw_quarters(200, seed, 0.05))
        assert (quarters > 0).sum() == 10 and quarters.max() <= 3
    assert not any(draw_quarters(50, 0, 0.0)) and all(draw_quarters(50, 0, 1.0))
    assert set(draw_quarters(50, 0)) == {0, 1, 2, 3}


def test_measure_upright_tells_what_would_be_spoiled(finished, tmp_path):
    images, _ = upright_images(20, seed=7)
    for number, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{number:02}.png")
    to = tmp_path / "measured"
    arguments = ["measure-upright", tmp_path, "--model", finished[1].path, "--to", to, "--rotated", 0.25]
    result = CliRunner().invoke(app, [*map(str, arguments), "--min-confidence", "0.5", "--spoil-cost", "2", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["rotated"] == 0.25 and found["album"]["wrong_before"]["value"] == 0.25
    assert found["album"]["spoiled"] == pytest.approx({"of": 15, "value": 0, "low": 0, "high": 0.204}, abs=1e-3)
    assert found["album"]["righted"]["of"] == 5 and found["album"]["righted"]["value"] == 1
    assert found["album"]["wrong_after"]["value"] == 0 and 0.6 < found["album"]["prior"] < 0.9
    text = (to / "upright.md").read_text()
    assert (
        "25 % were rotated" in text and "--rotated 0.25" in text and "| spoiled, of the upright images | 15 | " in text
    )


@pytest.mark.parametrize("name", ["scenes_0", "scenes_5", "scenes_33", "voc_0", "voc_5", "voc_33"])
def test_at_most_three_of_a_thousand_upright_photos_are_spoiled_by_default(name):
    """As measured with the defaults and the calibration of the model that `upright` takes."""
    found = json.loads((ALBUMS / name / "upright.json").read_text())
    assert found["album"]["spoiled"]["of"] > 100 and found["album"]["spoiled"]["value"] <= 0.003
    assert (found["min_confidence"], found["album"]["spoil_cost"]) == (MIN_CONFIDENCE, SPOIL_COST)
    words = shlex.split(found["command"])
    options = dict(pairwise(words))
    assert "--prior" not in options and found["album"]["prior_estimated"]
    defaults = {each.name: each.default for each in app.get_command(click.Context(app), "upright").params}
    assert (defaults["min_confidence"], defaults["spoil_cost"]) == (MIN_CONFIDENCE, SPOIL_COST)
    assert float(options["--min-confidence"]) == MIN_CONFIDENCE and float(options["--spoil-cost"]) == SPOIL_COST
    assert options["--model"] == defaults["model"]
    assert found["temperature"] == load_card(list_pretrained()[defaults["model"]])["temperature"]


def test_the_album_is_summed_up_in_sentences():
    images = [
        Correction(Path("a.jpg"), 0, 0.99, True),
        Correction(Path("b.jpg"), 90, 0.97, True),
        Correction(Path("c.jpg"), 180, 0.6, False),
    ]
    said = summarize(Corrections(images, 0.914, True, 0.36, 0.121, 0.0042))
    assert said == (
        "1 of 3 images need rotation; 1 are doubtful and left alone; 1 are upright. Share of upright images: 91.4 %, "
        "estimated from these images. Of an album like this 36.0 % are expected to be wrong now and 12.1 % after the "
        "rotation, 0.42 % because an upright image was rotated."
    )


@pytest.mark.long
def test_the_page_says_which_images_the_temperature_was_fitted_on(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(4):
        photo(64, 64, seed=number).save(tmp_path / "photos" / f"{number}.png")
    result = CliRunner().invoke(app, ["measure-upright", str(tmp_path / "photos"), "--to", str(tmp_path / "to")])
    assert result.exit_code == 0, result.output
    card = load_card(list_pretrained()["airbench4_photos"])
    calibration = card["calibration"]
    fitted = f"{calibration['images']} images of {calibration['source']}: temperature {card['temperature']:.3g}."
    assert f"Confidences are calibrated on {fitted}" in (tmp_path / "to" / "upright.md").read_text()


def test_a_temperature_needs_enough_images_and_is_bounded():
    predictions, _ = album([200, 0, 0, 0])
    with pytest.raises(DataError, match="99 images are too few to calibrate with: expected 100 or more"):
        fit_temperature(predictions.log_probabilities[:99])
    # All are correct, so that the likelihood grows without end as the temperature falls.
    assert fit_temperature(predictions.log_probabilities) == 0.5


def test_a_file_of_several_paths_is_rotated_once(finished, photos):
    before = (photos / "1.jpg").read_bytes()
    (photos / "0-link.jpg").symlink_to("1.jpg")
    (photos / "Z").mkdir()
    (photos / "Z" / "link.jpg").symlink_to("../1.jpg")
    again = photos / ".." / photos.name / "1.jpg"
    arguments = ["upright", photos, again, "--model", finished[1].path, "--min-confidence", "0.5", "--write", "exif"]
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    names = [Path(each["file"]).name for each in json.loads(result.stdout)["pictures"]]
    assert sorted(names) == sorted([f"{number}.jpg" for number in range(8)] + ["drawing.png"])
    assert "3 of 12 paths name files that are listed already: " in result.stderr
    assert (photos / "0-link.jpg").is_symlink() and (photos / "1.jpg").read_bytes() != before
    with Image.open(photos / "1.jpg") as image:
        assert image.getexif()[274] == 6


def test_an_image_among_the_unusual_ones_counts_once(finished, pictures):
    (pictures / "usual" / "link.png").symlink_to(pictures / "noise" / "0.png")
    result = anomalies(finished[1].path, pictures / "usual", "--against", pictures / "noise", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert len(found["pictures"]) == 9 and found["auroc"] > 0.9
    assert "1 of IMAGES are also in --against and count as unusual" in result.stderr


def test_doubtful_images_are_left_alone(finished, photos):
    told = upright(photos, "--model", finished[1].export / "rotnet.keras", "--min-confidence", "1")
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
