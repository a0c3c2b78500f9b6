"""Classes of image files: the command `predict`, its tables, its page, and how it goes on after it was stopped."""

import csv
import json
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image
from support.command_line import invoke
from support.tiny import upright_images

from rotnet_keras.errors import DataError
from rotnet_keras.inference.calibration import at_temperature, fit_class_temperature
from rotnet_keras.inference.partial_results import PartialResults
from rotnet_keras.inference.prediction import known_card, read_class_names
from rotnet_keras.runs.exports.classifier_card import ClassifierCard, read_card, write_card

CLASSES = ["dark", "dim", "light", "bright"]


def brightness_model(path, activation="softmax", outputs=4):
    """A stock Keras model whose outputs depend on the mean of the image: (0.1 k mean) for class k."""
    from rotnet_keras.engine import keras

    inputs = keras.Input((16, 16, 3))
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.AveragePooling2D(16)(inputs))
    mean = keras.layers.Rescaling(1 / 255)(mean)
    dense = keras.layers.Dense(outputs, activation=activation, name="scores")
    model = keras.Model(inputs, dense(mean))
    dense.set_weights([np.tile(np.arange(outputs, dtype=np.float32), (3, 1)), np.zeros(outputs, np.float32)])
    model.save(path)
    return model


@pytest.fixture
def images(tmp_path):
    """Five grey levels as 16 x 16 images, and a file that cannot be read."""
    folder = tmp_path / "images"
    folder.mkdir()
    for level in range(5):
        Image.fromarray(np.full((16, 16, 3), 50 * level, np.uint8)).save(folder / f"{level}.png")
    (folder / "text.png").write_text("no image")
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    return folder


def expected(level):
    scores = np.arange(4) * 3 * 50 * level / 255
    return np.exp(scores) / np.exp(scores).sum()


def predict(tmp_path, *arguments, to="out.csv", model="model.keras"):
    given = ["predict", tmp_path / model, tmp_path / "images", "--to", tmp_path / to, *arguments]
    return invoke(*given, cwd=tmp_path)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_probabilities_are_those_of_the_model_in_every_format(tmp_path, images, suffix):
    brightness_model(tmp_path / "model.keras")
    result = predict(tmp_path, "--classes", "classes.txt", "--top", 2, "--min-confidence", 0.5, to=f"out.{suffix}")
    assert result.returncode == 0, result.stderr
    if suffix == "csv":
        with (tmp_path / "out.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    elif suffix == "jsonl":
        rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    else:
        from pyarrow import parquet

        rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert list(rows[0]) == ["file", "label", "class_1", "probability_1", "class_2", "probability_2", "error"]
    by_file = {row["file"].rsplit("/", 1)[-1]: row for row in rows}
    assert len(by_file) == 6 and len(rows) == 6
    for level in range(1, 5):
        row, values = by_file[f"{level}.png"], expected(level)
        assert (row["class_1"], row["class_2"]) == ("bright", "light")
        assert float(row["probability_1"]) == pytest.approx(values[3], abs=1e-5)
        assert float(row["probability_2"]) == pytest.approx(values[2], abs=1e-5)
        assert (row["label"] or None) == ("bright" if values[3] >= 0.5 else None)
    assert not by_file["0.png"]["label"] and not by_file["text.png"]["class_1"]
    assert by_file["text.png"]["error"].startswith("it is not an image, or damaged")
    assert "Unreadable: 1 files: " in result.stdout and "text.png" in result.stdout
    assert "not calibrated: there is no card beside it" in result.stdout
    assert not (tmp_path / f"out.{suffix}.partial").exists()


def test_predictions_are_averaged_over_mirror_images(tmp_path, images):
    from rotnet_keras.engine import keras
    from rotnet_keras.inference.prediction import load_classifier

    inputs = keras.Input((None, None, 3))
    left = keras.layers.Cropping2D(((0, 0), (0, 15)))(inputs)
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(left))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="scores")(mean))
    model.save(tmp_path / "model.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3))
    said = []
    plain, both = (
        load_classifier(tmp_path / "model.keras", ["a", "b"], said.append, 16, average)
        for average in ("none", "mirror")
    )
    expected = (plain.probabilities(pixels) + plain.probabilities(pixels[:, :, ::-1])) / 2
    np.testing.assert_allclose(both.probabilities(pixels), expected, atol=1e-6)
    assert np.abs(plain.probabilities(pixels) - expected).max() > 1e-4
    write_card(tmp_path / "model.keras", ClassifierCard(["a", "b"], 2.0, "", 50, 16, 16))
    load_classifier(tmp_path / "model.keras", None, said.append, None, "mirror")
    assert "calibrated without --average" in said[-1]


def test_logits_and_single_sigmoids_become_probabilities(tmp_path, images):
    from rotnet_keras.inference.prediction import load_classifier

    brightness_model(tmp_path / "model.keras", activation=None)
    said = []
    logits = load_classifier(tmp_path / "model.keras", CLASSES, said.append)
    pixels = np.full((1, 16, 16, 3), 150, np.uint8)
    assert logits.probabilities(pixels)[0] == pytest.approx(expected(3), abs=1e-5)
    assert "taken for logits" in said[0]
    brightness_model(tmp_path / "model.keras", activation="sigmoid", outputs=1)
    both = load_classifier(tmp_path / "model.keras", ["no", "yes"]).probabilities(pixels)
    assert both[0] == pytest.approx([0.5, 0.5], abs=1e-5)


def test_a_temperature_calibrates_the_probabilities(tmp_path, images):
    brightness_model(tmp_path / "model.keras")
    write_card(tmp_path / "model.keras", ClassifierCard(CLASSES, 2.0, "", 500, 16, 16))
    result = predict(tmp_path, "--top", 9, to="out.jsonl")
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    values = np.sqrt(expected(4)) / np.sqrt(expected(4)).sum()
    (row,) = [row for row in rows if row["file"].endswith("4.png")]
    assert [row[f"probability_{n}"] for n in (1, 2, 3, 4)] == pytest.approx(values[::-1], abs=1e-5)
    assert "not calibrated" not in result.stdout and "class_5" not in row


def test_temperatures_are_fitted_on_enough_images_only():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3000, 4)) * 2
    truth = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(4, p=row) for row in truth])
    overconfident = at_temperature(truth, 1 / 3)
    assert fit_class_temperature(overconfident, labels) == pytest.approx(3, rel=0.1)
    assert fit_class_temperature(truth, labels) == pytest.approx(1, rel=0.1)
    with pytest.raises(DataError, match="99 images are too few"):
        fit_class_temperature(truth[:99], labels[:99])


