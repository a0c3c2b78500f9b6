"""Transfer to PASCAL VOC's tasks."""

import json

import numpy as np
import pytest
from command_line import run_cli, run_python
from voc_kit import COLOURS, make_kit
from whole_runs import events_of, start

from rotnet_keras.backbones import backbone, for_images, freeze
from rotnet_keras.engine import keras
from rotnet_keras.errors import DataError
from rotnet_keras.multi_label import DIFFICULT, BestIsThere, sigmoid_loss

CLASSIFICATION = """\
kind = "transfer"
task = "classification"
title = "tiny transfer"
views = 3

[data]
name = "{kit}"
classes = {classes}
size = 40
splits = {{ train = "train+val", test = "train+val" }}

[augment]
crop = 32

[backbone]
name = "compact"
blocks = 2
width = 0.5

[optimizer]
learning_rate = 0.05
clip = 10.0

[train]
steps = 60
batch = 10
precision = "float32"
"""


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    return make_kit(tmp_path_factory.mktemp("kit"), 20)


def test_classification_learns_twenty_pictures_by_heart_and_its_export_tells_them(kit, tmp_path):
    recipe = tmp_path / "classification.toml"
    recipe.write_text(CLASSIFICATION.format(kit=kit, classes=list(COLOURS)))
    result, run = start(recipe)
    assert result.returncode == 0, run.log.read_text()
    (test,) = events_of(run, "test")
    assert test["score"] > 0.9 and test["score_one_crop"] > 0.9 and test["score_area"] > 0.9
    assert test["score"] == pytest.approx(np.mean(test["per_class"]))
    report = (run.path / "report.md").read_text()
    assert "**Mean average precision, %**" in report
    found = json.loads(run_cli("status", run.path, "--json").stdout)
    assert found["object_accuracy"] == test["score"] and found["rotation_accuracy"] is None
    code = """
import sys, keras, numpy as np
from PIL import Image
model = keras.models.load_model(sys.argv[1])
image = np.asarray(Image.new("RGB", (32, 32), (220, 30, 30)), np.float32)
print(*model.predict(image[None], verbose=0)[0])
assert not any("rotnet" in name for name in sys.modules)
"""
    bus, *others = map(float, run_python(code, run.export / "classifier.keras").split())
    assert bus > 0.8 > max(others) >= 0


def test_a_broken_annotation_is_told_before_anything_is_trained(kit, tmp_path):
    broken = make_kit(tmp_path / "broken", 8)
    (broken / "Annotations" / "000003.xml").write_text("")
    recipe = tmp_path / "classification.toml"
    recipe.write_text(CLASSIFICATION.format(kit=broken, classes=list(COLOURS)))
    result, run = start(recipe, "train.steps=2")
    assert result.returncode == 3
    assert "000003: its annotation is empty" in result.stdout
    result, run = start(recipe, "train.steps=2", "data.broken=skip", name="again")
    assert result.returncode == 0
    assert run.facts()["data"]["train"] == 7
    assert any("000003" in event["message"] for event in events_of(run, "warning"))


def test_a_task_that_is_none_is_refused(tmp_path):
    recipe = tmp_path / "classification.toml"
    recipe.write_text(CLASSIFICATION.replace('"classification"', '"classificaton"').format(kit=".", classes=["a"]))
    result = run_cli("run", recipe, cwd=tmp_path)
    assert result.returncode == 2
    assert "task: expected one of 'classification'" in result.stderr and "did you mean" in result.stderr


def test_difficult_classes_cost_nothing_and_are_never_wrong():
    labels, logits = np.array([[1, 0, DIFFICULT]]), np.array([[0.0, 0.0, 9.0]], np.float32)
    assert np.asarray(sigmoid_loss(labels, logits)) == pytest.approx(2 * np.log(2))
    best = BestIsThere()
    best.update_state(labels, logits)
    best.update_state(np.array([[0, 1, 0]]), np.array([[3.0, 2.0, 1.0]], np.float32))
    assert float(best.result()) == 0.5


def test_what_is_frozen_keeps_its_weights_and_statistics():
    model = backbone("compact", (16, 16, 3), blocks=2, width=0.25)
    freeze(model, "conv1")
    of_first = [layer for layer in model.layers if layer.name.startswith("block1")]
    variables = [v for layer in of_first for v in layer.variables]
    before = [v.numpy() for v in variables]
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(model.output))
    trained = keras.Model(model.input, outputs)
    trained.compile("sgd", "mse")
    last = model.trainable_variables[0].numpy()
    trained.fit(np.random.default_rng(0).random((8, 16, 16, 3)) * 255, np.ones((8, 2)), verbose=0)
    assert all((v.numpy() == b).all() for v, b in zip(variables, before, strict=True))
    assert (last != model.trainable_variables[0].numpy()).any()
    with pytest.raises(DataError, match="no layer called conv9"):
        freeze(model, "conv9")


def test_a_convolutional_backbone_takes_images_of_another_size():
    model = backbone("compact", (16, 16, 3), blocks=2, width=0.25)
    larger = for_images(model, (24, 32, 3))
    pixels = np.random.default_rng(0).random((1, 16, 16, 3)) * 255
    assert larger.output.shape[1:3] == (12, 16)
    assert for_images(larger, (16, 16, 3)).predict(pixels, verbose=0) == pytest.approx(model.predict(pixels, verbose=0))
    with pytest.raises(DataError, match="cannot take others"):
        for_images(backbone("alexnet", (63, 63, 3), width=0.1), (95, 95, 3))
