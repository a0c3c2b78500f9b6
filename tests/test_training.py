"""Whole runs through the command line, on tiny data."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import command, run_cli, run_python, shared_data

from rotnet_keras.catalogue import recipes_dir
from rotnet_keras.runs import RunFolder

PROBES = """
[[probe]]
head = "linear"
controls = ["random", "pixels"]
epochs = 2

[[probe]]
head = "mlp"
tap = "conv2"
steps = 4
labels_per_class = 5
repeats = 2

[[probe]]
head = "knn"
tap = ["conv1", "conv2"]

[[probe]]
head = "conv"
tap = "conv1"
epochs = 1
augment = true
"""


def run_of(tmp_path, name):
    return RunFolder(tmp_path / "runs" / name)


def start(recipe, *arguments, name="run"):
    result = run_cli("run", recipe, "--name", name, *arguments, cwd=recipe.parent)
    return result, run_of(recipe.parent, name)


def events_of(run, kind):
    return [event for event in run.events() if event["kind"] == kind]


def final_arrays(run):
    newest = max(run.checkpoints.glob("step-*.npz"))
    with np.load(newest) as archive:
        return newest.name, {name: archive[name] for name in archive.files}


def assert_same_end(run, other):
    (name, arrays), (other_name, others) = final_arrays(run), final_arrays(other)
    assert name == other_name and arrays.keys() == others.keys()
    for key in arrays.keys() - {"progress"}:
        assert arrays[key].tobytes() == others[key].tobytes(), key


def wait_for_step(run, step):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if any(e["kind"] == "checkpoint" and e["step"] >= step for e in run.tail()):
            return
        time.sleep(0.02)
    pytest.fail(f"no step {step}: {run.log.read_text()}")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_data):
    """One uninterrupted run with every kind of probe: (result of the command, run)."""
    from conftest import TINY_RECIPE

    recipe = tmp_path_factory.mktemp("finished") / "tiny.toml"
    recipe.write_text(TINY_RECIPE.format(data=tiny_data) + PROBES)
    return start(recipe, "seed=3")


def test_a_run_leaves_what_was_promised(finished):
    result, run = finished
    assert result.returncode == 0, result.stderr
    for name in (
        *("recipe.toml", "run.json", "events.jsonl", "log.txt", "report.html", "report.md"),
        *("export/backbone.keras", "export/rotnet.keras", "export/classifier.keras"),
        *("figures/curves.png", "figures/confusion.png", "figures/samples.png", "figures/filters.png"),
    ):
        assert (run.path / name).stat().st_size > 0
    assert run.state() == "finished"
    assert not list(run.path.rglob(".*"))
    assert "\r" not in result.stdout and "\x1b" not in result.stdout


def test_it_learns_and_tells_how(finished):
    _, run = finished
    epochs = events_of(run, "epoch")
    assert len(epochs) == 3 and epochs[-1]["step"] == 30
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    validation = epochs[-1]["validation"]
    confusion = np.array(validation["confusion"])
    assert confusion.shape == (4, 4) and (confusion.sum(axis=1) == 40).all()
    assert validation["accuracy"] == pytest.approx(np.trace(confusion) / 160)
    assert validation["accuracy"] > 0.5
    assert validation["per_angle"] == pytest.approx(np.diag(confusion) / 40)
    assert sum(np.sum(event["confusion"]) for event in events_of(run, "test")) == 160
    assert all(0 <= event["data_wait"] <= 1 for event in events_of(run, "step"))


def test_every_epoch_shows_samples_and_filters(finished):
    _, run = finished
    samples = events_of(run, "samples")
    assert [event["step"] for event in samples] == [10, 20, 30]
    for event in samples:
        assert event["filters"] == f"filters-{event['step']:08d}.png"
        for name in (event["file"], event["filters"]):
            assert (run.samples / name).stat().st_size > 0


def test_probes_measure_ours_and_the_controls(finished):
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


def test_the_report_is_one_file_with_tables_and_pictures(finished):
    _, run = finished
    page = (run.path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5 and "http" not in page
    for text in ("Rotation accuracy, %", "linear probe, all labels", "random weights", "raw pixels"):
        assert text in page
    assert "![Curves](figures/curves.png)" in (run.path / "report.md").read_text()


def test_the_recipe_in_the_folder_repeats_the_run(finished, tmp_path):
    _, run = finished
    shutil.copy(run.recipe, tmp_path / "again.toml")
    result, again = start(tmp_path / "again.toml", "probe=[]")
    assert result.returncode == 0, result.stderr
    assert_same_end(run, again)


EXPORT_CODE = """
import sys
sys.modules["rotnet_keras"] = None
import keras, numpy as np
folder = sys.argv[1]
pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
backbone = keras.models.load_model(folder + "/backbone.keras")
features = keras.Model(backbone.input, backbone.get_layer("conv1").output).predict(pixels, verbose=0)
assert features.shape == (8, 8, 8, 8) and features.dtype == "float32", features.shape
assert np.array_equal(backbone.predict(pixels, verbose=0), backbone.predict(pixels.astype("float32"), verbose=0))
for name in ("rotnet", "classifier"):
    probabilities = keras.models.load_model(f"{folder}/{name}.keras").predict(pixels, verbose=0)
    assert probabilities.shape == (8, 4) and np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
model = keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4)])
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
before = backbone.trainable_variables[0].numpy().copy()
model.fit(pixels, np.arange(8) % 4, verbose=0)
assert not np.array_equal(before, backbone.trainable_variables[0].numpy())
print("fine")
"""


def test_exports_work_where_this_package_cannot_be_imported(finished):
    _, run = finished
    assert run_python(EXPORT_CODE, run.export).strip().endswith("fine")


def test_the_exported_rotnet_knows_its_angles(finished, tiny_data):
    from rotnet_keras.engine import keras

    _, run = finished
    with np.load(tiny_data) as arrays:
        images = arrays["x_test"]
    turned = np.concatenate([np.rot90(images, k, axes=(1, 2)) for k in range(4)])
    model = keras.models.load_model(run.export / "rotnet.keras")
    right = model.predict(turned, verbose=0).argmax(axis=1) == np.repeat(np.arange(4), len(images))
    assert right.mean() == pytest.approx(events_of(run, "test")[0]["accuracy"], abs=0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_by_a_signal_and_resumed_it_ends_with_the_same_weights(finished, tiny_recipe, number, code):
    _, whole = finished
    run = run_of(tiny_recipe.parent, "run")
    process = subprocess.Popen(
        command("run", tiny_recipe, "--name", "run"), cwd=tiny_recipe.parent, stdout=subprocess.DEVNULL
    )
    wait_for_step(run, 4)
    process.send_signal(number)
    assert process.wait(60) == code
    assert run.state() == "stopped"
    stopped_at = max(e["step"] for e in events_of(run, "checkpoint"))
    assert stopped_at < 30, "the run was over before it could be stopped"
    assert run_cli("resume", "run", cwd=tiny_recipe.parent).returncode == 0
    assert_same_end(run, whole)
    assert [e["step"] for e in events_of(run, "epoch")] == [10, 20, 30]
    assert run_cli("resume", "run", cwd=tiny_recipe.parent).returncode == 1


def test_killed_and_resumed_it_ends_with_the_same_weights(finished, tiny_recipe):
    _, whole = finished
    run = run_of(tiny_recipe.parent, "run")
    process = subprocess.Popen(
        command("run", tiny_recipe, "--name", "run"), cwd=tiny_recipe.parent, stdout=subprocess.DEVNULL
    )
    wait_for_step(run, 8)
    process.kill()
    process.wait(60)
    assert run.state() == "killed"
    # A damaged newest checkpoint costs a few steps more, nothing else.
    newest = max(run.checkpoints.glob("step-*.npz"))
    newest.write_bytes(newest.read_bytes()[:1000])
    result = run_cli("resume", "run", cwd=tiny_recipe.parent)
    assert result.returncode == 0 and f"checkpoint {newest.name} cannot be used" in result.stdout
    assert_same_end(run, whole)
    steps = [e["step"] for e in events_of(run, "step")]
    assert steps == sorted(set(steps)) and [e["step"] for e in events_of(run, "epoch")] == [10, 20, 30]


def test_a_terminal_shows_a_bar_and_closing_it_does_not_end_the_run(finished, tiny_recipe):
    _, whole = finished
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(tiny_recipe.parent)
        os.execv(sys.executable, command("run", tiny_recipe, "--name", "run"))
    seen = b""
    while b"pretraining" not in seen or "━".encode() not in seen or b"accuracy" not in seen:
        seen += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    run = run_of(tiny_recipe.parent, "run")
    assert run.state() == "finished" and b"ETA" in seen
    assert_same_end(run, whole)


def test_a_detached_run_is_watched_and_stopped_from_elsewhere(tiny_recipe):
    folder = tiny_recipe.parent
    result, run = start(tiny_recipe, "train.steps=100000", "--detach")
    assert result.returncode == 0 and "runs as process" in result.stdout
    wait_for_step(run, 2)
    status = json.loads(run_cli("status", "run", "--json", cwd=folder).stdout)
    assert status["state"] == "running" and status["step"] >= 2
    again = run_cli("resume", "run", cwd=folder)
    assert again.returncode == 1 and "running already" in again.stderr
    assert run_cli("stop", "run", cwd=folder).returncode == 0
    logs = run_cli("logs", "-f", "run", cwd=folder).stdout
    assert "Stopped. Go on with: rotnet-keras resume run" in logs
    assert run.state() == "stopped"
    assert "stopped" in run_cli("runs", cwd=folder).stdout


def test_a_loss_that_explodes_stops_the_run_with_a_way_on(tiny_recipe):
    result, run = start(tiny_recipe, "optimizer.learning_rate=1e30", "schedule.name=constant")
    assert result.returncode == 1 and run.state() == "failed"
    message = events_of(run, "end")[0]["message"]
    assert "Traceback" not in result.stdout
    assert "last good checkpoint" in message or "no checkpoint yet" in message
    assert "optimizer.learning_rate=" in message


@pytest.mark.parametrize(
    "options",
    [
        [
            *("rotation.angles=[0, 45, 90, 135, 180, 225, 270, 315]", "train.tensorboard=true", "train.batch=40"),
            'probe=[{head = "linear", steps = 2, every = 1}]',
        ],
        ["rotation.copies=one", "train.precision=mixed_float16", "backbone.name=nin", "train.label_smoothing=0.1"],
        ["train.precision=mixed_bfloat16", "optimizer.name=adamw", "rotation.angles=[90, 270]", "data.validation=0"],
    ],
)
def test_the_variants_train_and_export(tiny_recipe, options):
    result, run = start(tiny_recipe, "train.steps=7", *options)
    assert result.returncode == 0, run.log.read_text()
    angles = json.loads(run_cli("show", run.recipe, "--json").stdout)["rotation"]["angles"]
    from rotnet_keras.engine import keras

    model = keras.models.load_model(run.backbone)
    assert model.input.shape[1:] == (16, 16, 3)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert all(np.isfinite(w).all() for w in model.get_weights())
    assert len(events_of(run, "test")[0]["confusion"]) == len(angles)
    asked = [o.split("=")[1] for o in options if o.startswith("train.precision")]
    assert run.facts()["precision"] in (asked or ["float32", "mixed_bfloat16"])
    assert (run.path / "tensorboard").is_dir() == ("train.tensorboard=true" in options)


def test_probes_between_epochs_do_not_change_the_training(finished, tiny_recipe):
    _, whole = finished
    tiny_recipe.write_text(tiny_recipe.read_text() + '[[probe]]\nhead = "linear"\nsteps = 3\nevery = 1\n')
    result, run = start(tiny_recipe)
    assert result.returncode == 0, result.stderr
    assert_same_end(run, whole)
    assert [e["step"] for e in events_of(run, "probe")] == [10, 10, 20, 20, 30, 30]


def test_a_probe_of_its_own_finds_the_run_and_the_same_result(finished, tmp_path, tiny_data):
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
controls = ["random", "pixels"]
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


def test_a_probe_without_its_backbone_is_refused_before_anything_is_made(tmp_path):
    arguments = ["data.name=fashion_mini", f"backbone.file={tmp_path}/none.keras"]
    recipe = tmp_path / "probe.toml"
    recipe.write_text((recipes_dir() / "probe.toml").read_text().replace('run = "NAME"', ""))
    result = run_cli("run", recipe, *arguments, cwd=tmp_path)
    assert result.returncode == 3 and "none.keras" in result.stderr and not (tmp_path / "runs").exists()


def test_probes_of_unlabelled_images_are_refused_before_training(tmp_path, tiny_recipe, tiny_data):
    with np.load(tiny_data) as arrays:
        np.savez(tmp_path / "plain.npz", images=arrays["x_train"])
    tiny_recipe.write_text(tiny_recipe.read_text() + PROBES)
    result, run = start(tiny_recipe, f"data.name={tmp_path}/plain.npz")
    assert result.returncode == 3 and "probes need labelled" in result.stdout
    assert not events_of(run, "step")


def test_data_that_change_between_stop_and_resume_are_refused(tiny_recipe, tiny_data, tmp_path):
    mine = tmp_path / "mine.npz"
    shutil.copy(tiny_data, mine)
    process = subprocess.Popen(
        command("run", tiny_recipe, f"data.name={mine}", "train.steps=100000", "--name", "run"),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    wait_for_step(run_of(tmp_path, "run"), 1)
    process.terminate()
    process.wait(60)
    with np.load(mine) as arrays:
        np.savez(tmp_path / "other.npz", **{**arrays, "x_train": arrays["x_train"][:, ::-1]})
    shutil.move(tmp_path / "other.npz", mine)
    result = run_cli("resume", "run", cwd=tmp_path)
    assert result.returncode == 3 and "the data have changed" in result.stdout


def test_a_folder_with_broken_images_trains_and_names_them(tmp_path, tiny_recipe):
    from PIL import Image

    photos = tmp_path / "photos"
    photos.mkdir()
    for n in range(30):
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(
            photos / f"{n}.jpg"
        )
    (photos / "empty.jpg").touch()
    (photos / "text.jpg").write_text("no picture")
    (photos / "cut.jpg").write_bytes((photos / "0.jpg").read_bytes()[:300])
    result, run = start(tiny_recipe, f"data.name={photos}", "data.size=16", "train.steps=2")
    assert result.returncode == 0, result.stderr
    (warning,) = [e["message"] for e in events_of(run, "warning")]
    assert warning.startswith("3 of 33 train files") and all(n in warning for n in ("empty", "text", "cut"))


def test_from_python(tmp_path, tiny_recipe):
    code = """
