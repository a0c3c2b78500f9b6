"""Plans: the counted work of a run, and its time from data sheets or from a trial."""

import numpy as np
import pytest
from PIL import Image
from support.command_line import run_cli
from support.tiny import PROBES, TINY_RECIPE, upright_images
from support.tiny_recipes import PROBE, SEGMENTATION, TRANSFERS
from support.voc_kit import COLOURS, make_kit

from rotnet_keras.config.loading import load_recipe
from rotnet_keras.config.sections import Data
from rotnet_keras.errors import DataError, RecipeError, RunError
from rotnet_keras.models.backbones.registry import backbone
from rotnet_keras.models.flops import layer_work
from rotnet_keras.planning import costs
from rotnet_keras.planning.costs import START_AND_END_SECONDS, estimate_costs
from rotnet_keras.planning.hardware import parse_devices
from rotnet_keras.planning.plan import cost_table, plan_notes
from rotnet_keras.planning.roofline import IMAGES_PER_CORE_SECOND, MULTI_DEVICE_EFFICIENCY, phase_seconds
from rotnet_keras.planning.workload import Pass, Phase
from rotnet_keras.runs.study_runs import with_absolute_paths
from rotnet_keras.text import duration


def cost_of(recipe, runs_dir, devices="H100", cores=None, **overrides):
    return next(estimate_costs(load_recipe(recipe, overrides), runs_dir, parse_devices(devices), cores))


@pytest.fixture(autouse=True)
def _no_data(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("text", "machines", "devices", "name"),
    [("H100", 1, 1, "H100"), ("8xh100", 1, 8, "H100"), ("4x8xA100-80", 4, 8, "A100-80"), ("2x1.5TFLOPS", 1, 2, None)],
)
def test_devices_are_parsed_as_machines_by_devices_by_name(text, machines, devices, name):
    cluster = parse_devices(text)
    assert (cluster.machines, cluster.devices, cluster.total) == (machines, devices, machines * devices)
    assert cluster.device.name == name if name else cluster.device.float32_tflops == 1.5


@pytest.mark.parametrize(
    ("text", "hint"), [("8xH10", "'H100'"), ("0xH100", "at least one"), ("0TFLOPS", "at least one"), ("", "8xH100")]
)
def test_unknown_devices_get_an_error_with_the_known_ones(text, hint):
    with pytest.raises(RecipeError, match=hint):
        parse_devices(text)


# Images/s in training ResNet-50 v1.5 on one device: NVIDIA DeepLearningExamples, TensorFlow with XLA.
@pytest.mark.parametrize(
    ("device", "precision", "published"),
    [("V100", "float32", 412), ("V100", "auto", 1270), ("A100", "float32", 909), ("A100", "auto", 2375)],
)
def test_rates_of_resnet50_are_within_18_percent_of_the_published_ones(device, precision, published):
    layers = tuple(layer_work(backbone("resnet50", (224, 224, 3))))
    passes = (Pass(layers, inputs=256_000, training=True, precision=precision),)
    took = phase_seconds(
        Phase("training", 1000, 256, passes, 256_000, shared=True, parameters=23_508_032), parse_devices(device)
    )
    assert 256_000 / took == pytest.approx(published, rel=0.18)


