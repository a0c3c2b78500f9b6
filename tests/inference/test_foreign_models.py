"""Backbones that others have built: sequential ones, and ones that take images of any size."""

import json

import numpy as np
import pytest
from PIL import Image
from support.command_line import invoke
from support.whole_runs import events_of, start

from rotnet_keras.inference.embeddings import load_features
from rotnet_keras.models.export import load_backbone

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


def test_a_model_of_any_size_is_probed(tmp_path, pictures):
    file, _ = saved(tmp_path / "any.keras", "any size")
    recipe = tmp_path / "probe.toml"
    recipe.write_text(PROBE.format(data=pictures, file=file))
    result, run = start(recipe)
    assert result.returncode == 0, result.stdout + result.stderr
    assert [(e["weights"], e["tap"]) for e in events_of(run, "probe")] == [("rotnet", "top"), ("random", "top")]
