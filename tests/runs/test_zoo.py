"""The model zoo, here in a folder that the maintainer's script fills from a tiny run."""

import io
import json
import os
import runpy
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support.tiny import upright_images
from support.whole_runs import events_of

import rotnet_keras
from rotnet_keras.cli.main import app
from rotnet_keras.errors import RotnetError, RunError
from rotnet_keras.inference.orientation import load_orientation_model
from rotnet_keras.reports.report import render
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.launch import load_for_run
from rotnet_keras.runs.zoo import calibration_source, find_run_or_pretrained, list_pretrained, load_card, size_mb

SCRIPT = Path(__file__).parents[2] / "scripts" / "ship_weights.py"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def folder(finished, script, tmp_path_factory):
    """A model zoo with one model, that of the finished run."""
    folder = tmp_path_factory.mktemp("shipped") / "weights"
    assert script["ship"](finished[1], "tiny_upright", folder, "They are made up.") == folder / "tiny_upright"
    assert [path.name for path in folder.iterdir()] == ["tiny_upright"]
    return folder


@pytest.fixture
def network(folder, monkeypatch):
    monkeypatch.setattr("rotnet_keras.runs.zoo.FOLDER", folder)
    return RunFolder(folder / "tiny_upright")


def output(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, result.output or result.exception
    return result.output


def weights_of(archive):
    found = {}
    with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(lambda name, node: found.update({name: node[()]} if isinstance(node, h5py.Dataset) else {}))
    return found


@pytest.mark.parametrize("model", ["backbone", "rotnet"])
def test_the_files_are_the_runs_with_kernels_in_float16(finished, network, model):
    from rotnet_keras.engine import keras

    files = [place.export / f"{model}.keras" for place in (finished[1], network)]
    with zipfile.ZipFile(files[0]) as theirs, zipfile.ZipFile(files[1]) as ours:
        assert ours.read("config.json") == theirs.read("config.json")
        before, after = weights_of(theirs), weights_of(ours)
    assert before.keys() == after.keys()
    for name, value in before.items():
        expected = value.astype(np.float16) if value.ndim > 1 else value
        assert after[name].dtype == expected.dtype and np.array_equal(after[name], expected), name
    pixels, _ = upright_images(40, seed=1)
    expected, found = (keras.models.load_model(file).predict(pixels, verbose=0) for file in files)
    assert found.dtype == np.float32 and not np.array_equal(found, expected)
    # A part in 2,000 is what float16 rounds a weight by.
    np.testing.assert_allclose(found, expected, atol=0.002 * np.abs(expected).max())


def test_the_card_has_the_results_of_the_run_and_nothing_of_its_machine(finished, network):
    run, card = finished[1], load_card(network)
    (test,), probes = events_of(run, "test"), events_of(run, "probe")
    assert card["rotation"]["accuracy"] == test["accuracy"]
    assert abs(card["rotation"]["of_these_files"] - card["rotation"]["of_the_runs_files"]) <= 0.001
    assert card["rotation"]["of_these_files"] == pytest.approx(test["accuracy"], abs=0.02)
    assert [probe["top1"] for probe in card["probes"]] == [probe["top1"] for probe in probes]
    assert card["best_probe"]["weights"] == "rotnet" and card["temperature"] is None
    text = (network.path / "card.md").read_text(encoding="utf-8")
    assert f"{100 * test['accuracy']:.1f}" in text and "conv2" in text and "## Licence" in text
    assert "they have their own terms. They are made up." in text
    for file in ("card.md", "card.json", "recipe.toml"):
        content = (network.path / file).read_text(encoding="utf-8")
        assert not [place for place in (str(run.path.parents[1]), "/tmp", os.uname().nodename) if place in content]


@pytest.mark.parametrize("name", list_pretrained())
def test_shipped_models_match_their_cards(name):
    network = list_pretrained()[name]
    card, loaded = load_card(network), load_orientation_model(network)
    text = (network.path / "card.md").read_text(encoding="utf-8")
    assert len(card["images"]) > 50 and card["images"] in text
    assert card["name"] == name and f"rotnet_keras.load({name!r})".replace("'", '"') in text
    assert render("calibration.md", {"card": card}) in text
    assert list(loaded.angles) == card["rotation"]["angles"] and size_mb(network) < 10
    assert rotnet_keras.load(name).input_shape == loaded.model.input_shape
    assert loaded.model.count_params() > card["parameters"] > 0
    # More cannot be checked without the data: `rotnet-keras measure-weights` measures the figures again.
    side, _, channels = loaded.model.input_shape[1:]
    said = loaded.log_probabilities(np.random.default_rng(0).integers(0, 256, (2, side, side, channels), np.uint8))
    np.testing.assert_allclose(np.exp(said).sum(axis=2), 1, atol=1e-3)


def test_the_model_for_photos_says_that_it_is_calibrated_near_its_training():
    network = list_pretrained()["airbench4_photos"]
    card = load_card(network)
    assert "360 of PASCAL VOC 2007" in card["images"]
    said = (
        "176 images of PASCAL VOC 2012, none of which was in the training, though 360 similar ones of PASCAL VOC 2007"
    )
    assert calibration_source(network).startswith(said)
    assert f"Its confidences are calibrated on {said} were" in (network.path / "card.md").read_text(encoding="utf-8")


def test_a_run_is_calibrated_on_its_validation_images(finished, network):
    assert calibration_source(finished[1]) == calibration_source(finished[1].backbone) == "the run's validation images"


def test_models_are_listed_described_and_copied(network, tmp_path):
    listed = output("weights").splitlines()
    assert len(listed) == 2 and listed[1].startswith("tiny_upright  0.1  tiny.npz ")
    (card,) = json.loads(output("weights", "--json"))
    assert card["name"] == "tiny_upright" and 0 < card["megabytes"] < 0.2
    assert output("weights", "tiny_upright").startswith("# tiny_upright\n")
    output("weights", "tiny_upright", "--to", tmp_path / "mine")
    copied = sorted(path.relative_to(tmp_path / "mine") for path in (tmp_path / "mine").rglob("*") if path.is_file())
    assert copied == sorted(path.relative_to(network.path) for path in network.path.rglob("*") if path.is_file())
    result = CliRunner().invoke(app, ["weights", "tiny_upright", "--to", str(tmp_path / "mine")])
    assert isinstance(result.exception, RotnetError) and "exists already" in str(result.exception)
    with pytest.raises(RotnetError, match="no pretrained model called 'tiny_uprite'; did you mean 'tiny_upright'"):
        rotnet_keras.load("tiny_uprite")
    with pytest.raises(RotnetError, match="did you mean 'tiny_upright'"):
        find_run_or_pretrained("tiny_uprit", tmp_path)


def test_an_empty_zoo_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr("rotnet_keras.runs.zoo.FOLDER", tmp_path / "nothing")
    assert output("weights").startswith("No pretrained models come with this version")
    assert output("weights", "--json").strip() == "[]"
    result = CliRunner().invoke(app, ["measure-weights", "any"])
    assert isinstance(result.exception, RotnetError) and "(available: none)" in str(result.exception)
    with pytest.raises(RunError, match="no run called 'any'"):
        find_run_or_pretrained("any", tmp_path)


def test_a_model_name_works_wherever_a_run_does(network, tiny_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, _ = upright_images(6, seed=2)
    (tmp_path / "pictures").mkdir()
    for number, pixels in enumerate(images):
        Image.fromarray(np.rot90(pixels, number % 4)).save(tmp_path / "pictures" / f"{number}.png")
    found = json.loads(output("upright", "pictures", "--model", "tiny_upright", "--min-confidence", "0.5", "--json"))
    assert found["temperature"] == 1 and found["uncalibrated"] == "the model's card has no temperature"
    assert [picture["clockwise"] for picture in found["pictures"]] == [0, 90, 180, 270, 0, 90]
    assert "5.png" in output("anomalies", "tiny_upright", "pictures")
    embedded = output("embed", "tiny_upright", "pictures", "--to", "f.npz")
    assert "6 images with 16 features each, from the layer conv1" in embedded
    model = rotnet_keras.load("tiny_upright")
    assert model.input_shape == (None, 16, 16, 3) and model.get_layer("conv2")
    for recipe, key in (("probe", "backbone"), ("finetune", "pretrained")):
        loaded, _ = load_for_run(recipe, {f"{key}.run": "tiny_upright", "data.name": str(tiny_data)}, tmp_path)
        assert getattr(loaded, key).file == str(network.backbone)
    (tmp_path / "tiny_upright").mkdir()
    (tmp_path / "tiny_upright" / "recipe.toml").touch()
    assert find_run_or_pretrained("tiny_upright", tmp_path).path == tmp_path / "tiny_upright"


def test_only_a_finished_pretraining_ships_under_a_name_of_its_own(finished, folder, script, tmp_path):
    with pytest.raises(RunError, match="exists already"):
        script["ship"](finished[1], "tiny_upright", folder, "Made up.")
    with pytest.raises(RunError, match="cannot name a pretrained model"):
        script["ship"](finished[1], "../up", folder, "Made up.")
    with pytest.raises(RunError, match="not a finished pretraining"):
        script["ship"](RunFolder(tmp_path), "other", folder, "Made up.")
    assert [path.name for path in folder.iterdir()] == ["tiny_upright"]


@pytest.mark.slow
def test_the_figures_of_the_card_are_measured_again(network, tiny_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = output("measure-weights", "tiny_upright", f"data.name={tiny_data}").splitlines()
    figures = [line.split()[:2] for line in lines if " rotation accuracy" in line or "probe" in line or "k-NN" in line]
    assert len(figures) == 1 + len(load_card(network)["probes"])
    rotation = figures[0]
    assert rotation[0] == rotation[1]
    # Forty test images, of which one is 2.5 points, and heads that a few steps leave in motion.
    assert all(abs(float(card) - float(here)) <= 10 for card, here in figures), "\n".join(lines)
    other = tmp_path / "other.npz"
    images, labels = upright_images(200, seed=8)
    np.savez(other, x_train=images, y_train=labels)
    result = CliRunner().invoke(app, ["measure-weights", "tiny_upright", f"data.name={other}"])
    assert "other data than those of the card" in str(result.exception)
