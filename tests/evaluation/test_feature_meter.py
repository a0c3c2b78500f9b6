"""Effective rank, dead channels and k-NN accuracy of features, and the sentence that follows from them."""

import json

import numpy as np
import pytest
from support.fake_runs import fake_run
from support.tiny import upright_images
from support.whole_runs import events_of

from rotnet_keras.config.loading import load_recipe
from rotnet_keras.config.schema import FeatureMeasures
from rotnet_keras.config.sections import Augment, Data
from rotnet_keras.data.batches import center_crop
from rotnet_keras.data.datasets import load
from rotnet_keras.errors import DataError, RecipeError
from rotnet_keras.evaluation.feature_meter import FeatureMeter, effective_rank
from rotnet_keras.models.backbones.registry import backbone
from rotnet_keras.reports.report import write_report
from rotnet_keras.runs.event_fields import event_problem
from rotnet_keras.runs.feature_quality import advice, rows, tap_curves


def test_the_effective_rank_counts_directions():
    rng = np.random.default_rng(0)
    directions, _ = np.linalg.qr(rng.normal(size=(200, 8)))
    assert effective_rank(directions) == pytest.approx(8, rel=1e-3)
    assert effective_rank(1000 * directions) == pytest.approx(8, rel=1e-3)
    assert effective_rank(directions @ rng.normal(size=(8, 64))) <= 8.1
    assert effective_rank(np.outer(np.arange(1, 50), rng.random(16))) == pytest.approx(1, abs=1e-3)
    # By hand: singular values 3 and 1 are shares of 3/4 and 1/4.
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert effective_rank(np.diag([3.0, 1.0])) == pytest.approx(np.exp(entropy), rel=1e-4)
    assert effective_rank(np.zeros((9, 4))) == 0
    assert np.isnan(effective_rank(np.array([[1.0, np.inf], [0.0, 1.0]])))


@pytest.fixture(scope="module")
def small():
    """A backbone with a channel of `conv1` that is always 0, and its output by hand."""
    model = backbone("compact", (12, 12, 3), blocks=2, width=0.25)
    layers = [layer for layer in model.layers if layer.name == "block1_bn2"]
    beta = np.zeros(layers[0].beta.shape, np.float32)
    beta[3] = -1e6
    layers[0].beta.assign(beta)
    return model


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "a.npz"
    images, labels = upright_images(120)
    np.savez(file, x_train=images, y_train=labels, x_test=images[:40], y_test=labels[:40])
    return load(Data(name=str(file), validation=0.25))


def test_every_tap_is_measured_on_the_same_images(small, dataset):
    meter = FeatureMeter(small, dataset, Augment(crop=14), FeatureMeasures(images=50, knn=True))
    found = {each["tap"]: each for each in meter.measure()}
    assert list(found) == ["conv1", "conv2"] and meter.measure() == list(found.values())
    rows = np.linspace(0, len(dataset.train) - 1, 50).astype(int)
    images = center_crop(dataset.train.images(rows), Augment(crop=14))[:, 1:13, 1:13]
    from rotnet_keras.engine import keras

    by_hand = keras.Model(small.input, small.get_layer("conv1").output)(images, training=False)
    pooled = np.asarray(by_hand).mean(axis=(1, 2))
    conv1 = found["conv1"]
    assert conv1["channels"] == pooled.shape[1] == 16
    assert conv1["rank"] == pytest.approx(effective_rank(pooled), abs=0.02)
    assert conv1["dead"] == round(float((pooled.max(0) == 0).mean()), 4) > 0
    # Labels are the brightness, which even random features keep.
    assert conv1["knn"] > 0.5
    assert event_problem({"kind": "features", "time": 0, "step": 3, "images": 50, "taps": list(found.values())}) is None


def test_weights_that_are_not_finite_end_no_measurement(small, dataset):
    from rotnet_keras.engine import keras

    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3, bias_initializer="ones", name="conv1")(inputs))
    model.layers[1].kernel.assign(np.full((3, 3, 3, 4), np.nan))
    found = FeatureMeter(model, dataset, Augment(), FeatureMeasures(images=9, knn=True)).measure()
    assert all(np.isnan(each["rank"]) and each["knn"] is None for each in found)


