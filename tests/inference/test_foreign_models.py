"""Backbones that others have built: sequential ones, and ones that take images of any size."""

import json

import numpy as np
import pytest
from PIL import Image
from support.command_line import invoke
from support.whole_runs import events_of, start

from rotnet_keras.files import digest
from rotnet_keras.inference.embeddings import load_features
from rotnet_keras.models.export import load_backbone
from rotnet_keras.runs.exports.classifier_card import ClassifierCard, write_card

PROBE = """\
kind = "probe"
title = "foreign"
[data]
name = "{data}"
validation = 0.2
size = 20
[backbone]
file = "{file}"
[[probe]]
head = "linear"
tap = "top"
steps = 2
baselines = ["random"]
"""
FINETUNE = """\
kind = "classify"
title = "foreign"
[data]
name = "{data}"
validation = 0.2
size = 20
[pretrained]
file = "{file}"
[optimizer]
learning_rate = 1e-6
[train]
steps = 2
batch = 4
"""


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / "pictures" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(path)
    return tmp_path / "pictures"


def saved(path, kind):
    """A small model of this kind; (the file, the model)."""
    from rotnet_keras.engine import keras

    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(5, 3, strides=2, name="top")]
    if kind == "sequential":
        model = keras.Sequential([keras.Input((20, 20, 3)), *layers])
    elif kind == "sequential without an input":
        model = keras.Sequential(layers)
        model(np.zeros((1, 20, 20, 3), np.float32))
    else:
        inputs = keras.Input((None, None, 3))
        # As MobileNetV2: pixels as they are.
        model = keras.Model(inputs, layers[1](inputs))
    model.save(path)
    return path, model


@pytest.mark.parametrize("kind", ["sequential", "sequential without an input", "any size"])
def test_features_of_foreign_models_are_their_own(tmp_path, pictures, kind):
    file, model = saved(tmp_path / "own.keras", kind)
    to, size = tmp_path / "features.npz", ["--size", 20] if kind == "any size" else []
    result = invoke("embed", file, pictures, "--to", to, *size)
    assert result.returncode == 0, result.stderr
    found = load_features(to)
    pixels = np.stack([np.asarray(Image.open(name), np.float32) for name in found.files])
    np.testing.assert_allclose(found.values, np.asarray(model(pixels)).mean((1, 2)), rtol=1e-4, atol=1e-4)
    assert found.tap == "top" and found.side == (20 if size else None)
    assert ("no Rescaling or Normalization layer: it gets pixels from 0 to 255" in result.stderr) == bool(size)
    # A new image is shown to the model as the others were.
    new = tmp_path / "new.png"
    new.write_bytes((pictures / "0" / "0.png").read_bytes())
    (matches,) = json.loads(invoke("alike", to, new, "--top", 1, "--json").stdout)
    assert matches["alike"][0]["similarity"] == pytest.approx(1, abs=1e-4)
    assert load_backbone(file).input.shape[1:] == ((None, None, 3) if size else (20, 20, 3))


def test_the_size_of_images_is_said_where_the_model_leaves_it_open(tmp_path, pictures):
    file, _ = saved(tmp_path / "any.keras", "any size")
    result = invoke("embed", file, pictures, "--to", tmp_path / "features.parquet")
    assert "any.keras takes images of any size: they are resized to 224 pixels; --size sets another" in result.stderr
    assert result.returncode == 0 and load_features(tmp_path / "features.parquet").side == 224
    file, _ = saved(tmp_path / "fixed.keras", "sequential")
    result = invoke("embed", file, pictures, "--to", tmp_path / "features.npz", "--size", 30)
    assert result.returncode == 3 and "takes images of 20 x 20 x 3: leave --size out, got 30" in result.stderr


@pytest.mark.long
def test_a_model_of_any_size_is_probed(tmp_path, pictures):
    file, _ = saved(tmp_path / "any.keras", "any size")
    recipe = tmp_path / "probe.toml"
    recipe.write_text(PROBE.format(data=pictures, file=file))
    result, run = start(recipe)
    assert result.returncode == 0, result.stdout + result.stderr
    assert [(e["weights"], e["tap"]) for e in events_of(run, "probe")] == [("rotnet", "top"), ("random", "top")]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sequential", "any size"])
def test_foreign_models_are_fine_tuned_to_classifiers(tmp_path, pictures, kind):
    file, model = saved(tmp_path / "own.keras", kind)
    recipe = tmp_path / "finetune.toml"
    recipe.write_text(FINETUNE.format(data=pictures, file=file))
    result, run = start(recipe)
    assert result.returncode == 0, result.stdout + result.stderr
    classifier = load_backbone(run.export / "classifier.keras")
    assert classifier.input.shape[1:] == (20, 20, 3) and classifier.output.shape[1:] == (2,)
    pixels = np.full((1, 20, 20, 3), 90, np.float32)
    assert np.asarray(classifier(pixels)).sum() == pytest.approx(1, abs=1e-5)
    # It began as the model of the file and was trained from there.
    before, after = (each.get_layer("top").kernel for each in (model, load_backbone(run.backbone)))
    assert 0 < np.abs(np.asarray(before) - np.asarray(after)).max() < 0.1


def test_classes_are_predicted_by_a_model_of_any_size(tmp_path, pictures):
    from rotnet_keras.engine import keras

    layers = keras.layers
    inputs = keras.Input((None, None, 3))
    edges = layers.Conv2D(4, 3, strides=2, name="edges")
    mean = layers.GlobalAveragePooling2D()(layers.ReLU()(edges(layers.Rescaling(1 / 255)(inputs))))
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(mean))
    model.save(tmp_path / "own.keras")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    to = tmp_path / "out.jsonl"
    arguments = ["predict", tmp_path / "own.keras", pictures, "--classes", tmp_path / "classes.txt", "--to", to]
    for size, said in ((20, False), (None, True)):
        result = invoke(*arguments, "--top", 2, *(["--size", size] if size else []))
        assert result.returncode == 0, result.stderr
        assert (
            "takes images of any size: they are resized to 224 pixels; --size sets another" in result.stderr
        ) == said
        rows = [json.loads(line) for line in to.read_text().splitlines()]
        images = [Image.open(row["file"]).resize((size or 224,) * 2, Image.Resampling.BILINEAR) for row in rows]
        expected = np.asarray(model(np.stack([np.asarray(image, np.float32) for image in images])))
        found = [[row[f"probability_{1 + (row['class_1'] != name)}"] for name in "ab"] for row in rows]
        np.testing.assert_allclose(found, expected, atol=1e-4)
    # What a stopped command left for one size is not mixed with another.
    to.with_name("out.jsonl.partial").write_text(
        json.dumps({"command": "predict", "model": digest(tmp_path / "own.keras"), "top": 2, "unusual": False})[:-1]
        + ', "size": 32}\n'
    )
    result = invoke(*arguments, "--top", 2, "--size", 20)
    assert result.returncode == 2 and "size 32 instead of 20" in result.stderr


def test_a_classifier_of_one_size_takes_no_other(tmp_path, pictures):
    file, _ = saved(tmp_path / "own.keras", "sequential")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    arguments = ["predict", file, pictures, "--to", tmp_path / "out.csv", "--size", 24]
    result = invoke(*arguments, "--classes", tmp_path / "classes.txt")
    assert result.returncode == 3 and "takes images of 20 x 20 x 3: leave --size out, got 24" in result.stderr
    write_card(file, ClassifierCard(["a", "b"], None, "why", 0, 24, 20))
    result = invoke(*arguments)
    assert result.returncode == 3 and "20 x 20 pixels as its card says: leave --size out, got 24" in result.stderr
