"""Run folders that version 0.1 wrote, before its modules were sorted into packages: `support/old_runs`."""

import shutil
from pathlib import Path

import pytest
from support.command_line import run_cli, run_python
from support.whole_runs import events_of

from rotnet_keras.runs.folder import RunFolder, list_runs

OLD = Path(__file__).parents[1] / "support" / "old_runs"


@pytest.fixture
def old_runs(tmp_path):
    shutil.copytree(OLD, tmp_path / "runs")
    return tmp_path / "runs"


def test_they_are_listed_and_reported(old_runs):
    result = run_cli("runs", "--runs-dir", old_runs)
    assert result.returncode == 0, result.stderr
    assert {run.name: run.state() for run in list_runs(old_runs)} == {"finished": "finished", "stopped": "stopped"}
    assert "finished" in result.stdout and "stopped" in result.stdout
    result = run_cli("report", "finished", "--runs-dir", old_runs)
    assert result.returncode == 0, result.stderr
    report = (old_runs / "finished" / "report.md").read_text(encoding="utf-8")
    for event in events_of(RunFolder(old_runs / "finished"), "probe"):
        assert f"{100 * event['top1']:.1f}" in report
    assert "random" in report and "pixels" in report


def test_a_stopped_one_is_resumed_to_its_end(old_runs):
    run = RunFolder(old_runs / "stopped")
    before = events_of(run, "step")
    result = run_cli("resume", "stopped", "--runs-dir", old_runs)
    assert result.returncode == 0, result.stdout + result.stderr
    assert run.state() == "finished"
    # What was done before is kept, and the training goes on after it.
    steps = events_of(run, "step")
    assert steps[: len(before)] == before and steps[-1]["step"] == 60
    assert {(event["weights"], event["tap"]) for event in events_of(run, "probe")} >= {
        ("rotnet", "conv1"),
        ("random", "conv1"),
        ("rotnet", "conv2"),
    }


def test_their_exports_are_converted_and_compute_what_they_did(old_runs):
    result = run_cli("export", "finished", "--to", "savedmodel", "--runs-dir", old_runs)
    assert result.returncode == 0, result.stderr
    code = """
import sys
import keras, numpy as np, tensorflow as tf
folder = sys.argv[1]
model = keras.models.load_model(folder + "/export/backbone.keras")
images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1)).astype("float32")
served = tf.saved_model.load(folder + "/export/backbone.savedmodel").serve(images)
print(float(np.abs(np.asarray(served) - model(images).numpy()).max()))
"""
    assert float(run_python(code, old_runs / "finished").split()[-1]) < 1e-4
