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


def labels_of(source, notes=None):
    pairs = read_labels(source, (notes if notes is not None else []).append)
    return {path.resolve().name: label for path, label in pairs}


@pytest.mark.parametrize(
    "content",
    [
        "file,label\n0.png,a\n1.png,a\n2.png,b\n3.png,b\n",
        " Label ; File \r\n a ; 0.png \r\na;1.png\r\n\r\nb;./2.png\r\n b;3.png",
        "file\tlabel\tnote\n0.png\ta\t\n1.png\ta\tx\n2.png\tb\t\n3.png\tb\t\n",
        'file|label\n"0.png"|a\n.\\1.png|a\n{folder}/2.png|b\n3.png|b\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_other_makers_give_the_same_labels(labelled, content, encoding):
    (labelled / "list.csv").write_bytes(content.replace("{folder}", str(labelled)).encode(encoding))
    assert labels_of(labelled / "list.csv") == {"0.png": "a", "1.png": "a", "2.png": "b", "3.png": "b"}


def test_a_class_is_one_with_spaces_and_in_two_unicode_forms(labelled):
    lines = ["file,label", "0.png,caf\u00e9", "1.png, cafe\u0301 ", "2.png,Tea", "3.png,Tea", "4.png,tea", "5.png,tea"]
    (labelled / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    notes = []
    assert list(labels_of(labelled / "list.csv", notes).values()) == ["café"] * 2 + ["Tea"] * 2 + ["tea"] * 2
    assert len(notes) == 1 and "'Tea' in line 4 and 'tea' in line 6 count as two classes" in notes[0]


def test_a_file_that_is_listed_twice_counts_once_or_contradicts(labelled):
    rows = "file,label\n0.png,a\n1.png,a\n2.png,b\n3.png,b\n"
    (labelled / "link.png").symlink_to("0.png")
    notes = []
    (labelled / "list.csv").write_text(f"{rows}./0.png,a\nlink.png,a\n")
    assert len(labels_of(labelled / "list.csv", notes)) == 4 and "2 lines name a file" in notes[0]
    (labelled / "list.csv").write_text(f"{rows}\n./0.png,b\n")
    with pytest.raises(DataError, match=r"line 2 labels ./0\.png 'a' and line 7 'b'"):
        read_labels(labelled / "list.csv")


def test_a_file_that_a_folder_has_twice_counts_once_or_contradicts(labelled):
    for number in range(4):
        path = labelled / "classes" / ("cats" if number < 2 else "dogs") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((labelled / f"{number}.png").read_bytes())
    (labelled / "classes" / "cats" / "link.png").symlink_to("1.png")
    notes = []
    pairs = read_labels(labelled / "classes", notes.append)
    assert [path.name for path, _ in pairs] == ["0.png", "1.png", "2.png", "3.png"]
    assert len(notes) == 1 and "1 of 5 paths lead to files of the same class; each counts once" in notes[0]
    (labelled / "classes" / "dogs" / "link.png").symlink_to("../cats/1.png")
    with pytest.raises(
        DataError, match=r"cats/1\.png and dogs/link\.png are one file, of the classes 'cats' and 'dogs'"
    ):
        read_labels(labelled / "classes")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file,label\n0.png,a\n1.png,caf\xe9", "line 3: this is no UTF-8 text: save the list as CSV in UTF-8"),
        (b"file,label\n0.png,a,b", "line 2: expected 2 cells, as in the first line, separated by ','; found 3"),
        (b"file;class\n0.png;a", "found file, class"),
        (b"", "expected a first line"),
    ],
)
def test_lists_that_cannot_be_read_say_why(labelled, content, message):
    (labelled / "list.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_labels(labelled / "list.csv")
