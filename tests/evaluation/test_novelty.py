"""Pretraining on some classes, and how well the rotations tell test images of the others: `data.only`."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image
from support.command_line import invoke
from support.tiny import upright_images
from support.whole_runs import events_of, start

from rotnet_keras.config.loading import load_recipe, to_toml
from rotnet_keras.errors import DataError
from rotnet_keras.reports.study_results import result_grids
from rotnet_keras.runs.launch import create_run, load_for_run

STUDY = """
kind = "study"
title = "two classes"
scale = "cpu"
[scales.cpu]
note = "small"
seeds = [0, 1]
recipes = { one = "quickstart" }
[[run]]
name = "cat"
recipe = "one"
set = { data.only = ["cat"] }
[[run]]
name = "dog"
recipe = "one"
set = { data.only = ["dog"] }
[[table]]
title = "AUROC"
mean = "mean"
entry = [
    { row = "cat", run = "cat", novelty = "probabilities", column = "mean probability" },
    { row = "cat", run = "cat", novelty = "logarithms" },
    { row = "dog", run = "dog", novelty = "probabilities", column = "mean probability" },
    { row = "mean", column = "mean probability", paper = { "mean probability" = 90.1 } },
    { row = "rotations", run = "cat", column = "accuracy" },
]
"""


@dataclass
class BrightSide:
    """A model that looks for the bright side of an image, which lies at the top before the rotation."""

    angles: tuple[int, ...] = (0, 90, 180, 270)

    def predict_on_batch(self, images):
        """Logits (N, 4): how bright the top, the left, the bottom and the right are."""
        pixels = np.asarray(images, np.float32) / 255
        half = pixels.shape[1] // 2
        sides = pixels[:, :half], pixels[:, :, :half], pixels[:, half:], pixels[:, :, half:]
        return 20 * np.stack([side.mean(axis=(1, 2, 3)) for side in sides], axis=1)


@pytest.fixture
def some_upright(tmp_path):
    """A data set whose classes "0" and "2" have a bright top; images of the others are upside down or even."""
    images, labels = upright_images(80, seed=4)
    images[labels == 1] = images[labels == 1, ::-1]
    images[labels == 3] = 100
    np.savez(tmp_path / "some.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    return tmp_path / "some.npz"


def load_some(path, only):
    from rotnet_keras.config.sections import Data
    from rotnet_keras.data.datasets import load

    return load(Data(name=str(path), only=only, validation=0.2))


def test_only_the_named_classes_are_trained_on(some_upright):
    dataset, whole = load_some(some_upright, ["2", "0"]), load_some(some_upright, None)
    for name in ("train", "validation"):
        ours, theirs = getattr(dataset, name), getattr(whole, name)
        assert ours.rows.tolist() == theirs.rows[np.isin(theirs.labels, [0, 2])].tolist() and len(ours) < len(theirs)
    assert dataset.test.rows.tolist() == whole.test.rows.tolist()
    assert dataset.class_names == whole.class_names == ["0", "1", "2", "3"]
    assert not any("classes have no training images" in note for note in dataset.notes)
    with pytest.raises(DataError, match=r"data.only: no class is called '7'.* there are 0, 1, 2, 3"):
        load_some(some_upright, ["0", "7"])


def test_images_whose_rotations_are_predicted_badly_are_told_from_the_others(some_upright):
    from rotnet_keras.config.sections import Augment
    from rotnet_keras.evaluation.novelty import measure_novelty

    dataset = load_some(some_upright, ["0", "2"])
    found = measure_novelty(dataset, ["0", "2"], BrightSide(), Augment(), 7)
    known = int(np.isin(dataset.test.labels, [0, 2]).sum())
    assert (found["images"], found["known"], found["classes"]) == (80, known, ["0", "2"])
    assert found["auroc"] == found["auroc_log"] == 1
    # Those that are upside down are never predicted correctly; even ones are guessed.
    turned = measure_novelty(dataset, ["1"], BrightSide(), Augment(), 80)
    assert turned["auroc"] < 0.1
    assert measure_novelty(dataset, ["0", "1", "2", "3"], BrightSide(), Augment(), 80) is None


def test_a_study_has_the_means_of_its_columns(runs_dir, tmp_path):
    (tmp_path / "study.toml").write_text(STUDY)
    recipe, facts = load_for_run("study.toml", {}, runs_dir)
    run = create_run(runs_dir, "study", to_toml(recipe), {**facts, "steps": 4})

    def lines(*values):
        for number, (name, seed, auroc) in enumerate(values, 1):
            measures = [
                {"value": 0.25},
                {"novelty": "probabilities", "value": auroc},
                {"novelty": "logarithms", "value": auroc - 0.1},
            ]
            about = {"kind": "run", "time": 1.0, "step": number, "folder": f"{name}-s{seed}", "seconds": 1.0}
            yield json.dumps({**about, "name": name, "seed": seed, "measures": measures}) + "\n"

    run.events_file.write_text("".join(lines(("cat", 0, 0.6), ("dog", 0, 0.8), ("cat", 1, 0.7))))
    (grid,) = result_grids(run)
    cells = {key: cell.values for key, cell in grid.cells.items()}
    assert cells["cat", "mean probability"] == pytest.approx({0: 60, 1: 70})
    assert cells["cat", "AUROC"] == pytest.approx({0: 50, 1: 60})
    # The rows without a value in a column leave its mean open.
    assert cells["mean", "mean probability"] == {} and grid.cells["mean", "mean probability"].paper == 90.1
    values = recipe.model_dump()
    assert values["table"][0]["mean"] == "mean"


def test_the_mean_is_that_of_the_seeds_that_all_rows_have(runs_dir, tmp_path):
    shorter = STUDY.replace('    { row = "rotations", run = "cat", column = "accuracy" },\n', "")
    (tmp_path / "study.toml").write_text(shorter)
    recipe, facts = load_for_run("study.toml", {}, runs_dir)
    run = create_run(runs_dir, "study", to_toml(recipe), {**facts, "steps": 4})
    events = [
        {"name": name, "seed": seed, "measures": [{"novelty": "probabilities", "value": value}]}
        for name, seed, value in (("cat", 0, 0.6), ("dog", 0, 0.8), ("cat", 1, 0.7))
    ]
    about = {"kind": "run", "time": 1.0, "step": 1, "folder": "x", "seconds": 1.0}
    run.events_file.write_text("".join(json.dumps({**about, **event}) + "\n" for event in events))
    (grid,) = result_grids(run)
    assert grid.cells["mean", "mean probability"].values == pytest.approx({0: 70})
    assert grid.as_text()[2][-1] == ["mean", "70.0 (90.1)"]


def test_the_shipped_study_trains_each_class_once_for_each_task():
    recipe = load_recipe("studies/one_class")
    classes = {}
    for run in recipe.run:
        task = "translations" if run.set.get("rotation") == {"translation": 8} else "rotations"
        (name,) = run.set["data"]["only"]
        assert run.name == f"{task}-{name}"
        classes.setdefault(task, set()).add(name)
    assert classes["rotations"] == classes["translations"] and len(classes["rotations"]) == 10
    assert {entry.run for entry in recipe.table[0].entry} == {run.name for run in recipe.run}


def test_only_pretraining_leaves_classes_out(tmp_path):
    result = invoke(
        "run", "finetune", 'data.only=["cat"]', "data.name=x", "pretrained.run=airbench4_photos", "--dry-run"
    )
    assert result.returncode == 2 and "only: for recipes of the kind 'pretrain'" in result.stderr


@pytest.mark.slow
def test_a_run_on_one_class_measures_the_others_once(tiny_recipe):
    result, run = start(tiny_recipe, 'data.only=["3"]', "train.steps=6", "features.images=0")
    assert result.returncode == 0, run.log.read_text()
    (event,) = events_of(run, "novelty")
    assert event["images"] == 40 and 0 < event["known"] < 40 and 0 <= event["auroc"] <= 1
    assert run.facts()["steps_per_epoch"] < 5 and run.facts()["data"]["train"] < 80
    report = (run.path / "report.md").read_text()
    assert "AUROC on test, %: images of 3 against those of other classes" in report
    again = invoke("status", run.path, "--json")
    assert again.returncode == 0


def test_a_class_that_is_not_there_is_refused_at_once(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "images" / name / "0.png")
    result = invoke("run", "quickstart", f"data.name={tmp_path}/images", 'data.only=["cot"]', cwd=tmp_path)
    assert result.returncode == 3 and "no class is called 'cot'; did you mean 'cat'?" in result.stderr
    assert "there are cat, dog" in result.stderr and not (tmp_path / "runs").exists()
