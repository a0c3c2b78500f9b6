"""Classifiers trained from labels: from scratch, and on a pretrained backbone."""

import json

import numpy as np
import pytest
from PIL import Image
from support.command_line import invoke
from support.tiny import upright_images
from support.whole_runs import events_of, run_of, start

from rotnet_keras.config.probes import Labels
from rotnet_keras.config.sections import Data
from rotnet_keras.data.datasets import labelled_subset, load
from rotnet_keras.errors import DataError

RECIPE = """\
kind = "classify"
title = "tiny classifier"
seed = 3

[data]
name = "{data}"
validation = 0.2

[augment]
pad = 2
flip = true

[optimizer]
learning_rate = 0.05

[train]
steps = 12
batch = 16
log_every = 4
"""
FROM_SCRATCH = '[backbone]\nname = "compact"\nblocks = 2\nwidth = 0.25\n'


@pytest.fixture
def recipe(tmp_path, tiny_data):
    path = tmp_path / "classifier.toml"
    path.write_text(RECIPE.format(data=tiny_data))
    return path


def weights_of(path):
    """{name of the variable: value} of the layers that a backbone has too."""
    from rotnet_keras.engine import keras

    model = keras.models.load_model(path)
    layers = [inner for layer in model.layers for inner in getattr(layer, "layers", [layer])]
    return {f"{layer.name}/{v.name}": np.asarray(v) for layer in layers for v in layer.variables}


@pytest.mark.slow
def test_semi_supervised_training_from_scratch_learns_reports_and_exports(recipe):
    recipe.write_text(recipe.read_text() + FROM_SCRATCH + "[auxiliary]\nbatch = 16\n")
    labels = ("head.labels_per_class=20", "head.label_choice=first")
    result, run = start(recipe, "train.steps=60", "train.batch=32", *labels)
    assert result.returncode == 0, run.log.read_text()
    facts = run.facts()
    # Few labels are drawn as often as all would be.
    assert (facts["labels"], facts["inputs_per_step"], facts["steps_per_epoch"]) == (80, 192, 5)
    (test,) = events_of(run, "test")
    confusion = np.array(test["confusion"])
    assert confusion.shape == (4, 4) and confusion.sum() == 40
    assert test["accuracy"] == pytest.approx(np.trace(confusion) / 40) and test["accuracy"] > 0.5
    assert len(events_of(run, "epoch")) == 12
    report = (run.path / "report.md").read_text()
    assert "**Accuracy, %**" in report and "![Curves](figures/curves.png)" in report
    found = json.loads(invoke("status", run.path, "--json").stdout)
    assert found["object_accuracy"] == test["accuracy"] and found["rotation_accuracy"] is None
    from rotnet_keras.engine import keras

    model = keras.models.load_model(run.export / "classifier.keras")
    assert model.input.shape[1:] == (16, 16, 3) and model.output.shape[1:] == (4,)
    assert keras.models.load_model(run.backbone).layers[-1].name == "conv2"


@pytest.mark.long
def test_images_without_a_label_are_left_out_of_fine_tuning(finished, recipe, tiny_data):
    with np.load(tiny_data) as arrays:
        values = {name: arrays[name].astype(int) if name[0] == "y" else arrays[name] for name in arrays.files}
    values["y_train"][::2] = values["y_test"][10:] = -1
    np.savez(recipe.parent / "some.npz", **values)
    text = recipe.read_text().replace("steps = 12", "steps = 4")
    recipe.write_text(text + f'[pretrained]\nrun = "{finished[1].path}"\n')
    result, run = start(recipe, f"data.name={recipe.parent}/some.npz")
    assert result.returncode == 0, run.log.read_text()
    # 40 of the 200 are held out for validation, with and without a label.
    validation = events_of(run, "epoch")[-1]["validation"]["confusion"]
    assert run.facts()["labels"] + np.sum(validation) == 100
    (test,) = events_of(run, "test")
    assert np.sum(test["confusion"]) == 10
    said = " ".join(event["message"] for event in events_of(run, "warning"))
    assert "30 of 40 test images have the label -1" in said and "train images have the label -1" in said


@pytest.mark.long
def test_fine_tuning_changes_all_backbone_layers_and_a_probe_none(finished, recipe):
    _, pretraining = finished
    head = f'[pretrained]\nrun = "{pretraining.path}"\nlearning_rate = 1e-5\n[head]\nname = "mlp"\ntap = "conv1"\n'
    recipe.write_text(recipe.read_text() + head + "[auxiliary]\n")
    # In float16 the optimizer is inside another one, and has to get the rate all the same.
    result, run = start(recipe, "train.precision=mixed_float16", "auxiliary.batch=0")
    assert result.returncode == 0, run.log.read_text()
    before, after = weights_of(pretraining.backbone), weights_of(run.backbone)
    assert {name.split("_")[0] for name in after} == {"block1"} and after.keys() < before.keys()
    assert any("moving_mean" in name for name in after)
    assert all((before[name] != after[name]).any() for name in after)
    # But by the little that the trunk's own rate allows; batch normalisation is in training mode all the same.
    moved = {name: np.abs(before[name] - after[name]).max() for name in after}
    assert max(moved[name] for name in after if "moving" not in name) < 1e-3 < moved["block1_bn1/moving_mean"]
    frozen = weights_of(pretraining.export / "classifier.keras")
    shared = frozen.keys() & before.keys()
    assert any("moving_mean" in name for name in shared)
    assert all((before[name] == frozen[name]).all() for name in shared)
    # Its images alone are rotated; both heads are exported, and tell what is unusual.
    assert run.facts()["inputs_per_step"] == 64
    (recipe.parent / "images").mkdir()
    for number, pixels in enumerate(upright_images(3, seed=7)[0]):
        Image.fromarray(pixels).save(recipe.parent / "images" / f"{number}.png")
    scores = {}
    for score in ("rotations", "classes", "both"):
        result = invoke("anomalies", run.path, recipe.parent / "images", "--score", score, "--json")
        scores[score] = {each["file"]: each["score"] for each in json.loads(result.stdout)["pictures"]}
    assert len(scores["both"]) == 3 and all(0 <= score < 1 for score in scores["classes"].values())
    assert all(scores["both"][file] < score for file, score in scores["rotations"].items())
    by_default = json.loads(invoke("anomalies", run.path, recipe.parent / "images", "--json").stdout)["pictures"]
    assert {each["file"]: each["score"] for each in by_default} == scores["both"]
    refused = invoke("anomalies", pretraining.path, recipe.parent / "images", "--score", "both")
    assert refused.returncode != 0 and "learned no classes" in refused.stderr


