"""Probes, within a run and by themselves."""

import contextlib
import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from support.command_line import command, invoke, run_cli
from support.tiny import PROBES
from support.whole_runs import assert_same_end, events_of, run_of, start, wait_for_step

from rotnet_keras.config.finder import recipes_dir
from rotnet_keras.config.loading import load_recipe
from rotnet_keras.config.probes import Probe
from rotnet_keras.config.sections import Augment, Data
from rotnet_keras.data.datasets import load
from rotnet_keras.engine import keras
from rotnet_keras.errors import DataError
from rotnet_keras.evaluation.head_training import long_probe_note
from rotnet_keras.models.backbones.registry import backbone as build_backbone
from rotnet_keras.models.export import load_backbone
from rotnet_keras.tasks.probe import check_probes, run_missing_probes

REPEATS = """\
kind = "probe"
title = "repeats"
seed = 3
[data]
name = "{data}"
validation = 0.2
[backbone]
file = "{backbone}"
[[probe]]
head = "linear"
steps = 2
repeats = 3
[[probe]]
head = "knn"
tap = "conv1"
labels_per_class = 2
repeats = 4
[[probe]]
head = "knn"
tap = "conv1"
repeats = 5
"""


class FakeSession:
    """A session that keeps its events and facts in memory."""

    seed = 3

    def __init__(self, path, classifier):
        self.said, self.earlier, self.events, self.known = [], [], [], {"classifier": classifier}
        (path / "export").mkdir()
        self.folder = SimpleNamespace(path=path, export=path / "export", facts=lambda: self.known)
        self.stop = SimpleNamespace(check=lambda: None)
        self.recipe = load_recipe("cifar_cpu")

    def event(self, kind, **values):
        self.events.append({"kind": kind, **values})

    def say(self, text):
        self.said.append(text)

    def record(self, **facts):
        self.known |= facts

    def warn(self, text):
        self.event("warning", message=text)

    def progress(self, *_):
        pass

    @contextlib.contextmanager
    def timed(self):
        yield {"seconds": 0.0}


def test_probes_measure_the_backbone_and_its_baselines(finished):
    _, run = finished
    found = {(e["head"], e["weights"], e["tap"]): e for e in events_of(run, "probe")}
    assert set(found) == {
        *(("linear", weights, tap) for weights in ("rotnet", "random") for tap in ("conv1", "conv2")),
        ("linear", "pixels", "pixels"),
        ("mlp", "rotnet", "conv2"),
        *(("knn", "rotnet", tap) for tap in ("conv1", "conv2")),
        ("conv", "rotnet", "conv1"),
    }
    for event in found.values():
        confusion = np.array(event["confusion"])
        assert confusion.shape == (4, 4)
        assert event["top1"] == pytest.approx(np.trace(confusion) / confusion.sum())
    few = found["mlp", "rotnet", "conv2"]
    assert few["labels_per_class"] == 5 and "top1_std" in few and np.sum(few["confusion"]) == 80


@pytest.mark.slow
def test_probes_between_epochs_do_not_change_the_training(finished, tiny_recipe):
    _, whole = finished
    tiny_recipe.write_text(tiny_recipe.read_text() + '[[probe]]\nhead = "linear"\nsteps = 3\nevery = 1\n')
    result, run = start(tiny_recipe)
    assert result.returncode == 0, result.stderr
    assert_same_end(run, whole)
    assert [e["step"] for e in events_of(run, "probe")] == [10, 10, 20, 20, 30, 30]


