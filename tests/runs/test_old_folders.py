"""Run folders that version 0.1 wrote, before its modules were sorted into packages: `support/old_runs`."""

import shutil
from pathlib import Path

import pytest
from support.command_line import invoke, run_cli, run_python
from support.whole_runs import events_of

from rotnet_keras.config.loading import load_recipe
from rotnet_keras.runs.folder import RunFolder, list_runs
from rotnet_keras.runs.study_runs import find_matching_run

OLD = Path(__file__).parents[1] / "support" / "old_runs"


@pytest.fixture
def old_runs(tmp_path):
    shutil.copytree(OLD, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.mark.long
def test_they_are_listed_and_reported(old_runs):
    result = invoke("runs", "--runs-dir", old_runs)
    assert result.returncode == 0, result.stderr
    assert {run.name: run.state() for run in list_runs(old_runs)} == {"finished": "finished", "stopped": "stopped"}
    assert "finished" in result.stdout and "stopped" in result.stdout
    result = invoke("report", "finished", "--runs-dir", old_runs)
    assert result.returncode == 0, result.stderr
    report = (old_runs / "finished" / "report.md").read_text(encoding="utf-8")
    for event in events_of(RunFolder(old_runs / "finished"), "probe"):
        assert f"{100 * event['top1']:.1f}" in report
    assert "random" in report and "pixels" in report


def test_they_are_found_by_the_recipe_that_they_were_made_with(old_runs):
    run = RunFolder(old_runs / "finished")
    text = run.recipe.read_text(encoding="utf-8")
    assert "controls = " in text
    renamed = old_runs / "renamed.toml"
    renamed.write_text(text.replace("controls = ", "baselines = "), encoding="utf-8")
    recipe = load_recipe(renamed)
    assert recipe.probe[0].baselines == ["random", "pixels"]
    assert find_matching_run(recipe, list_runs(old_runs)).name == "finished"
    assert "old name" not in invoke("report", "finished", "--runs-dir", old_runs).stderr
    report = (run.path / "report.md").read_text(encoding="utf-8")
    assert "baselines = " in report and "controls = " not in report


@pytest.mark.long
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


@pytest.mark.long
def test_their_exports_are_converted_and_compute_what_they_did(old_runs):
    result = run_cli("export", "finished", "--to", "savedmodel", "--runs-dir", old_runs)
    assert result.returncode == 0, result.stderr
    code = """
import sys
import keras, numpy as np, tensorflow as tf
folder = sys.argv[1]
model = keras.models.load_model(folder + "/export/backbone.keras")
images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1)).astype("float32")
loaded = tf.saved_model.load(folder + "/export/backbone.savedmodel")
print(float(np.abs(np.asarray(loaded.serve(images)) - model(images).numpy()).max()))
"""
    assert float(run_python(code, old_runs / "finished").split()[-1]) < 1e-4