import sys, rotnet_keras
run = rotnet_keras.run(sys.argv[1], name="mine", runs_dir=sys.argv[2], train={"steps": 2})
assert run.state() == "finished" and run.backbone.is_file()
"""
    run_python(code, tiny_recipe, tmp_path / "runs")


def test_compare_shows_what_differs(finished, tiny_recipe):
    _, run = finished
    result, other = start(tiny_recipe, "train.steps=2", "seed=4", name="other")
    assert result.returncode == 0
    rows = json.loads(run_cli("compare", run.path, other.path, "--json").stdout)
    values = {row[""]: (row["run"], row["other"]) for row in rows}
    assert values["seed"] == ("3", "4") and values["train.steps"] == ("", "2")
    assert "train.batch" not in values


@pytest.mark.slow
def test_export_to_savedmodel(finished, tmp_path):
    _, run = finished
    target = tmp_path / "saved"
    result = run_cli("export", run.path, "--to", "savedmodel", "--output", target)
    assert result.returncode == 0, result.stderr
    import tensorflow as tf

    assert tf.saved_model.load(str(target)).serve(np.zeros((1, 16, 16, 3), np.float32)).shape == (1, 8, 8, 16)
    again = run_cli("export", run.path, "--to", "savedmodel", "--output", target)
    assert again.returncode == 1 and "exists already" in again.stderr


def test_export_to_onnx_computes_the_same(finished, tmp_path):
    import onnxruntime

    from rotnet_keras.engine import keras

    _, run = finished
    target = tmp_path / "rotnet.onnx"
    result = run_cli("export", run.path, "--to", "onnx", "--model", "rotnet", "--output", target)
    assert result.returncode == 0, result.stderr
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(target)
    (ours,) = session.run(None, {session.get_inputs()[0].name: pixels})
    theirs = keras.models.load_model(run.export / "rotnet.keras").predict(pixels, verbose=0)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.slow
def test_the_full_nin_on_the_real_cifar10_falls_and_resumes(tmp_path):
    data = shared_data("tfds")
    arguments = [f"data.data_dir={data}", "train.steps=12", "train.log_every=1", "probe=[]", "--name", "run"]
    process = subprocess.Popen(command("run", "cifar_nin", "train.checkpoint_minutes=0", *arguments), cwd=tmp_path)
    run = run_of(tmp_path, "run")
    wait_for_step(run, 5)
    process.terminate()
    assert process.wait(120) == 143
    assert run_cli("resume", "run", cwd=tmp_path).returncode == 0
    losses = [e["loss"] for e in events_of(run, "step")]
    assert len(losses) == 12 and np.mean(losses[-3:]) < losses[0]