@pytest.mark.long
def test_a_probe_recipe_finds_the_run_and_gives_the_same_result(finished, tmp_path, tiny_data):
    _, run = finished
    recipe = tmp_path / "probe.toml"
    recipe.write_text(f"""\
kind = "probe"
title = "again"
seed = 3
[data]
name = "{tiny_data}"
validation = 0.2
[augment]
pad = 2
flip = true
[backbone]
run = "{run.path}"
[[probe]]
head = "linear"
baselines = ["random", "pixels"]
epochs = 2
[[probe]]
head = "linear"
tap = "conv2"
epochs = 3
augment = true
views = 2
precision = "mixed_float16"
""")
    result, probe_run = start(recipe)
    assert result.returncode == 0, result.stderr
    whole, views = ([e for e in events_of(probe_run, "probe") if e["probe"] == i] for i in (0, 1))
    assert [(e["weights"], e["tap"], e["precision"]) for e in views] == [("rotnet", "conv2", "mixed_float16")]
    computed = set(re.findall(r"features \((\w+, [\w-]+)\)", result.stdout))
    assert {"rotnet, view-0", "rotnet, view-1", "random, train"} <= computed
    assert not {"rotnet, view-2", "random, view-0"} & computed
    ours = {(e["weights"], e["tap"]): e["top1"] for e in whole}
    theirs = {(e["weights"], e["tap"]): e["top1"] for e in events_of(run, "probe") if e["head"] == "linear"}
    assert ours == theirs
    assert "linear probe, all labels" in (probe_run.path / "report.html").read_text()


@pytest.fixture(scope="module")
def probed(finished, tmp_path_factory, tiny_data):
    """A probe recipe's run: repeats with all labels, k-NN on drawn and on all labels; (result, run)."""
    _, run = finished
    recipe = tmp_path_factory.mktemp("probed") / "probe.toml"
    recipe.write_text(REPEATS.format(data=tiny_data, backbone=run.backbone))
    result, run = start(recipe)
    assert result.returncode == 0, result.stdout + result.stderr
    return result, run


@pytest.mark.long
def test_repeats_differ_with_all_labels_and_for_knn_with_drawn_labels(probed):
    result, run = probed
    linear, drawn, whole = ([e for e in events_of(run, "probe") if e["probe"] == i] for i in range(3))
    test_images = 40
    for event, repeats in ((linear[0], 3), (drawn[0], 4), (whole[0], 1)):
        assert np.sum(event["confusion"]) == repeats * test_images
    assert linear[0]["top1_std"] > 0 and "top1_std" in drawn[0]
    assert "top1_std" not in whole[0]
    assert result.stdout.count("k-NN on labels that are not drawn is the same 5 times: it is done once") == 1


@pytest.mark.long
def test_a_probe_killed_between_the_results_of_two_layers_writes_the_missing_ones(probed):
    _, whole = probed
    run = run_of(whole.path.parent.parent, "killed")
    shutil.copytree(whole.path, run.path)
    lines = run.events_file.read_text().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if json.loads(line)["kind"] == "probe")
    run.events_file.write_text("".join(lines[: first + 1]))
    result = run_cli("resume", "killed", cwd=run.path.parent.parent)
    assert result.returncode == 0, result.stdout + result.stderr

    def results(run):
        return [{k: v for k, v in e.items() if k not in ("time", "seconds", "t")} for e in events_of(run, "probe")]

    assert results(run) == results(whole)


@pytest.mark.parametrize(("exports", "written"), [(True, True), (False, False)])
def test_only_the_exported_backbone_gets_a_classifier(exports, written, tmp_path, tiny_data):
    """What a pretraining probes between its epochs is not the backbone that it exports."""
    session = FakeSession(tmp_path, {"tap": "conv2", "head": "linear", "validation_top1": 1.0, "step": 10})
    dataset = load(Data(name=str(tiny_data), validation=0.2))
    model = build_backbone("compact", dataset.image_shape, blocks=2, width=0.25)
    probe = Probe(head="linear", tap="conv1", steps=1)
    run_missing_probes(session, dataset, model, Augment(), [(0, probe)], step=20, exports=exports)
    assert (session.folder.export / "classifier.keras").is_file() == written
    # The better one of an earlier step does not count.
    assert session.folder.facts()["classifier"]["step"] == (20 if written else 10)


