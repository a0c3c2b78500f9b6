"""The shipped studies with the paper's networks, on less data and for fewer steps."""

import pytest
from command_line import run_cli
from conftest import shared_data

from rotnet_keras.catalogue import describe, shipped_recipes
from rotnet_keras.recipe import load_recipe

STUDIES = [name for name, path in shipped_recipes().items() if describe(path)[0] == "study"]
LARGE = ["studies/table4_imagenet", "studies/table5_imagenet", "studies/table6_places", "studies/table7_voc"]


def runs_at_full_scale(name):
    """The key of every run of a study, and its recipe."""
    study = load_recipe(name)
    for number, run in enumerate(study.run):
        recipe = load_recipe(study.scales["full"].recipes[run.recipe])
        yield f"run.{number}.set", recipe, run.set.get("probe", getattr(recipe, "probe", []))


def a_few_hundred_steps(name):
    for run, recipe, probes in runs_at_full_scale(name):
        if recipe.kind != "probe":
            yield from (f"{run}.train.steps=200", f"{run}.train.batch=16")
        if probes:
            yield f"{run}.probe.0.steps=200"


def a_few_steps(name):
    """Few steps on few pictures of the data sets that stand in for ImageNet and Places205."""
    parts = {
        "imagenet2012": {"train": "train[:64]", "validation": "train[64:96]", "test": "validation[:32]"},
        "voc/2007": {"train": "train[:16]", "test": "test[:8]"},
    }
    places = {"places205": "scenes15", "VOCdevkit/VOC2012": "VOCdevkit/VOC2012"}
    for run, recipe, probes in runs_at_full_scale(name):
        data = recipe.data.name
        if data in parts:
            yield f"{run}.data.data_dir={shared_data('tfds')}"
            yield from (f"{run}.data.splits.{split}={part!r}" for split, part in parts[data].items())
        else:
            yield f"{run}.data.name={shared_data(places[data])}"
        if recipe.kind != "probe":
            yield from (f"{run}.train.steps=2", f"{run}.train.batch=4")
        if hasattr(recipe, "canvas"):
            yield f"{run}.canvas.side=192"
        for number in range(len(probes)):
            yield from (f"{run}.probe.{number}.steps=2", f"{run}.probe.{number}.batch=8")


def run_twice(name, runs_dir, changes):
    """A study, and again, when nothing is left to be done."""
    command_line = ("run", name, "--runs-dir", runs_dir, *changes)
    result = run_cli(*command_line, timeout=3600)
    assert result.returncode == 0, result.stdout + result.stderr
    again = run_cli(*command_line, timeout=600)
    assert again.returncode == 0
    assert again.stdout.count("which is finished already") == len(load_recipe(name).run)


@pytest.fixture(scope="module")
def runs_of_all(tmp_path_factory):
    return tmp_path_factory.mktemp("studies")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in STUDIES if name not in LARGE])
def test_the_papers_studies_of_cifar_run_at_full_size(name, runs_of_all):
    splits = "set.data.splits={train='train[:20000]', test='test[:500]'}"
    data_dir = f"set.data.data_dir={shared_data('tfds')}"
    run_twice(name, runs_of_all, [data_dir, splits, *a_few_hundred_steps(name)])


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_the_papers_larger_studies_run_on_a_few_pictures(name, runs_of_all):
    run_twice(name, runs_of_all, a_few_steps(name))
