"""Probes, within a run and by themselves."""

import re

import numpy as np
import pytest
from support.command_line import invoke
from support.tiny import PROBES
from support.whole_runs import assert_same_end, events_of, start

from rotnet_keras.config.finder import recipes_dir


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


def test_a_probe_without_its_backbone_is_refused_before_a_run_folder_is_made(tmp_path):
    arguments = ["data.name=fashion_mini", f"backbone.file={tmp_path}/none.keras"]
    recipe = tmp_path / "probe.toml"
    recipe.write_text((recipes_dir() / "probe.toml").read_text().replace('run = "NAME"', ""))
    result = invoke("run", recipe, *arguments, cwd=tmp_path)
    assert result.returncode == 3 and "none.keras" in result.stderr and not (tmp_path / "runs").exists()


def test_probes_of_unlabelled_images_are_refused_before_training(tmp_path, tiny_recipe, tiny_data):
    with np.load(tiny_data) as arrays:
        np.savez(tmp_path / "plain.npz", images=arrays["x_train"])
    tiny_recipe.write_text(tiny_recipe.read_text() + PROBES)
    result, run = start(tiny_recipe, f"data.name={tmp_path}/plain.npz")
    assert result.returncode == 3 and "probes need labelled" in result.stdout
    assert not events_of(run, "step")