@pytest.mark.long
@pytest.mark.parametrize("average", ["mirror", "crops"])
def test_the_classifier_of_averaged_features_averages_too(average, tmp_path, tiny_data):
    session = FakeSession(tmp_path, {})
    dataset = load(Data(name=str(tiny_data), validation=0.2))
    keras.utils.set_random_seed(2)
    model = build_backbone("compact", dataset.image_shape, blocks=2, width=0.25)
    probes = [Probe(head="linear", tap="conv1", steps=6, average=each) for each in (average, "none")]
    run_missing_probes(session, dataset, model, Augment(), list(enumerate(probes[:1])), step=0)
    exported = load_backbone(session.folder.export / "classifier.keras")
    predicted = np.asarray(exported(dataset.test.images(np.arange(len(dataset.test))))).argmax(axis=1)
    (event,) = session.events
    assert event["top1"] == np.mean(predicted == dataset.test.labels)
    run_missing_probes(session, dataset, model, Augment(), [(0, probes[0]), (1, probes[1])], step=1, exports=False)
    first, averaged, plain = [np.array(found["confusion"]) for found in session.events]
    assert (first == averaged).all() and (averaged != plain).any()


def test_images_without_a_label_neither_train_nor_count(tmp_path, tiny_data):
    """Half of the training images and all but four test images have the label -1, and pixels that would mislead."""
    with np.load(tiny_data) as arrays:
        x, y = arrays["x_train"].copy(), arrays["y_train"].astype(int)
        x_test, y_test = arrays["x_test"], arrays["y_test"].astype(int)
    y[::2] = -1
    x[::2] = 255 - x[::2]
    few = np.concatenate([np.flatnonzero(y_test == label)[:1] for label in range(4)])
    unknown = np.full(len(y_test), -1)
    unknown[few] = y_test[few]
    np.savez(tmp_path / "some.npz", x_train=x, y_train=y, x_test=x_test, y_test=unknown)
    np.savez(tmp_path / "only.npz", x_train=x[1::2], y_train=y[1::2], x_test=x_test[few], y_test=y_test[few])
    model, found = build_backbone("compact", (16, 16, 3), blocks=2, width=0.25), {}
    for name in ("some", "only"):
        (tmp_path / name).mkdir()
        session = FakeSession(tmp_path / name, {})
        # No validation: which images are held out depends on their number.
        dataset = load(Data(name=str(tmp_path / f"{name}.npz"), validation=0))
        probe = Probe(head="knn", tap="conv1")
        check_probes(dataset, [probe])
        run_missing_probes(session, dataset, model, Augment(), [(0, probe)], step=0)
        found[name] = session.events[-1]["confusion"]
        said = "100 of 200 train images have the label -1: their class is unknown"
        assert (said in " ".join(dataset.notes)) == (name == "some")
    assert found["some"] == found["only"] and np.sum(found["some"]) == 4
    np.savez(tmp_path / "none.npz", x_train=x, y_train=y, x_test=x_test, y_test=np.full(len(y_test), -1))
    with pytest.raises(DataError, match="probes need labelled training and test images"):
        check_probes(load(Data(name=str(tmp_path / "none.npz"))), [probe])


def test_a_long_probe_says_so_at_its_beginning(tmp_path, tiny_data, monkeypatch):
    monkeypatch.setattr("rotnet_keras.evaluation.head_training.TIMED_STEPS", (1, 2))
    session = FakeSession(tmp_path, {})
    dataset = load(Data(name=str(tiny_data), validation=0.2))
    model = build_backbone("compact", dataset.image_shape, blocks=2, width=0.25)
    probe = Probe(head="linear", tap="conv1", steps=3)
    run_missing_probes(session, dataset, model, Augment(), [(0, probe)], step=0)
    assert session.said == []
    monkeypatch.setattr("rotnet_keras.evaluation.head_training.LONG_SECONDS", 0.0)
    run_missing_probes(session, dataset, model, Augment(), [(0, probe)], step=1)
    (said,) = session.said
    assert said.startswith("linear probe (rotnet) takes about ")
    assert "3 steps on 1 layer. Less time: fewer steps, or" in said


def test_the_time_of_a_probe_grows_with_steps_and_repeats():
    probe = Probe(head="mlp", epochs=100, repeats=2, labels_per_class=20)
    assert long_probe_note("mlp probe", probe, 4, 0.1, 3000) == ""
    said = long_probe_note("mlp probe", probe, 4, 0.1, 9000)
    assert said.startswith(
        "mlp probe takes about 30 min 00 s: 2 times 9,000 steps on 4 layers. Less time: fewer epochs,"
    )


