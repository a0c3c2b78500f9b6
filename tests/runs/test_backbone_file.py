"""What is read from a backbone's file before TensorFlow: the images it takes, and its default tap."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from support.command_line import invoke
from support.fake_runs import fake_run

from rotnet_keras.errors import DataError
from rotnet_keras.runs.exports.backbone_file import choose_tap, default_tap, read_backbone
from rotnet_keras.runs.zoo import find_pretrained, list_pretrained, load_card

PROBE = """\
kind = "probe"
title = "probe"
[data]
name = "{data}"
[backbone]
{source}
[[probe]]
head = "linear"
"""


def keras_file(path, shape, layers=("conv1", "conv2", "conv3"), kind="Functional"):
    """A `.keras` file that says what its model takes and has no weights."""
    of_layers = {"module": "keras.layers", "registered_name": None}
    config = [{"class_name": "InputLayer", "config": {"name": "input", "batch_shape": [None, *shape]}, **of_layers}]
    config += [{"class_name": "ReLU", "config": {"name": name}, **of_layers} for name in layers]
    inputs = {} if kind == "Sequential" else {"input_layers": [["input", 0, 0]]}
    whole = {"class_name": kind, "module": "keras", "config": {"layers": config, **inputs}, "registered_name": None}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (("config.json", whole), ("metadata.json", {}), ("model.weights.h5", {})):
            archive.writestr(name, json.dumps(content))
    return path


@pytest.fixture
def recipe(tmp_path):
    """A function that writes a probe recipe on a folder of images, or on an array of this shape."""

    def write(source, shape=None):
        data = tmp_path / "data"
        if shape is None:
            for name in ("a", "b"):
                (data / name).mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (90, 80)).save(data / name / "1.png")
        else:
            data = tmp_path / "data.npz"
            np.savez(data, x_train=np.zeros((4, *shape), np.uint8), y_train=np.array([0, 1, 0, 1]))
        file = tmp_path / "probe.toml"
        file.write_text(PROBE.format(data=data, source=source))
        return file

    return write


def dry_run(*arguments):
    """The derived keys, or the error, of `run --dry-run`."""
    result = invoke("run", *arguments, "--dry-run")
    if result.returncode:
        return result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith("backbone ")]
    return lines[0].partition("hence ")[2] if lines else ""


def test_a_file_says_which_images_its_model_takes(tmp_path):
    found = read_backbone(find_pretrained("airbench4_photos").backbone)
    assert found.shape == (64, 64, 3) and found.taps == ["conv1", "conv2", "conv3", "conv4"]
    assert read_backbone(keras_file(tmp_path / "s.keras", (28, 28, 1), kind="Sequential")).shape == (28, 28, 1)
    assert read_backbone(keras_file(tmp_path / "a.keras", (None, None, 3))).takes == "any x any x 3"
    for name, content in (("text", b"text"), ("empty", b""), ("vector", None)):
        file = tmp_path / f"{name}.keras"
        file.write_bytes(content) if content is not None else keras_file(file, (10,))
        with pytest.raises(DataError, match=f"{name}.keras: (not a Keras model|expected a model with one input)"):
            read_backbone(file)


@pytest.mark.parametrize(("shape", "overrides", "derived"), [
    # The sizes of the run that trained it: 72, and crops of 64.
    (None, [], "data.size = 72, augment.crop = 64"),
    ((40, 40, 3), [], "data.size = 72, augment.crop = 64"),
    ((40, 40), [], "data.size = 72, augment.crop = 64, data.channels = 3"),
    ((64, 64, 3), [], ""),
    ((30, 40, 3), [], "data.size = 72, augment.crop = 64"),
    (None, ["data.size=96"], "augment.crop = 64"),
    (None, ["data.size=96", "augment.crop=64"], ""),
])  # fmt: skip
def test_sizes_are_derived_from_the_backbone(recipe, shape, overrides, derived):
    assert dry_run(recipe('run = "airbench4_photos"', shape), *overrides) == derived


def test_the_backbones_own_size_is_derived_from_a_lone_file(recipe, tmp_path):
    file = keras_file(tmp_path / "lone.keras", (32, 32, 1))
    assert dry_run(recipe(f'file = "{file}"')) == "data.size = 32, data.channels = 1"
    assert dry_run(recipe(f'file = "{file}"'), "augment.pad=4") == "data.size = 32, data.channels = 1"
    anything = keras_file(tmp_path / "any.keras", (None, None, 3))
    assert dry_run(recipe(f'file = "{anything}"')) == ""
    assert dry_run(recipe(f'file = "{anything}"', (40, 40))) == "data.channels = 3"


def test_what_does_not_fit_is_said_at_once_and_nothing_is_started(recipe, tmp_path):
    file = keras_file(tmp_path / "lone.keras", (32, 32, 3))
    source = recipe(f'file = "{file}"')
    said = dry_run(source, "data.size=24", "augment.crop=16", "data.channels=1")
    assert f"{file} takes images of 32 x 32 x 3: set augment.crop = 32 and data.size = 32, or leave both out" in said
    assert "set data.channels = 3, or leave it out (it is 1)" in said
    assert "set data.size = 32, or leave it out (it is 24)" in dry_run(source, "data.size=24")
    assert "the images have 5 channels, which cannot be converted to 3" in dry_run(
        recipe(f'file = "{file}"', (32, 32, 5))
    )
    wide = keras_file(tmp_path / "wide.keras", (32, 48, 3))
    assert "data.size = [32, 48]" in dry_run(recipe(f'file = "{wide}"'))
    assert "set data.size = [32, 48], or leave it out (it is 24)" in dry_run(recipe(f'file = "{wide}"'), "data.size=24")
    result = invoke("run", source, "data.size=24", "--runs-dir", tmp_path / "runs")
    assert result.returncode == 3 and not (tmp_path / "runs").exists()


def test_layers_that_a_probe_cannot_read_are_said_before_anything_is_started(recipe, tmp_path):
    source = recipe(f'file = "{keras_file(tmp_path / "own.keras", (32, 32, 3), ["stem", "top"])}"')
    said = dry_run(source)
    assert "probe.0.tap = 'all' needs layers named conv1, conv2, ...; its own end in input, stem, top" in said
    said = dry_run(source, 'probe.0.tap="tip"')
    assert "probe.0.tap: it has no layer tip; its layers end in input, stem, top" in said
    assert dry_run(source, 'probe.0.tap="top"') == "data.size = 32"
    assert dry_run(source, 'probe.0.tap="stem+top"') == "data.size = 32"
    assert "it has no layer tip;" in dry_run(source, 'probe.0.tap="stem+tip"')


def test_finetuning_derives_a_size_only_where_none_is_said(recipe, tmp_path):
    file = keras_file(tmp_path / "grey.keras", (32, 32, 1))
    source = recipe(f'file = "{file}"')
    text = source.read_text().replace('"probe"', '"classify"').replace("[backbone]", "[pretrained]")
    source.write_text(text.replace('[[probe]]\nhead = "linear"', "[train]\nsteps = 2"))
    assert dry_run(source) == "data.size = 32, data.channels = 1"
    assert dry_run(source, "data.size=48") == "data.channels = 1"


def test_what_a_pretraining_goes_on_from_is_said_and_what_does_not_fit(recipe, tmp_path):
    file = keras_file(tmp_path / "own.keras", (32, 32, 3), ["stem", "conv1"])
    source = recipe(f'file = "{file}"')
    text = source.read_text().replace('"probe"', '"pretrain"').replace("[backbone]", "[pretrained]")
    source.write_text(text.replace('[[probe]]\nhead = "linear"', "[train]\nsteps = 2"))
    assert dry_run(source) == "data.size = 32" == dry_run(source, "data.channels=3")
    printed = " ".join(invoke("run", source, "--dry-run").stdout.split())
    assert f"goes on from the weights of {file}, with a new head; pixels are not scaled" in printed
    printed = " ".join(invoke("run", source, "pretrained.run=airbench4_photos", "--dry-run").stdout.split())
    assert "goes on from the weights of airbench4_photos, with a new head; pixels are scaled by the model's" in printed
    assert "hence data.size = 72, augment.crop = 64" in printed
    said = dry_run(source, "pretrained.frozen=conv9", "pretrained.statistics=images", "data.channels=1")
    assert "pretrained.frozen: it has no layer conv9; its layers end in input, stem, conv1" in said
    assert "pretrained.statistics: it has no layer 'normalization' to take those of the images" in said
    assert "set data.channels = 3, or leave it out (it is 1)" in said
    assert "has no layer conv2;" in dry_run(source, 'probe=[{head="linear", tap="conv2"}]')
    assert "no file" in dry_run(source, f"pretrained.file={tmp_path}/none.keras")


@pytest.mark.long
def test_the_default_tap_is_chosen_once_and_stands_in_the_card(tmp_path):
    for name, model in list_pretrained().items():
        found = read_backbone(model.backbone)
        assert default_tap(model.backbone, found.layers) == load_card(model)["default_tap"], name
    layers = ["input", "conv1", "conv2", "conv3"]
    assert choose_tap(layers, []) == "conv2" and choose_tap(["input", "dense"], []) == "dense"
    run = fake_run(tmp_path, "run", outcome="finished")
    newest = run.events()[-2] | {
        "tap": "conv3",
        "weights": "rotnet",
        "validation_top1": 0.9,
        "confusion": np.eye(10, dtype=int).tolist(),
    }
    # A baseline that is better does not choose the layer.
    baseline = newest | {"tap": "conv1", "weights": "random", "validation_top1": 0.95}
    with run.events_file.open("a") as file:
        file.write("".join(json.dumps(event) + "\n" for event in (newest, baseline)))
    run.export.mkdir(exist_ok=True)
    keras_file(run.backbone, (16, 16, 3))
    # Of a run of an earlier version, whose `run.json` does not say it.
    assert default_tap(run.backbone, layers) == "conv3"
    facts = run.facts()
    data = {"name": "data", "classes": list("abcdefghij")}
    run.facts_file.write_text(json.dumps(facts | {"default_tap": "conv1", "data": data}))
    assert default_tap(run.backbone, layers) == "conv1"
    # Another file's is the middle one.
    assert default_tap(keras_file(tmp_path / "lone.keras", (16, 16, 3)), layers) == "conv2"
    assert invoke("report", run.path).returncode == 0
    assert 'backbone.get_layer("conv1")' in (run.path / "report.md").read_text()