def test_a_stopped_command_goes_on_where_it_was(tmp_path, images, monkeypatch):
    from rotnet_keras.inference import loading

    brightness_model(tmp_path / "model.keras")
    monkeypatch.setattr(loading, "BATCH", 2)
    assert predict(tmp_path, "--classes", "classes.txt").returncode == 0
    whole = (tmp_path / "out.csv").read_bytes()
    (tmp_path / "out.csv").unlink()
    read, load = [], loading.ImageLoader.load

    def interrupted(self, file):
        if len(read) == 4:
            raise KeyboardInterrupt
        read.append(file.name)
        return load(self, file)

    monkeypatch.setattr(loading.ImageLoader, "load", interrupted)
    result = predict(tmp_path, "--classes", "classes.txt")
    partial = tmp_path / "out.csv.partial"
    assert result.returncode == 130 and "The same command goes on" in result.stdout
    assert not (tmp_path / "out.csv").exists()
    # The last line was not written to its end.
    lines = partial.read_bytes().splitlines(keepends=True)
    assert len(lines) >= 3
    partial.write_bytes(b"".join(lines[:3]) + b'{"file": "')
    again = predict(tmp_path, "--classes", "classes.txt", "--top", 3)
    assert again.returncode == 2 and "top 1 instead of 3" in again.stderr and partial.exists()
    read.clear()
    monkeypatch.setattr(loading.ImageLoader, "load", lambda self, file: read.append(file.name) or load(self, file))
    again = predict(tmp_path, "--classes", "classes.txt")
    assert again.returncode == 0, again.stderr
    assert "2 of 6 images are done" in again.stdout and sorted(read) == ["2.png", "3.png", "4.png", "text.png"]
    assert (tmp_path / "out.csv").read_bytes() == whole and not partial.exists()