def test_a_probe_without_its_backbone_is_refused_before_a_run_folder_is_made(tmp_path):
    arguments = ["data.name=fashion_mini", f"backbone.file={tmp_path}/none.keras"]
    recipe = tmp_path / "probe.toml"
    recipe.write_text((recipes_dir() / "probe.toml").read_text().replace('run = "NAME"', ""))
    result = invoke("run", recipe, *arguments, cwd=tmp_path)
    assert result.returncode == 3 and "none.keras" in result.stderr and not (tmp_path / "runs").exists()


@pytest.mark.long
def test_a_pretraining_on_images_without_labels_leaves_out_its_probes_and_says_so(tmp_path, tiny_recipe, tiny_data):
    flat = tmp_path / "flat"
    flat.mkdir()
    with np.load(tiny_data) as arrays:
        for number, pixels in enumerate(arrays["x_train"]):
            Image.fromarray(pixels).save(flat / f"{number}.png")
    tiny_recipe.write_text(f"{tiny_recipe.read_text()}[features]\nknn = true\nimages = 32\n{PROBES}every = 1\n")
    line = (
        "Warning: the probes are left out: they need labelled training and test images; features.knn is left out: it "
        "needs labelled training and validation images\n"
    )
    overrides = (f"data.name={flat}", "data.size=16")
    dry = invoke("run", tiny_recipe, *overrides, "--dry-run", cwd=tmp_path)
    assert dry.returncode == 0 and dry.stderr == line
    labelled = invoke("run", tiny_recipe, "--dry-run", cwd=tmp_path)
    assert labelled.returncode == 0 and labelled.stderr == ""
    words = ("run", tiny_recipe, *overrides, "--name", "run")
    process = subprocess.Popen(command(*words), cwd=tmp_path, stdout=subprocess.DEVNULL)
    run = run_of(tmp_path, "run")
    wait_for_step(run, 4)
    process.terminate()
    assert process.wait(60) == 143
    resumed = run_cli("resume", "run", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert resumed.stdout.count(line.removeprefix("Warning: ")) == 1 and run.log.read_text().count(line) == 1
    assert [event["message"] for event in events_of(run, "warning")] == [line.removeprefix("Warning: ").strip()]
    assert not events_of(run, "probe") and len(events_of(run, "features")) == 3
    assert all("knn" not in tap for event in events_of(run, "features") for tap in event["taps"])
    report = (run.path / "report.md").read_text()
    assert "the probes are left out" in report and "linear probe, all labels" not in report


@pytest.mark.long
def test_a_probe_of_images_without_labels_is_refused(finished, tmp_path, tiny_data):
    with np.load(tiny_data) as arrays:
        np.savez(tmp_path / "plain.npz", images=arrays["x_train"])
    recipe = tmp_path / "probe.toml"
    recipe.write_text(REPEATS.format(data=tmp_path / "plain.npz", backbone=finished[1].backbone))
    result, run = start(recipe)
    assert result.returncode == 3 and "probes need labelled training and test images: add labels" in result.stdout
    assert not events_of(run, "probe")


def test_a_split_without_labels_holds_out_nothing(tmp_path, tiny_data):
    """Validation images without labels end no probe, and choose no tap."""
    with np.load(tiny_data) as arrays:
        np.savez(tmp_path / "some.npz", x_val=arrays["x_test"], **arrays)
    session, dataset = FakeSession(tmp_path, {}), load(Data(name=str(tmp_path / "some.npz")))
    assert dataset.labelled == {"train", "test"} and dataset.validation.labels is None
    model = build_backbone("compact", dataset.image_shape, blocks=2, width=0.25)
    probes = [Probe(head="knn", tap="conv1"), Probe(head="linear", tap="conv1", steps=2)]
    run_missing_probes(session, dataset, model, Augment(), list(enumerate(probes)), step=0)
    assert [event["head"] for event in session.events] == ["knn", "linear"]
    assert not any("validation_top1" in event for event in session.events)
