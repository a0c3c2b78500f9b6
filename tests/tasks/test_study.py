"""Studies: many runs, each made once, and the tables that they fill."""

import itertools
import json
import math
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.command_line import command, invoke, run_cli
from support.tiny import TINY_RECIPE
from support.tiny_recipes import PROBE, SEGMENTATION, STUDY, TRANSFERS
from support.voc_kit import COLOURS, make_kit
from support.whole_runs import events_of, run_of, wait_for

from rotnet_keras.config.loading import load_recipe, to_toml
from rotnet_keras.errors import RecipeError
from rotnet_keras.runs.folder import list_runs
from rotnet_keras.runs.launch import create_run, load_for_run
from rotnet_keras.runs.study_runs import planned_runs
from rotnet_keras.tasks.study.study import _shares_of_time
from rotnet_keras.text import duration

FIGURES = """
[[picture]]
kind = "filters"
title = "First-layer filters"
models = { RotNet = "rotnet" }

[[picture]]
kind = "turning"
title = "Attention maps of the four copies"
models = { RotNet = "rotnet" }
taps = ["conv1"]
powers = [2.0]
"""


@pytest.fixture
def study(tmp_path, tiny_data):
    (tmp_path / "tiny.toml").write_text(TINY_RECIPE.format(data=tiny_data))
    (tmp_path / "probe.toml").write_text(PROBE.format(data=tiny_data))
    path = tmp_path / "study.toml"
    path.write_text(STUDY + FIGURES)
    return path


@pytest.mark.long
def test_a_study_makes_missing_runs_and_fills_its_tables(study):
    result = run_cli("run", study, "scale=cpu", "--name", "study", cwd=study.parent)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 of 2 runs are missing. They take about" in result.stdout
    runs = {run.name: run for run in list_runs(study.parent / "runs")}
    assert set(runs) == {"study", "rotnet-s0", "probe-s0"}
    assert {run.state() for run in runs.values()} == {"finished"}
    estimated = runs["study"].facts()["run_seconds"]
    assert set(estimated) == {"rotnet-s0", "probe-s0"} and min(estimated.values()) > 0
    top1 = {(e["weights"], e["tap"]): 100 * e["top1"] for e in events_of(runs["probe-s0"], "probe")}
    rotation = 100 * events_of(runs["rotnet-s0"], "test")[0]["accuracy"]
    report = (runs["study"].path / "report.md").read_text()
    assert f"| RotNet | {top1['rotnet', 'conv1']:.1f} (85.07) | {top1['rotnet', 'conv2']:.1f} |" in report
    assert f"| rotation |  | {rotation:.1f} (91.73) |" in report
    difference = top1["rotnet", "conv2"] - top1["random", "conv2"]
    assert f"RotNet, conv2 over random, conv2: {difference:+.1f}" in report
    assert "two steps" in report and str(study.parent) not in report
    seconds = sum(event["seconds"] for event in events_of(runs["study"], "run"))
    assert seconds > 2 and f"| time of all runs | {duration(seconds)} |" in report
    for stem, suffix in itertools.product(("table-1", "picture-0", "picture-1"), (".png", ".svg")):
        assert (runs["study"].figures / f"{stem}{suffix}").stat().st_size > 0
    filters, picture = events_of(runs["study"], "picture")
    assert filters["scores"] == {} and set(picture["scores"]) == {"RotNet, conv1"}
    assert all(-1 <= score <= 1 for score in picture["scores"].values())

    # The second time, and in other studies with the same runs, nothing is made again.
    study.write_text(study.read_text().replace("tiny study", "another study").replace(FIGURES, ""))
    again = run_cli("run", study, "scale=cpu", "--name", "again", cwd=study.parent)
    assert again.returncode == 0 and again.stdout.count("already finished") == 2
    assert {run.name for run in list_runs(study.parent / "runs")} == {*runs, "again"}
    collected = invoke("collect", "study", "--output", "results", "--name", "tiny", cwd=study.parent)
    assert collected.returncode == 0, collected.stderr
    page, readme = (study.parent / "results" / name for name in ("tiny.html", "README.md"))
    assert page.read_text().count("data:image/png;base64,") == 3 and "tiny study" in page.read_text()
    assert f"| RotNet | {top1['rotnet', 'conv1']:.1f} (85.07) |" in readme.read_text()
    assert "](study/figures/picture-1.png)" in readme.read_text()
    assert "`rotnet-keras run study.toml scale=cpu`" in readme.read_text()
    assert (study.parent / "results" / "study" / "events.jsonl").is_file()
    kept = (study.parent / "results" / "study" / "recipe.toml").read_text()
    assert str(study.parent) not in kept and "'tiny.toml'" in kept.replace('"', "'")
    # What was collected can be, without its runs.
    first = readme.read_text()
    told = invoke("collect", "results/study", "--output", "results", "--name", "tiny", cwd=study.parent)
    assert told.returncode == 0 and readme.read_text() == first, told.stderr
    assert str(study.parent) not in (study.parent / "results" / "study" / "run.json").read_text()
    refused = invoke("collect", "probe-s0", cwd=study.parent)
    assert refused.returncode == 1 and "not a finished study" in refused.stderr
    listed = json.loads(invoke("runs", "--json", cwd=study.parent).stdout)
    assert next((r["step"], r["steps"]) for r in listed if r["name"] == "study") == (2, 2)