def test_partial_results_know_changed_images_and_other_writers(tmp_path):
    files = [tmp_path / name for name in ("a.png", "b.png")]
    for file in files:
        file.write_bytes(b"x")
    with PartialResults(tmp_path / "out.csv", {"command": "predict", "model": "m"}) as kept:
        assert kept.remaining(files) == files
        kept.add([{"file": str(files[0])}])
        with pytest.raises(Exception, match="another process is writing"):
            PartialResults(tmp_path / "out.csv", {"command": "predict", "model": "m"})
    files[0].write_bytes(b"other")
    with (
        PartialResults(tmp_path / "out.csv", {"command": "predict", "model": "m"}) as kept,
        pytest.raises(DataError, match=r"1 images have changed since .*a\.png"),
    ):
        kept.remaining(files)
    # The same size and the same time of modification: only the time of the change of status tells.
    before = files[0].stat()
    with PartialResults(tmp_path / "in_place.csv", {"command": "predict"}) as kept:
        kept.add([{"file": str(files[0])}])
    # The clock of a file system has steps of some milliseconds.
    while files[0].stat().st_ctime_ns == before.st_ctime_ns:
        files[0].write_bytes(b"OTHER")
        os.utime(files[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert files[0].stat().st_mtime_ns == before.st_mtime_ns
    with (
        PartialResults(tmp_path / "in_place.csv", {"command": "predict"}) as kept,
        pytest.raises(DataError, match=r"1 images have changed since .*a\.png"),
    ):
        kept.remaining(files)
    # Of an earlier version, which knew two facts.
    first, line = (tmp_path / "in_place.csv.partial").read_text().splitlines()
    line = json.dumps(json.loads(line) | {"stamp": [before.st_size, before.st_mtime_ns]})
    (tmp_path / "in_place.csv.partial").write_text(f"{first}\n{line}\n")
    with PartialResults(tmp_path / "in_place.csv", {"command": "predict"}) as kept:
        assert kept.remaining(files) == files[1:]
    (tmp_path / "out.csv.partial").write_text("something else\n")
    with pytest.raises(DataError, match="not the partial results"):
        PartialResults(tmp_path / "out.csv", {"command": "predict"})
    assert (tmp_path / "out.csv.partial").read_text() == "something else\n"


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), os.mkdir])
def test_partial_results_are_a_regular_file(tmp_path, make):
    path = tmp_path / "out.csv.partial"
    make(path)
    with pytest.raises(DataError, match=r"out\.csv\.partial: .* where a regular file is expected"):
        PartialResults(tmp_path / "out.csv", {"command": "predict"})
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("classes", "model", "message"),
    [
        (b"a\nb\nc\n", "softmax", "has outputs of shape (4,), and the list of classes has 3 names: a, b, c"),
        (b"a\nb\nb\nc\n", None, "got 'b' twice"),
        (b"", None, "got none"),
        ("ä\nb\nc\nd\n".encode("latin-1"), None, "no UTF-8 text"),
        (b"a\nb\nc\nd\n", "tanh", "expected a classifier, whose last layer has a softmax"),
        (None, "softmax", "name a list with --classes"),
        (b"a\nb\nc\nd\n", "carded", "its classes are dark, dim, light, bright (4 of them), and --classes has a, b, c"),
        (b"a\nb\nc\nd\n", "damaged", "not a Keras model that can be loaded safely"),
        (b"a\nb\nc\nd\n", "nan", "outputs are not finite"),
        (b"a\nb\nc\nd\n", "empty folder", "the folder holds no images"),
        (b"a\nb\nc\nd\n", "unreadable", "none of the images can be read, for example"),
    ],
)
def test_mistakes_leave_nothing_behind(tmp_path, images, classes, model, message):
    file = tmp_path / "model.keras"
    if model == "damaged":
        file.write_text("no model")
    elif model:
        kind = model if model in ("softmax", "tanh") else "softmax"
        made = brightness_model(file, activation=kind)
        if model == "carded":
            write_card(file, ClassifierCard(CLASSES, None, "why"))
        if model == "nan":
            made.get_layer("scores").set_weights([np.full((3, 4), np.nan), np.zeros(4)])
            made.save(file)
    else:
        file.write_text("not looked at")
    if model == "empty folder":
        for image in images.iterdir():
            image.unlink()
    if model == "unreadable":
        for image in images.iterdir():
            image.write_text("no image")
    arguments = []
    if classes is not None:
        (tmp_path / "classes.txt").write_bytes(classes)
        arguments = ["--classes", "classes.txt"]
    result = predict(tmp_path, *arguments)
    assert result.returncode == 3, result.stderr
    assert message in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.glob("out*")) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_list_of_classes_may_be_of_another_maker(tmp_path, encoding, form):
    (tmp_path / "classes.txt").write_bytes(unicodedata.normalize(form, " caf\u00e9 \r\n\r\ntea\n").encode(encoding))
    names = read_class_names(tmp_path / "classes.txt")
    assert names == ["caf\u00e9", "tea"]
    write_card(tmp_path / "model.keras", ClassifierCard(["cafe\u0301", "tea"], None, "why"))
    assert known_card(tmp_path / "model.keras", names).classes == ["cafe\u0301", "tea"]


