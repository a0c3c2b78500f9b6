"""Whole runs through the command line, on tiny data."""

import json
import os

import numpy as np
import pytest
from support.command_line import invoke, run_python
from support.precision import needs_bfloat16
from support.whole_runs import events_of, start


def test_a_run_leaves_all_its_files(finished):
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


def test_pretraining_learns_and_records_its_progress(finished):
    _, run = finished
    epochs = events_of(run, "epoch")
    assert len(epochs) == 3 and epochs[-1]["step"] == 30
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    validation = epochs[-1]["validation"]
    confusion = np.array(validation["confusion"])
    assert confusion.shape == (4, 4) and (confusion.sum(axis=1) == 40).all()
    assert validation["accuracy"] == pytest.approx(np.trace(confusion) / 160)
    assert validation["accuracy"] > 0.5
    assert sum(np.sum(event["confusion"]) for event in events_of(run, "test")) == 160
    assert all(0 <= event["data_wait"] <= 1 for event in events_of(run, "step"))


def test_every_epoch_writes_samples_and_filters(finished):
    _, run = finished
    samples = events_of(run, "samples")
    assert [event["step"] for event in samples] == [10, 20, 30]
    for event in samples:
        assert event["filters"] == f"filters-{event['step']:08d}.png"
        for name in (event["file"], event["filters"]):
            assert (run.samples / name).stat().st_size > 0


def test_the_report_is_one_file_with_tables_and_figures(finished):
    _, run = finished
    page = (run.path / "report.html").read_text()
    # A run of a minute has a figure of the machine's load, too.
    machine = (run.figures / "system.png").is_file()
    assert page.count("data:image/png;base64,") == 7 + machine and "http" not in page
    for text in ("Rotation accuracy, %", "linear probe, all labels", "random weights", "raw pixels"):
        assert text in page
    assert "![Curves](figures/curves.png)" in (run.path / "report.md").read_text()


@pytest.mark.long
def test_a_diverging_loss_stops_the_run_and_says_how_to_go_on(tiny_recipe):
    result, run = start(tiny_recipe, "optimizer.learning_rate=1e30", "schedule.name=constant")
    assert result.returncode == 1 and run.state() == "failed"
    message = events_of(run, "end")[0]["message"]
    assert "Traceback" not in result.stdout
    assert "last good checkpoint" in message or "no checkpoint yet" in message
    assert "optimizer.learning_rate=" in message


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            [
                *("rotation.angles=[0, 45, 90, 135, 180, 225, 270, 315]", "train.tensorboard=true", "train.batch=40"),
                *("train.label_smoothing=0.1", "train.precision=mixed_bfloat16"),
                'probe=[{head = "linear", steps = 2, every = 1}]',
            ],
            marks=needs_bfloat16,
        ),
        [
            *("rotation.copies=one", "rotation.angles=[90, 270]", "train.precision=mixed_float16"),
            *("backbone.name=nin", "optimizer.name=adamw", "data.validation=0"),
        ],
        [
            *("optimizer.name=muon", "optimizer.ema=0.5", "train.precision=mixed_float16", "train.accumulate=2"),
            *("backbone.name=airbench", "backbone.activation=silu"),
        ],
        pytest.param(
            [
                "optimizer.name=muon",
                "optimizer.kernel_rate=0.02",
                "backbone.name=airbench",
                "backbone.activation=silu",
                "train.precision=mixed_bfloat16",
                "devices.replicas=2",
            ],
            marks=needs_bfloat16,
        ),
    ],
)
def test_the_variants_train_and_export(tiny_recipe, options):
    result, run = start(tiny_recipe, "train.steps=7", *options)
    assert result.returncode == 0, run.log.read_text()
    angles = json.loads(invoke("show", run.recipe, "--json").stdout)["rotation"]["angles"]
    from rotnet_keras.engine import keras

    model = keras.models.load_model(run.backbone)
    assert model.input.shape[1:] == (16, 16, 3)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert all(np.isfinite(w).all() for w in model.get_weights())
    assert len(events_of(run, "test")[0]["confusion"]) == len(angles)
    asked = [o.split("=")[1] for o in options if o.startswith("train.precision")]
    assert run.facts()["precision"] in (asked or ["float32", "mixed_bfloat16"])
    assert (run.path / "tensorboard").is_dir() == ("train.tensorboard=true" in options)


@pytest.mark.long
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
    (photos / "notes.txt").touch()
    (photos / "cut.jpg").write_bytes((photos / "0.jpg").read_bytes()[:300])
    # Names that would clear the screen, and that are no text.
    (photos / "\x1b[2Jescape.jpg").touch()
    (photos / os.fsdecode(b"\xff.jpg")).touch()
    result, run = start(tiny_recipe, f"data.name={photos}", "data.size=16", "train.steps=2", "train.batch=64")
    assert result.returncode == 0, result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    for said in (
        "layout: images in no folder",
        "splits: 35 train",
        "classes: none: no folder for each class",
        "channels: colour",
        "values: 8 bits",
        "left out: 1 files are no images: 1 .txt",
    ):
        assert said in lines, result.stdout
    warning, few = [e["message"] for e in events_of(run, "warning")]
    images = run.facts()["data"]["train"]
    assert few == (f"train.batch is 64, but there are only {images} training images: every step uses all of them")
    assert warning.startswith("5 of 35 train files") and all(n in warning for n in ("empty", "text", "cut", "escape"))
    assert "[2Jescape.jpg" in result.stdout and "\x1b" not in result.stdout + run.log.read_text()
    assert all("\x1b" not in (run.path / name).read_text() for name in ("report.md", "report.html"))


@pytest.mark.long
def test_from_python(tmp_path, tiny_recipe):
    code = """
import sys, rotnet_keras
run = rotnet_keras.run(sys.argv[1], name="mine", runs_dir=sys.argv[2], train={"steps": 2})
assert run.state() == "finished" and run.backbone.is_file()
"""
    run_python(code, tiny_recipe, tmp_path / "runs")


def test_compare_prints_json(finished):
    _, run = finished
    rows = json.loads(invoke("compare", run.path, run.path, "--json").stdout)
    assert {"": "state", str(run.path): "finished"} in rows
    assert any(row[""] == "rotation accuracy, test" for row in rows)