def test_knn_needs_labels(small, dataset, tmp_path, tiny_recipe):
    np.savez(tmp_path / "b.npz", x_train=upright_images(20)[0])
    with pytest.raises(DataError, match=r"features\.knn needs labelled training and validation images"):
        FeatureMeter(small, load(Data(name=str(tmp_path / "b.npz"))), Augment(), FeatureMeasures(knn=True))
    with pytest.raises(RecipeError, match="set images above 0"):
        load_recipe(tiny_recipe, {"features.knn": True, "features.images": 0})


def event(step, *taps, **knn):
    """An event with (tap, rank) each."""
    found = [{"tap": tap, "channels": 64, "rank": rank, "dead": 0.25} for tap, rank in taps]
    for each in found:
        each |= {"knn": knn[each["tap"]]} if knn else {}
    return {"kind": "features", "time": 0.0, "step": step, "images": 9, "taps": found}


@pytest.mark.parametrize(("last", "words"), [
    (20.0, "its effective rank still rises, 100 % in the last third: more epochs may help"),
    (10.1, "its effective rank has stopped rising: more epochs may not help"),
    (5.0, "its effective rank falls, 50 % in the last third: more epochs may not help"),
    (None, "Read conv2, the middle layer, as no labels say better."),
])  # fmt: skip
def test_the_advice_follows_the_trend_of_the_tap_to_read(last, words):
    events = [event(step, ("conv1", 9.0), ("conv2", 10.0), ("conv3", 30.0)) for step in (3, 6, 9, 12)]
    events.append(event(15, ("conv1", 9.0), ("conv2", last), ("conv3", 30.0)))
    assert words in advice(events) and advice(events).startswith("Read conv2, the middle layer")


def test_the_advice_prefers_what_labels_say():
    taps = (("conv1", 9.0), ("conv2", 10.0), ("conv3", 11.0))
    assert advice([]) == "" and advice([event(1, *taps)]).startswith("Read conv2, the middle layer")
    with_knn = [event(1, *taps, conv1=0.3, conv2=0.4, conv3=0.5)]
    assert advice(with_knn) == "Read conv3, whose k-NN accuracy on validation is highest."
    probe = {"kind": "probe", "step": 1, "weights": "rotnet", "tap": "conv1", "labels_per_class": None}
    assert advice([*with_knn, probe | {"validation_top1": 0.7}]).startswith("Read conv1, whose probe is best")
    # 300 images tell 0.70 from no accuracy above 0.6735, one standard error lower.
    best = probe | {"validation_top1": 0.7, "validation_images": 300, "probe": 0}
    near, far = (best | {"tap": "conv2", "validation_top1": value} for value in (0.674, 0.673))
    assert advice([*with_knn, best, far]) == "Read conv1, whose probe is best on validation."
    words = "the middle layer, whose probe is within one standard error of the best (conv1) on validation."
    assert advice([*with_knn, best, near]) == f"Read conv2, {words}"
    # Another probe's accuracy on the middle layer says nothing.
    assert advice([*with_knn, best, near | {"probe": 1}]).startswith("Read conv1, whose probe is best")
    heading, table = rows(tap_curves(with_knn))
    assert heading[-1] == "k-NN accuracy" and table[2] == ["conv3", "64", "11.0", "25.0 %", "50.0 %"]


def test_a_step_that_was_repeated_after_a_resume_counts_once():
    (curve,) = tap_curves([event(2, ("conv1", 1.0)), event(1, ("conv1", 5.0)), event(2, ("conv1", 3.0))])
    assert (curve.steps, curve.ranks) == ([1, 2], [5.0, 3.0])


@pytest.mark.long
def test_a_run_measures_every_epoch_and_its_report_shows_it(finished, tmp_path):
    _, run = finished
    events = events_of(run, "features")
    assert [each["step"] for each in events] == [10, 20, 30] and events[0]["images"] == 160
    assert [tap["tap"] for tap in events[0]["taps"]] == ["conv1", "conv2"] and "knn" not in events[0]["taps"][0]
    page = (run.path / "report.md").read_text()
    assert "## Which features are good, without labels?\n\nRead conv" in page and "| conv2 |" in page
    assert (run.path / "figures" / "features.png").stat().st_size > 0
    assert "Features without labels: Read conv" in finished[0].stdout
    old = fake_run(tmp_path, "old", outcome="finished")
    lines = old.events_file.read_text().splitlines(keepends=True)
    old.events_file.write_text("".join(line for line in lines if json.loads(line)["kind"] != "features"))
    write_report(old)
    assert "Which features" not in (old.path / "report.md").read_text()