@pytest.mark.long
def test_classes_and_rotations_are_learned_jointly_and_the_export_averages_the_copies(finished, recipe, tiny_data):
    from rotnet_keras.engine import keras

    recipe.write_text(recipe.read_text() + f'[pretrained]\nrun = "{finished[1].path}"\n[joint]\n')
    result, run = start(recipe, "train.steps=30")
    assert result.returncode == 0, run.log.read_text()
    assert run.facts()["inputs_per_step"] == 64
    model = keras.models.load_model(run.export / "classifier.keras")
    with np.load(tiny_data) as arrays:
        images, labels = arrays["x_test"], arrays["y_test"]
    probabilities = np.asarray(model(images))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    (test,) = events_of(run, "test")
    assert np.sum(test["confusion"]) == len(images) == 40
    accuracy = (probabilities.argmax(axis=1) == labels.ravel()).mean()
    assert accuracy == pytest.approx(test["accuracy"]) and accuracy > 0.5


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected one of [backbone], to train from scratch, and [pretrained]"),
        (FROM_SCRATCH + '[pretrained]\nrun = "x"\n', "expected one of [backbone]"),
        (FROM_SCRATCH + '[head]\ntap = "conv3"\n', "no tap 'conv3' in compact: expected conv1, conv2"),
        (FROM_SCRATCH + '[head]\nname = "mpl"\n', "did you mean 'mlp'?"),
        (FROM_SCRATCH + "[auxiliary]\n[joint]\n", "expected at most one of [auxiliary], a second task, and [joint]"),
        (FROM_SCRATCH + "[joint]\nangles = [90, 180]\n", "expected 0 and other distinct multiples of 90"),
    ],
)
def test_mistakes_are_reported_before_a_run_folder_is_made(recipe, text, complaint):
    recipe.write_text(recipe.read_text() + text)
    result, run = start(recipe)
    assert result.returncode == 2 and complaint in result.stderr
    assert not run.path.exists()


def test_a_missing_pretrained_backbone_is_reported(recipe):
    recipe.write_text(recipe.read_text() + '[pretrained]\nrun = "nobody"\n')
    result, _ = start(recipe)
    assert result.returncode != 0 and "no run called 'nobody'" in result.stderr
    assert not run_of(recipe.parent, "run").path.exists()


def test_few_labels_are_the_first_of_each_class_or_drawn_at_random(tiny_data):
    dataset = load(Data(name=str(tiny_data), validation=0.2))
    labels = dataset.train.required_labels()

    def chosen(choice, seed=0):
        return labelled_subset(dataset, Labels(labels_per_class=6, label_choice=choice), (3, seed))

    for positions in (chosen("first"), chosen("random")):
        assert np.bincount(labels[positions]).tolist() == [6] * 4
        assert (np.diff(positions) > 0).all()
    expected = np.sort(np.concatenate([np.flatnonzero(labels == k)[:6] for k in range(4)]))
    assert (chosen("first") == expected).all() and (chosen("first", 1) == expected).all()
    assert (chosen("random") == chosen("random")).all()
    assert (chosen("random") != chosen("random", 1)).any()


def test_images_without_a_label_are_not_among_the_labelled(tmp_path):
    images, labels = np.zeros((12, 8, 8, 3), np.uint8), np.array([0, 1, -1] * 4)
    np.savez(tmp_path / "some.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    dataset = load(Data(name=str(tmp_path / "some.npz"), validation=0.0))
    assert labelled_subset(dataset, Labels(), (3, 0)).tolist() == [0, 1, 3, 4, 6, 7, 9, 10]


def test_a_class_without_images_is_reported_and_left_out(tmp_path):
    images, labels = np.zeros((40, 8, 8, 3), np.uint8), np.arange(40) % 4 * 2
    np.savez(tmp_path / "gaps.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    dataset = load(Data(name=str(tmp_path / "gaps.npz"), validation=0.0))
    assert "3 of 7 classes have no training images" in dataset.notes
    found = labelled_subset(dataset, Labels(labels_per_class=3), (0, 0))
    assert np.bincount(dataset.train.required_labels()[found]).tolist() == [3, 0, 3, 0, 3, 0, 3]
    with pytest.raises(DataError, match="expected 11 training images of class '0', found 10"):
        labelled_subset(dataset, Labels(labels_per_class=11), (0, 0))