@pytest.mark.slow
def test_a_study_transfers_its_pretrained_backbone_and_random_weights(tmp_path):
    kit = make_kit(tmp_path / "kit", 20)
    (tmp_path / "tiny.toml").write_text(TINY_RECIPE.format(data=kit / "JPEGImages").replace("pad = 2", "pad = 0"))
    (tmp_path / "segmentation.toml").write_text(SEGMENTATION.format(kit=kit, classes=list(COLOURS)))
    (tmp_path / "study.toml").write_text(TRANSFERS)
    result = run_cli("run", "study.toml", "--name", "study", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    runs = {run.name: run for run in list_runs(tmp_path / "runs")}
    assert set(runs) == {"study", "rotnet-s0", "pretrained-s0", "random-s0"}
    assert runs["pretrained-s0"].recipe_values()["pretrained"]["file"] == str(runs["rotnet-s0"].backbone)
    assert "pretrained" not in runs["random-s0"].recipe_values()
    scores = [100 * events_of(runs[name], "test")[0]["score"] for name in ("pretrained-s0", "random-s0")]
    report = (runs["study"].path / "report.md").read_text()
    assert f"| RotNet | {scores[0]:.1f} (39.1) |" in report and f"| random | {scores[1]:.1f} |" in report


@pytest.mark.slow
def test_stopping_a_study_stops_its_run_and_resuming_resumes_it(study):
    only = STUDY.index('[[run]]\nname = "probe"')
    study.write_text(STUDY[:only].replace("train.steps = 2", "train.epochs = 200"))
    process = subprocess.Popen(
        command("run", study, "scale=cpu", "--name", "study"), cwd=study.parent, stdout=subprocess.DEVNULL
    )
    run = run_of(study.parent, "rotnet-s0")
    wait_for(lambda: any(e["kind"] == "step" for e in run.last_events()))
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert run.state() == "stopped" and run_of(study.parent, "study").state() == "stopped"
    resumed = subprocess.Popen(command("resume", "study"), cwd=study.parent, stdout=subprocess.DEVNULL)
    wait_for(lambda: run.alive() and any(e["kind"] == "resume" for e in run.last_events()))
    # A study that is killed takes nothing with it, and the next one waits for the run that goes on.
    resumed.kill()
    resumed.wait(60)
    assert run.alive() and run_of(study.parent, "study").state() == "killed"
    pid = run.facts()["pid"]
    attached = subprocess.Popen(command("resume", "study"), cwd=study.parent, stdout=subprocess.DEVNULL)
    log = run_of(study.parent, "study").log
    wait_for(lambda: log.read_text().count("Run 1 of 1: rotnet-s0") == 3)
    attached.send_signal(signal.SIGTERM)
    assert attached.wait(60) == 143
    assert run.state() == "stopped" and run.facts()["pid"] == pid
    assert len(list_runs(study.parent / "runs")) == 2


def test_findings_are_judged_over_all_seeds(study):
    """Differences of +2, +4; -1, -3; +1, -1: all seeds decide, a bar in a title does not break the table."""
    recipe, facts = load_for_run(str(study), {"scale": "cpu"}, study.parent / "runs")
    run = create_run(study.parent / "runs", "study", to_toml(recipe), facts)
    text = run.recipe.read_text().replace("Trained features", "Trained | learned features")
    run.recipe.write_text(text)
    for trained, random, verdict in (
        ((0.62, 0.66), (0.60, 0.62), "holds"),
        ((0.59, 0.59), (0.60, 0.62), "does not hold"),
        ((0.61, 0.61), (0.60, 0.62), "not settled"),
        ((), (), "not settled"),
    ):
        lines = []
        for seed, values in enumerate(zip(trained, random, strict=True)):
            about = {"probe": 0, "tap": "conv2"}
            measured = [
                about | {"weights": name, "value": v} for name, v in zip(("rotnet", "random"), values, strict=True)
            ]
            lines.append({"kind": "run", "time": 1.0, "step": 1, "name": "probe", "seed": seed, "folder": "probe"})
            lines[-1]["measures"] = measured
        run.events_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert invoke("report", "study", cwd=study.parent).returncode == 0
        report = (run.path / "report.md").read_text()
        assert f"| Trained \\| learned features beat random ones | {verdict} |" in report
        if verdict == "holds":
            assert "| RotNet | 64.0 ± 2.8 | (85.07) |" in report
            assert "RotNet, conv2 over random, conv2: +2.0, +4.0" in report


def test_findings_may_compare_the_first_and_the_last_value_of_a_row(study):
    recipe, facts = load_for_run(str(study), {"scale": "cpu"}, study.parent / "runs")
    run = create_run(study.parent / "runs", "study", to_toml(recipe), facts)
    claim = (
        '[[finding]]\nclaim = "It learns"\ntable = 1\nhigher = ["rotation", "last"]\nlower = ["rotation", "first"]\n'
    )
    run.recipe.write_text(f"{run.recipe.read_text()}\n{claim}")
    # By their numbers, not by how they are written.
    measured = [{"epoch": epoch, "value": value} for epoch, value in ((10.0, 0.7), (9.0, 0.8), (1.0, 0.5))]
    line = {
        "kind": "run",
        "time": 1.0,
        "step": 1,
        "name": "rotnet",
        "seed": 0,
        "folder": "rotnet",
        "measures": measured,
    }
    run.events_file.write_text(json.dumps(line) + "\n")
    assert invoke("report", "study", cwd=study.parent).returncode == 0
    told = "| It learns | holds | rotation, last over rotation, first: +20.0 |"
    assert told in (run.path / "report.md").read_text()


def test_runs_start_from_the_backbones_of_other_runs():
    planned = {(run.name, run.seed): run for run in planned_runs(load_recipe("studies/table3_cifar", {"scale": "cpu"}))}
    assert len(planned) == 18 and {seed for _, seed in planned} == {0, 1, 2}
    tuned = planned["blocks4-tuned-mlp", 1]
    assert tuned.source == planned["blocks4", 1]
    expected = {"head.name": "mlp", "seed": 1, "pretrained.file": "b.keras"}
    assert tuned.overrides(Path("b.keras")) == expected
    assert planned["blocks4-mlp", 2].overrides(Path("b.keras")) == {"seed": 2, "backbone.file": "b.keras"}
    assert planned["supervised", 0].overrides() == {"seed": 0}


def test_runs_that_are_made_once_have_the_first_seed():
    planned = {(run.name, run.seed) for run in planned_runs(load_recipe("studies/fig5b_labels", {"scale": "cpu"}))}
    assert {("conv-first20", 0), ("conv-random20", 0), ("conv-random20", 2)} <= planned
    assert not planned & {("conv-first20", 1), ("supervised-first1000", 2)} and len(planned) == 41


def test_runs_of_all_seeds_start_from_a_run_that_is_made_once():
    planned = {(run.name, run.seed): run for run in planned_runs(load_recipe("studies/from_weights"))}
    assert len(planned) == 10 and {seed for name, seed in planned if name == "photos"} == {0}
    later = planned["from-photos", 2]
    assert later.source == planned["photos", 0]
    overrides = later.overrides(Path("b.keras"))
    assert overrides["pretrained.file"] == "b.keras" and overrides["seed"] == 2
    assert load_recipe(later.recipe, overrides).backbone is None


def test_random_starts_have_the_architecture_of_another_run():
    study = load_recipe("studies/table7_voc", {"scale": "cpu"})
    planned = {run.name: run for run in planned_runs(study)}
    random = planned["random-segmentation"].overrides()
    expected = {"backbone.name": "compact", "backbone.blocks": 4, "backbone.width": 1.0, "backbone.stem": "standard"}
    expected |= {"backbone.activation": "relu", "rescale": False, "seed": 0}
    assert random == expected and load_recipe("voc12_segmentation", random).pretrained is None
    # What a scale changes of single runs.
    assert planned["frozen"].changed_values["pretrained.frozen"] == "conv2"
    number = [run.name for run in study.run].index("random-segmentation")
    with pytest.raises(RecipeError, match="run 'classification' trains no backbone from scratch"):
        planned_runs(load_recipe("studies/table7_voc", {f"run.{number}.like": "classification"}))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("scale=cup",), "scale: expected one of 'full', 'cpu', got 'cup'"),
        (("run.1.of=nobody",), "of: no earlier run is called 'nobody'"),
        (
            ("run.1.like=rotnet",),
            "expected either `of`, for a run's trained backbone, or `like`, for random weights",
        ),
        (("scales.cpu.set={prob={seed=1}}",), "set: no run is called 'prob'"),
        (("run.0.recipe=pretrian",), "recipe: expected one of 'pretrain', 'probe', got 'pretrian'"),
        (("run.0.set.train.stesp=3",), "unknown key 'train.stesp'; did you mean 'steps'?"),
        (("table.0.entry.0.run=prob",), "no run is called 'prob'"),
        (("table.0.x=labels",), "column: expected a number, since x = 'labels'"),
        (("scales.cpu.seds=[1]",), "unknown key 'scales.cpu.seds'; did you mean 'seeds'?"),
        (("set.data.name=/nowhere",), "no folder /nowhere"),
    ],
)
def test_mistakes_are_reported_before_a_run_folder_is_made(study, change, complaint):
    result = invoke("run", study, *change, cwd=study.parent)
    assert result.returncode in (2, 3) and complaint in result.stderr, result.stderr
    assert not (study.parent / "runs").exists()


def test_the_time_left_of_a_study_counts_long_runs_more(study, monkeypatch):
    monkeypatch.chdir(study.parent)
    recipe = load_recipe(study, {"scale": "cpu"})
    session = SimpleNamespace(folder=SimpleNamespace(facts=lambda: {"run_seconds": {"rotnet-s0": 90, "probe-s0": 30}}))
    assert _shares_of_time(session, planned_runs(recipe)) == [0.0, 1.5, 2.0]
    # Finished runs take no time; what another version or a hand wrote is not believed.
    for found, expected in (
        ({"rotnet-s0": 0, "probe-s0": 30}, 0.0),
        ({"rotnet-s0": 30}, 1.0),
        ({"a": "b"}, 1.0),
        ({"rotnet-s0": math.inf, "probe-s0": 1}, 1.0),
    ):
        session.folder.facts = lambda found=found: {"run_seconds": found}
        assert _shares_of_time(session, planned_runs(recipe)) == [0.0, expected, 2.0]
