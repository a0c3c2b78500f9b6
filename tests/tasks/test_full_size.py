"""The shipped recipes and studies with their full-size models, on less data and for fewer steps."""

import pytest
from support.command_line import run_cli
from support.smaller import FEW
from support.tiny import shared_data

from rotnet_keras.config.finder import kind_and_title, shipped_recipes
from rotnet_keras.config.loading import load_recipe

STUDIES = {name: load_recipe(name) for name, path in shipped_recipes().items() if kind_and_title(path)[0] == "study"}
# Studies beyond the paper are made for two cores, and have no larger scale.
SMALL = [name for name, study in STUDIES.items() if "full" not in study.scales]
LARGE = ["studies/table4_imagenet", "studies/table5_imagenet", "studies/table6_places", "studies/table7_voc"]


FOLDERS = {"places205": "scenes15", "scenes": "scenes15", "VOCdevkit/VOC2012": "VOCdevkit/VOC2012"}


def few_images(recipe):
    """Overrides that give a recipe a few of the shared images."""
    name = recipe.data.name
    if name not in FEW:
        yield f"data.name={shared_data(FOLDERS[name])}"
        return
    yield f"data.data_dir={shared_data('tfds')}"
    yield from (f"data.splits.{split}={part!r}" for split, part in FEW[name].items())


def runs_of_study(name):
    """The key of every run of a study at its largest scale, its recipe and its probes."""
    study = STUDIES[name]
    scale = study.scales["cpu" if name in SMALL else "full"]
    for number, run in enumerate(study.run):
        recipe = load_recipe(scale.recipes[run.recipe])
        yield f"run.{number}.set", recipe, run.set.get("probe", getattr(recipe, "probe", []))


def some_steps(name):
    for run, recipe, probes in runs_of_study(name):
        if recipe.kind != "probe":
            yield from (f"{run}.train.steps=20", f"{run}.train.batch=16")
        if probes:
            yield f"{run}.probe.0.steps=20"


def a_few_steps(name):
    for run, recipe, probes in runs_of_study(name):
        yield from (f"{run}.{change}" for change in few_images(recipe))
        if recipe.kind != "probe":
            yield from (f"{run}.train.steps=2", f"{run}.train.batch=4")
        if recipe.kind == "classify":
            yield f"{run}.head.labels_per_class=1"
        if hasattr(recipe, "canvas"):
            yield f"{run}.canvas.side=192"
            if recipe.canvas.short:
                yield f"{run}.canvas.short=112"
        for number in range(len(probes)):
            yield from (f"{run}.probe.{number}.steps=2", f"{run}.probe.{number}.batch=8")


def run_twice(name, runs_dir, changes):
    """Run a study twice; the second time all its runs are finished."""
    command_line = ("run", name, "--runs-dir", runs_dir, *changes)
    result = run_cli(*command_line, timeout=3600)
    assert result.returncode == 0, result.stdout + result.stderr
    again = run_cli(*command_line, timeout=600)
    assert again.returncode == 0
    assert again.stdout.count("already finished") == len(STUDIES[name].run)


@pytest.fixture(scope="module")
def runs_of_all(tmp_path_factory):
    return tmp_path_factory.mktemp("studies")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in STUDIES if name not in (*LARGE, *SMALL)])
def test_the_papers_studies_of_cifar_run_at_full_size(name, runs_of_all):
    # One of them has 1,000 labels of each class.
    count = 20_000 if name == "studies/fig5b_labels" else 3000
    splits = f"set.data.splits={{train='train[:{count}]', test='test[:500]'}}"
    data_dir = f"set.data.data_dir={shared_data('tfds')}"
    run_twice(name, runs_of_all, [data_dir, splits, *some_steps(name)])


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_the_papers_larger_studies_run_on_a_few_images(name, runs_of_all):
    run_twice(name, runs_of_all, a_few_steps(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_the_studies_beyond_the_paper_run_on_a_few_images(name, runs_of_all):
    run_twice(name, runs_of_all, ["scales.cpu.seeds=[0]", *a_few_steps(name)])


@pytest.mark.slow
def test_recipes_that_are_in_no_study_run_on_a_few_images(tmp_path):
    two_steps = ["train.steps=2", "train.batch=8"]
    one_label = [*two_steps, "head.labels_per_class=1"]
    # The first is what all but two of the others begin with.
    for name, *changes in [
        ("imagenet_resnet50", *two_steps),
        ("imagenet_resnet50_linear", "probe.0.steps=2", "probe.0.batch=8"),
        ("imagenet_labels", *one_label),
        ("voc07_retinanet", *two_steps, "canvas.side=256"),
        ("voc12_deeplab", *two_steps, "canvas.side=192"),
        ("imagenet_resnet50v2_wide", *two_steps),
        ("imagenet_s4l", *one_label, "auxiliary.batch=8"),
        ("imagenet_alexnet_paper", *two_steps),
        ("places205_alexnet", *two_steps),
    ]:
        changes += few_images(load_recipe(name))
        result = run_cli("run", name, "--runs-dir", tmp_path, *changes, timeout=1200)
        assert result.returncode == 0, f"{name}: {result.stdout}{result.stderr}"