def test_a_probe_exports_a_classifier_with_its_card(finished, tmp_path):
    run = finished[1]
    card = read_card(run.export / "classifier.keras")
    assert card.classes == ["0", "1", "2", "3"] and (card.size, card.side) == (16, 16)
    # 40 of the 200 training images are the validation split.
    assert card.temperature is None and card.uncalibrated.startswith("40 images are too few to calibrate with")
    pixels, labels = upright_images(40, seed=1)
    (tmp_path / "images").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "images" / f"{number:02}.png")
    page = tmp_path / "page.html"
    arguments = ["predict", run.path, tmp_path / "images", "--to", tmp_path / "out.csv", "--page", page]
    result = invoke(*arguments)
    assert result.returncode == 0, result.stderr
    assert "not calibrated: 40 images are too few" in result.stdout
    with (tmp_path / "out.csv").open(newline="") as file:
        predicted = [row["label"] for row in csv.DictReader(file)]
    chosen = run.facts()["classifier"]
    (measured,) = {
        event["top1"]
        for event in run.events()
        if event["kind"] == "probe" and event["weights"] == "rotnet"
        if event["labels_per_class"] is None and (event["tap"], event["head"]) == (chosen["tap"], chosen["head"])
    }
    assert np.mean([int(a) == b for a, b in zip(predicted, labels, strict=True)]) == pytest.approx(measured, abs=0.03)
    content = page.read_text()
    assert "The surest" in content and "The most unusual" in content and content.count("data:image/jpeg") == 72
    assert "http" not in content.replace("http-equiv", "")


def test_a_run_without_a_classifier_says_how_to_train_one(tmp_path, images):
    result = invoke("predict", "airbench4_photos", images, "--to", tmp_path / "out.csv")
    assert result.returncode == 3 and "rotnet-keras run finetune pretrained.run=airbench4_photos" in result.stderr


def test_a_card_has_the_temperature_of_the_validation_images(tmp_path):
    from rotnet_keras.config.sections import Augment
    from rotnet_keras.data.stores import Split
    from rotnet_keras.inference.calibration import describe_classifier

    model = brightness_model(tmp_path / "model.keras")
    pixels = np.repeat(np.arange(150, dtype=np.uint8), 16 * 16 * 3).reshape(150, 16, 16, 3)
    # What is right is right far more often than the model says, so a low temperature fits.
    labels = np.full(150, 3)
    labels[:20] = -1
    described = describe_classifier(model, CLASSES, Split(pixels, np.arange(150), labels), Augment(), (16, 16, 3))
    assert described == ClassifierCard(CLASSES, 0.5, "", 130, 16, 16)
    write_card(tmp_path / "model.keras", described)
    assert read_card(tmp_path / "model.keras") == described
    none = describe_classifier(model, CLASSES, None, Augment(crop=12), (16, 16, 3))
    assert none == ClassifierCard(CLASSES, None, "its run had no validation images", 0, 16, 12)


def test_the_progress_line_says_how_much_time_is_left():
    from rotnet_keras.cli.options import ProgressLine

    line = ProgressLine()
    assert line.text("images", 64, 1000, 10.0).rstrip() == "images: [#...................] 64/1,000"
    assert line.text("images", 264, 1000, 20.0).rstrip() == "images: [#####...............] 264/1,000, 37 s left"
    assert line.text("images", 1000, 1000, 60.0).rstrip() == "images: [####################] 1,000/1,000"
    # Another pass begins anew.
    assert line.text("images", 10, 1000, 70.0).rstrip() == "images: [....................] 10/1,000"
