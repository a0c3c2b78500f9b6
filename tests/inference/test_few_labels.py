"""Whether pretraining helped, measured with a handful of labels."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support.tiny import upright_images

from rotnet_keras.cli.main import app
from rotnet_keras.errors import DataError
from rotnet_keras.inference.few_labels import compare_features, read_labels


@pytest.fixture
def labelled(tmp_path):
    """Forty images of four brightnesses and a CSV file of their labels."""
    images, labels = upright_images(40, seed=6)
    rows = ["file,label"]
    for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,class {label}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return tmp_path


def probe(*arguments):
    return CliRunner().invoke(app, ["probe", *map(str, arguments)])


def test_features_that_separate_the_classes_are_better_than_those_that_do_not():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], 20)
    separating = np.eye(3)[np.unique(labels, return_inverse=True)[1]] + 0.1 * rng.normal(size=(60, 3))
    found = compare_features({"pretrained": separating, "random": rng.normal(size=(60, 3))}, labels.tolist(), seed=0)
    assert found.accuracies["pretrained"].mean == 1 and found.accuracies["random"].mean < 0.6
    gain = found.gain["random"]
    assert gain.mean == pytest.approx(1 - found.accuracies["random"].mean) and 0 < gain.low < gain.mean < gain.high
    assert found.chance == pytest.approx(1 / 3)
    nothing = compare_features({"pretrained": separating, "random": separating}, labels.tolist(), seed=0).gain["random"]
    assert (nothing.low, nothing.mean, nothing.high) == (0, 0, 0)


def test_a_run_is_compared_with_its_baselines(finished, labelled):
    result = probe(finished[1].path, "--labels", labelled / "labels.csv", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["pictures"] == 40 and found["tap"] == "conv1" and set(found["gain"]) == {"random", "pixels"}
    assert all(a["low"] <= a["mean"] <= a["high"] for a in found["accuracies"].values())
    assert found["accuracies"]["pretrained"]["mean"] > found["chance"]
    (labelled / "7.png").write_text("no picture")
    told = probe(finished[1].backbone, "--labels", labelled / "labels.csv", "--tap", "conv2").output
    assert "Linear classifiers on conv2, cross-validated on 39 images of 4 classes" in told and "7.png (" in told
    assert "over random weights" in told


def test_a_folder_for_each_class_gives_labels_too(labelled):
    for number in range(6):
        path = labelled / "classes" / ("cats" if number % 2 else "dogs") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((labelled / f"{number}.png").read_bytes())
    assert sorted(label for _, label in read_labels(labelled / "classes")) == ["cats"] * 3 + ["dogs"] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,class\n0.png,a", "expected a first line with the column names file,label"),
        ("file,label\n0.png,a\nnothing.png,b", "line 3: no file"),
        ("file,label\n0.png,a\n1.png,", "line 3: no label"),
        ("file,label\n0.png,a\n1.png,a", "two classes or more, got 1"),
        ("file,label\n0.png,a\n1.png,a\n2.png,b", "two images or more of each class; too few of b"),
    ],
)
def test_label_lists_that_cannot_be_used_are_refused(labelled, text, message):
    (labelled / "wrong.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_labels(labelled / "wrong.csv")
