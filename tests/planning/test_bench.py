import json
import sys

import pytest
from support.command_line import invoke, run_cli

from rotnet_keras.engine import keras
from rotnet_keras.models.backbones.registry import backbone
from rotnet_keras.models.flops import forward_gflop
from rotnet_keras.planning.bench import data, memory, probes, registry, training

TINY = {
    "backbone": "compact",
    "blocks": 2,
    "width": 0.25,
    "batch": 4,
    "rounds": 2,
    "precision": "float32",
    "round_seconds": 0.1,
}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(training, "MAX_IMAGES", 64)
    monkeypatch.setattr(data, "ROUND_SECONDS", 0.1)
    monkeypatch.setattr(data, "CACHED_IMAGES", 256)
    monkeypatch.setattr(data, "JPEG_FILES", 6)
    monkeypatch.setattr(memory, "FEW_FILES", 5)
    monkeypatch.setattr(memory, "MANY_FILES", 20)
    monkeypatch.setattr(memory, "BATCHES", 2)
    monkeypatch.setattr(probes, "EXTRACTED_IMAGES", 128)
    monkeypatch.setattr(probes, "STEPS", 2)


def measured(parts, say=lambda text: None, **settings):
    found = registry.measure(parts, registry.Settings(**{**TINY, **settings}), say)
    json.dumps(found)
    assert found["settings"]["batch"] == 4 and found["machine"]["cpus"] > 0
    return {one["name"]: one for one in found["measurements"]}


@pytest.mark.slow
def test_training_is_compared_with_the_peak_and_another_program(tmp_path):
    program = tmp_path / "other.py"
    program.write_text("print('starting'); print('{\"rotated_images_per_s\": 50.0}')")
    lines = []
    found = measured(["training"], lines.append, against=f"{sys.executable} {program}")
    assert sum(line.startswith("training, round 2 of 2: ") for line in lines) == 4
    values = {name: one["value"] for name, one in found.items()}
    step = found["step of compact with 2 blocks, batch 4, float32"]
    assert len(step["values"]) == 2 and step["unit"] == "rotated images/s"
    gflop = values["forward and backward, counted from the layers"]
    assert values["arithmetic"] == pytest.approx(gflop * step["value"], rel=1e-2)
    assert 0 < values["share of the matrix product"] < 1
    assert 0 <= values["waiting for data"] <= 100
    assert values["rotnet-keras relative to that command"] == pytest.approx(step["value"] / 50, rel=1e-2)


def test_arithmetic_is_counted_from_the_layers():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(5, 3, strides=2, padding="same")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(7)(keras.layers.Flatten()(x)))
    assert forward_gflop(model) * 1e9 == 2 * (4 * 4 * 5 * 3 * 3 * 3 + 4 * 4 * 5 * 7)
    # 1.50 GFLOP forward and backward is what the paper's network takes for an image.
    assert 3 * forward_gflop(backbone("nin", blocks=4)) == pytest.approx(1.504, abs=1e-3)


@pytest.mark.slow
def test_data_and_probes_are_measured():
    found = measured(["data", "probes"])
    assert found["pipeline relative to the Pillow loop"]["value"] > 0
    assert found["features of all taps, computed and stored"]["value"] > 0
    assert found["non-linear probes on all taps, from stored features"]["value"] > 0


@pytest.mark.slow
def test_memory_is_measured():
    found = measured(["memory"])
    assert found["60,000 cached images of 32 x 32"]["value"] > 184
    assert sum("growth from 5 to 20 image files" in name for name in found) == 2


@pytest.mark.slow
def test_the_command_measures_the_start_of_commands():
    found = json.loads(run_cli("bench", "startup", "--rounds", "1", "--json").stdout)
    names = [one["name"] for one in found["measurements"]]
    assert names == ["rotnet-keras --help", "rotnet-keras recipes", "rotnet-keras runs"]
    columns, rows = registry.as_table(found)
    assert columns[:3] == ["part", "what", "median"] and [row[1] for row in rows] == names


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trainning"], "did you mean 'training'"),
        (["--backbone", "nim"], "did you mean 'nin'"),
        (["--precision", "float64"], "expected one of auto, float32"),
    ],
)
def test_unknown_parts_backbones_and_precisions_are_refused(arguments, expected):
    result = invoke("bench", *arguments)
    assert result.returncode == 2 and expected in result.stderr


@pytest.mark.slow
def test_a_command_without_the_expected_output_is_named():
    with pytest.raises(Exception, match="rotated_images_per_s from: echo hello"):
        measured(["training"], against="echo hello")


def test_each_value_is_printed_when_it_is_known_and_the_time_left_after_each_round(monkeypatch):
    clock = iter([100.0, 104.0, 108.0])
    monkeypatch.setattr(registry.time, "perf_counter", lambda: next(clock))
    lines = []
    progress = registry.Progress("training", 3, lines.append)
    progress.next_round()
    assert progress.value("step", 812.34, "rotated images/s") == 812.34
    assert lines == ["training, round 1 of 3: step, 812.3 rotated images/s"]
    progress.next_round()
    progress.next_round()
    assert lines[1:] == ["training: round 1 of 3 done, ETA 8 s", "training: round 2 of 3 done, ETA 4 s"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--quick"], (["training"], 2, 2.0, 32)),
        (["--quick", "--batch", "64", "--rounds", "3"], (["training"], 3, 2.0, 64)),
        (["--quick", "probes"], (["probes"], 2, 2.0, 32)),
        (["training"], (["training"], 5, 8.0, 128)),
    ],
)
def test_quick_is_two_short_rounds_of_training(monkeypatch, arguments, expected):
    seen = []

    def measure(parts, settings, say):
        seen.append((parts, settings.rounds, settings.round_seconds, settings.batch))
        return {"measurements": []}

    monkeypatch.setattr(registry, "measure", measure)
    assert invoke("bench", *arguments, "--json").returncode == 0
    assert seen == [expected]