def test_a_pretraining_is_counted_from_its_recipe_without_its_images(runs_dir):
    cost = cost_of("imagenet_alexnet", runs_dir)
    training, evaluation = cost.parts
    # 99 % of 1,281,167 images, 192 a step, four copies of each, for 50 epochs.
    images = 1_281_167 - 12_812
    assert training.steps == 50 * -(-images // 192)
    assert (training.name, training.inputs, training.images) == ("pretraining", 768, training.steps * 192)
    assert training.flop == pytest.approx(3 * 1.42e9 * 768 * training.steps, rel=0.01)
    assert evaluation.images == 50_000 + 50 * 12_812
    assert cost.seconds == pytest.approx(START_AND_END_SECONDS + training.seconds + evaluation.seconds)
    assert cost.read_bytes == pytest.approx(110_000 * (training.images + evaluation.images))
    # Weights, gradients and momentum of 57 million parameters, and the inputs' activations.
    assert 0.7e9 + 3 * 4 * 57e6 < cost.memory_bytes < 8e9
    assert cost.on_paper


def test_no_probes_are_counted_where_the_images_have_no_labels(runs_dir, tmp_path):
    images, labels = upright_images(100)
    for name, arrays in {"plain": {}, "labelled": {"y_train": labels}}.items():
        np.savez(tmp_path / f"{name}.npz", x_train=images, **arrays)
    (tmp_path / "tiny.toml").write_text(TINY_RECIPE.format(data="plain.npz") + PROBES)
    names = {
        name: [part.name for part in cost_of("tiny.toml", runs_dir, **{"data.name": f"{name}.npz"}).parts]
        for name in ("plain", "labelled")
    }
    assert names["plain"] == ["pretraining", "validation and test"]
    assert names["labelled"][:2] == names["plain"] and len(names["labelled"]) > 2
    backbone("compact", (16, 16, 3), blocks=2, width=0.25).save(tmp_path / "backbone.keras")
    (tmp_path / "probe.toml").write_text(PROBE.format(data="plain.npz"))
    with pytest.raises(DataError, match="probes need labelled training and test images"):
        cost_of("probe.toml", runs_dir)


@pytest.mark.long
def test_several_devices_share_the_training_only(runs_dir):
    one, eight = (cost_of("cifar_nin", runs_dir, devices) for devices in ("T4", "8xT4"))
    assert (
        one.parts[0].seconds / 8 / MULTI_DEVICE_EFFICIENCY
        < eight.parts[0].seconds
        < 1.1 * one.parts[0].seconds / 8 / MULTI_DEVICE_EFFICIENCY
    )
    assert eight.parts[1:] == one.parts[1:]
    assert eight.memory_bytes < one.memory_bytes / 2


@pytest.mark.long
def test_few_cores_slow_the_devices_down_unless_images_are_kept_in_memory(runs_dir):
    phase = Phase("training", 10, 256, (), 2560, shared=True, parameters=0)
    assert phase_seconds(phase, parse_devices("2x8xH100"), cores=4, decoded=True) == 2560 / (
        2 * 4 * IMAGES_PER_CORE_SECOND
    )
    fed = cost_of("cifar_nin", runs_dir, cores=1)
    assert fed.parts == cost_of("cifar_nin", runs_dir).parts


def test_a_probe_of_a_backbone_that_is_still_to_be_made_is_planned_from_its_recipe(runs_dir):
    data = {"data.name": "cifar10", "data.size": 32, "augment.crop": 32}
    linear, knn = cost_of("probe", runs_dir, **{"backbone.recipe": "cifar_nin", **data}).parts
    trunks, images = 2, 45_000
    assert linear.steps == trunks * 30 * -(-images // 128)
    # Features of all images, and the way there and back of the heads alone.
    assert linear.images == trunks * 60_000
    assert linear.flop > linear.images * 0.5e9 > knn.flop / 2
    with pytest.raises(RunError, match="no run"):
        cost_of("probe", runs_dir, **{"backbone.run": "nothing", **data})


@pytest.mark.long
def test_a_training_too_large_for_a_device_is_reported_with_a_remedy(runs_dir):
    found = [cost_of("cifar_nin", runs_dir, "T4", **{"train.batch": 2048})]
    assert any("train.accumulate=" in note for note in plan_notes(found, parse_devices("T4")))
    less = cost_of("cifar_nin", runs_dir, "T4", **{"train.batch": 2048, "train.accumulate": 4})
    assert not any("train.accumulate=" in note for note in plan_notes([less], parse_devices("T4")))


def test_missing_images_of_unknown_size_are_reported(runs_dir):
    with pytest.raises(DataError, match="no folder"):
        cost_of("folder", runs_dir, **{"data.name": "/nowhere"})
    with pytest.raises(DataError, match=r"splits\.train"):
        cost_of("imagenet_alexnet", runs_dir, **{"data.splits.train": "trian"})


@pytest.mark.long
def test_a_plan_of_this_machine_times_every_part_of_a_run(tiny_recipe, runs_dir):
    # In float32, which is what the tests around it expect of layers.
    probe = {"head": "mlp", "tap": ["conv1", "conv1+conv2"], "steps": 2}
    (cost,) = estimate_costs(load_recipe(str(tiny_recipe), {"train.precision": "float32", "probe": [probe]}), runs_dir)
    assert [part.name for part in cost.parts] == ["pretraining", "validation and test", "mlp probe"]
    assert all(part.seconds > 0 for part in cost.parts)
    assert cost.read_bytes == 0 and not cost.on_paper


def test_a_plan_of_a_study_lists_its_runs(runs_dir):
    cluster = parse_devices("2x8xH100")
    found = list(estimate_costs(load_recipe("studies/fig4_filters", {}), runs_dir, cluster))
    columns, rows = cost_table(found)
    assert columns[0] == "run" and [row[0] for row in rows] == ["supervised-s0", "blocks4-s0", "total"]
    assert rows[-1][-1] == duration(sum(cost.seconds for cost in found))


@pytest.mark.slow
def test_a_plan_of_a_study_uses_the_backbones_that_its_runs_will_make(runs_dir):
    study = load_recipe("studies/table7_voc", {"scale": "cpu", "scales.cpu.seeds": [0]})
    found = {cost.name: cost for cost in estimate_costs(study, runs_dir, parse_devices("H100"))}
    assert len(found) == 16 and all(cost.seconds > START_AND_END_SECONDS for cost in found.values())
    assert found["supervised-classification-s0"].parts == found["random-classification-s0"].parts


@pytest.mark.long
@pytest.mark.parametrize(
    ("recipe", "steps", "tested"),
    [("voc07_classification", 80_000, 4952), ("voc07_detection", 200_000, 4952), ("voc12_segmentation", 100_000, 1449)],
)
def test_transfers_without_their_images_are_planned_from_published_sizes(recipe, steps, tested, runs_dir):
    cost = cost_of(recipe, runs_dir, **{"backbone.name": "alexnet"})
    training, evaluation = cost.parts
    assert (training.name, training.steps, evaluation.images) == ("training", steps, tested)
    assert cost.on_paper and cost.seconds > training.seconds > 0 and cost.memory_bytes > 1e9


def test_the_cost_of_detection_includes_the_head_of_every_region(runs_dir):
    smaller = {
        "backbone.name": "compact",
        "taps": ["conv2"],
        "after": "conv2",
        "canvas.side": 64,
        "canvas.short": 64,
        "dropout": 0.0,
    }
    few, many = (cost_of("voc07_detection", runs_dir, **smaller, **{"cells": cells}).parts[0].flop for cells in (2, 4))
    assert many > 1.5 * few


@pytest.mark.slow
def test_a_plan_of_this_machine_times_transfers_with_and_without_their_backbone(tmp_path):
    kit = make_kit(tmp_path / "kit", 8)
    (tmp_path / "tiny.toml").write_text(TINY_RECIPE.format(data=kit / "JPEGImages").replace("pad = 2", "pad = 0"))
    (tmp_path / "segmentation.toml").write_text(SEGMENTATION.format(kit=kit, classes=list(COLOURS)))
    (tmp_path / "study.toml").write_text(TRANSFERS)
    study = load_recipe(str(tmp_path / "study.toml"))
    found = {cost.name: cost for cost in estimate_costs(with_absolute_paths(study, tmp_path), tmp_path / "runs")}
    for name in ("pretrained-s0", "random-s0"):
        training, evaluation = found[name].parts
        assert training.seconds > 0 and evaluation.seconds > 0 and training.steps == 4
    assert found["pretrained-s0"].parts[0].flop == found["random-s0"].parts[0].flop > 0, "the same backbone"


@pytest.mark.long
def test_the_command_prints_phases_and_assumptions(runs_dir):
    result = run_cli("plan", "cifar_nin", "--devices", "2x8xH100", cwd=runs_dir.parent)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["phase", "pretraining", "validation", "mlp", "conv"]
    assert "Times are estimates, for 2 machines with 8 x H100." in lines
    assert not result.stderr


def test_of_very_many_files_a_sample_is_decoded(tmp_path, monkeypatch):
    """The counts are those of all images, a fifth of them for tests; of pixels, nothing is kept in the cache."""
    monkeypatch.setenv("ROTNET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(costs, "SAMPLED_ABOVE", 30)
    monkeypatch.setattr(costs, "SAMPLE", 4)
    for number in range(40):
        folder = tmp_path / "images" / "train" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / f"{number:02}.png")
    data = Data(name=str(tmp_path / "images"), size=16, cache="disk")
    costs._load_or_placeholder.cache_clear()
    told = []
    dataset, available = costs._load_or_placeholder(data.model_dump_json(), lambda *each: told.append(each))
    assert told and told[-1][1] == told[-1][2]
    assert available and len(dataset.train) == 32 and len(dataset.train.store) == 4
    assert np.bincount(dataset.train.labels).tolist() == [16, 16]
    assert dataset.train.images([0, 4])[:, 0, 0, 0].tolist() == [0, 0]
    assert not list((tmp_path / "cache").rglob("*.pixels"))
    # Where no decoded images are kept, the trial decodes them as the run does.
    lazy, _ = costs._load_or_placeholder(data.model_copy(update={"cache": "none"}).model_dump_json(), print)
    assert len(lazy.train) == 32 and not isinstance(lazy.train.store, np.ndarray)
