"""Pretraining that goes on from the weights of a pretrained model."""

import json
import shutil

import numpy as np
import pytest
from support.command_line import invoke, run_cli
from support.whole_runs import assert_same_end, events_of, start

from rotnet_keras import engine
from rotnet_keras.config.loading import load_recipe
from rotnet_keras.data.datasets import load
from rotnet_keras.errors import DataError
from rotnet_keras.models.export import load_backbone, save_model
from rotnet_keras.runs.zoo import find_pretrained
from rotnet_keras.tasks.pretrain import build_rotnet, initial_backbone


@pytest.fixture
def built(tiny_recipe):
    """A function that builds the model of a recipe that goes on from the pretrained model for small images."""

    def build(precision="float32", **start):
        file = str(find_pretrained("compact4_cifar10").backbone)
        overrides = {"pretrained": {"file": file, **start}, "rotation.hidden": []}
        recipe = load_recipe(tiny_recipe, overrides)
        dataset = load(recipe.data)
        with engine.dtype_policy(precision):
            return build_rotnet(recipe, dataset), load_backbone(find_pretrained("compact4_cifar10").backbone), dataset

    return build


def weights_by_name(model):
    return {f"{layer.name}/{v.name}": np.asarray(v) for layer in model.layers for v in layer.variables}


def assert_equal_weights(model, other):
    weights, others = weights_by_name(model), weights_by_name(other)
    assert weights.keys() == others.keys() and len(weights) > 30
    assert all(np.array_equal(weights[name], others[name]) for name in weights)


def test_it_begins_with_the_models_weights_at_another_size_and_keeps_its_statistics(built):
    model, source, _ = built()
    assert model.backbone.input.shape[1:] == (16, 16, 3) != source.input.shape[1:]
    assert_equal_weights(model.backbone, source)
    assert model.head.output.shape == (None, 4)
    scale = model.backbone.get_layer("normalization").get_config()
    assert scale["scale"] == source.get_layer("normalization").get_config()["scale"]


def test_the_statistics_of_the_images_take_the_place_of_the_models(built):
    model, source, dataset = built(statistics="images")
    assert_equal_weights(model.backbone, source)
    config = model.backbone.get_layer("normalization").get_config()
    assert np.allclose(config["scale"], 1 / np.array(dataset.std))
    assert np.allclose(config["offset"], -np.array(dataset.mean) / dataset.std)


def test_frozen_layers_are_not_trained_and_the_precision_is_that_of_the_training(built):
    model, _, _ = built("mixed_bfloat16", frozen="conv2")
    trained = {variable.path.split("/")[-2] for variable in model.backbone.trainable_variables}
    assert trained and all(name.startswith(("block3", "block4")) for name in trained)
    assert {layer.compute_dtype for layer in model.backbone.layers if layer.name.startswith("block")} == {"bfloat16"}
    assert model.backbone.get_layer("normalization").compute_dtype == "float32"


def test_models_that_cannot_take_the_images_or_have_no_statistics_are_told(tiny_recipe, tmp_path):
    from rotnet_keras.engine import keras

    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 255, name="scaled")(inputs)
    flat = keras.layers.Dense(4)(keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(x)))
    save_model(keras.Model(inputs, flat), tmp_path / "flat.keras")
    recipe = load_recipe(tiny_recipe, {"pretrained.file": str(tmp_path / "flat.keras")})
    dataset = load(recipe.data)
    with pytest.raises(DataError, match=r"takes images of shape \(32, 32, 3\), these have shape \(16, 16, 3\)"):
        initial_backbone(recipe, dataset, (16, 16, 3))
    recipe = load_recipe(tiny_recipe, {"pretrained": {"file": recipe.pretrained.file, "statistics": "images"}})
    with pytest.raises(DataError, match="has no Rescaling layer 'normalization'"):
        initial_backbone(recipe, dataset, (32, 32, 3))


@pytest.mark.long
def test_a_stopped_run_goes_on_to_the_same_weights_but_not_from_another_file(finished, tiny_recipe):
    _, before = finished
    file = shutil.copy(before.backbone, tiny_recipe.parent / "mine.keras")
    words = (f"pretrained.file={file}", "train.steps=12", "optimizer.learning_rate=0.02")
    result, whole = start(tiny_recipe, *words, 'probe=[{head="linear", steps=3, every=1}]', name="whole")
    assert result.returncode == 0, whole.log.read_text()
    assert "goes on from the weights of" in result.stdout and "the model's own mean" in result.stdout
    first, last = (events_of(whole, "epoch")[i]["validation"]["accuracy"] for i in (0, -1))
    assert min(first, last) > 0.5
    assert {e["step"] for e in events_of(whole, "probe")} == {10, 12}
    known = whole.facts()["model_file"]
    assert known["file"] == str(file) and len(known["digest"]) == 32
    from rotnet_keras.engine import keras

    exported = keras.models.load_model(whole.backbone)
    assert {layer.compute_dtype for layer in exported.layers} == {"float32"}
    old, new = weights_by_name(keras.models.load_model(file)), weights_by_name(exported)
    changed = [np.abs(old[name] - new[name]).max() for name in old if name.endswith("kernel")]
    assert old.keys() == new.keys() and 0 < max(changed) < 0.2

    result, run = start(tiny_recipe, *words, "probe=[]", "train.steps=12", name="run")
    assert result.returncode == 0
    for name in ("events.jsonl", "checkpoints"):  # As if it had been killed after its first checkpoint.
        kept = run.path / name
        if kept.is_dir():
            for checkpoint in kept.iterdir():
                if "00000002" not in checkpoint.name:
                    checkpoint.unlink()
        else:
            lines = kept.read_text().splitlines(keepends=True)
            end = next(i for i, line in enumerate(lines) if '"kind":"checkpoint"' in line)
            kept.write_text("".join(lines[: end + 1]))
    shutil.rmtree(run.export)
    content = before.backbone.read_bytes()
    shutil.copy(before.export / "rotnet.keras", file)
    result = run_cli("resume", "run", cwd=tiny_recipe.parent)
    assert result.returncode == 3 and "has changed since this run began. Put the old file back" in result.stdout
    (tiny_recipe.parent / "mine.keras").write_bytes(content)
    result = run_cli("resume", "run", cwd=tiny_recipe.parent)
    assert result.returncode == 0, result.stdout
    assert_same_end(run, whole)
    assert json.loads(invoke("status", run.path, "--json").stdout)["state"] == "finished"
