"""The commands that a finished run proposes."""

import json
import re
import shlex

import pytest
from PIL import Image
from support.command_line import invoke
from support.fake_runs import fake_run

from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.next_steps import next_steps
from rotnet_keras.runs.zoo import find_pretrained


@pytest.fixture
def own(tmp_path):
    """A folder of images in two classes, with a space in its name."""
    for label in ("cat", "dog"):
        (tmp_path / "my images" / label).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (70, 70)).save(tmp_path / "my images" / label / f"{number}.png")
    return tmp_path / "my images"


def finished_on(runs_dir, data, classes, recipe="holiday"):
    run = fake_run(runs_dir, "run", f"data.name={data}", outcome="finished")
    run.export.mkdir()
    run.backbone.write_bytes(find_pretrained("compact4_cifar10").backbone.read_bytes())
    known = {"recipe": recipe, "data": {"name": str(data), "classes": classes}, "default_tap": "conv2"}
    run.facts_file.write_text(json.dumps(run.facts() | known))
    return run


def commands(run):
    return [shlex.split(re.split(r": (?=rotnet-keras)", step)[1])[1:] for step in next_steps(run)]


def test_a_run_on_ones_own_images_proposes_commands_for_them(tmp_path, own, monkeypatch):
    monkeypatch.delenv("ROTNET_RUNS_DIR", raising=False)
    run = finished_on(tmp_path / "elsewhere", own, ["cat", "dog"])
    place = ["--runs-dir", str(tmp_path / "elsewhere")]
    finetune, embed = commands(run)  # The recipe has probes already.
    assert finetune == ["run", "finetune", "pretrained.run=run", f"data.name={own}", "head.tap=conv2", *place]
    assert embed == ["embed", "run", *place, str(own), "--to", "features.npz"]
    # What is proposed is valid, and its data and backbone are found.
    result = invoke(*finetune, "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "data.size = 32" in result.stdout
    run.recipe.write_text(re.sub(r"(?ms)^\[\[probe\]\].*", "", run.recipe.read_text()))
    probe = commands(run)[0]
    assert probe == ["run", "probe", "backbone.run=run", f"data.name={own}", *place]
    result = invoke(*probe, "--dry-run")
    assert result.returncode == 0 and "data.size = 32" in result.stdout, result.stderr
    unlabelled = finished_on(tmp_path / "others", own, [])
    assert commands(unlabelled)[0][:4] == ["probe", "run", "--runs-dir", str(tmp_path / "others")]


def test_a_fine_tuned_run_proposes_to_predict_classes(tmp_path, own):
    run = finished_on(tmp_path / "elsewhere", own, ["cat", "dog"])
    run.recipe.write_text(f'kind = "classify"\n[data]\nname = "{own}"\n')
    place = ["--runs-dir", str(tmp_path / "elsewhere")]
    assert [words[0] for words in commands(run)] == ["embed"]
    (run.export / "classifier.keras").touch()
    predict, embed = commands(run)
    assert predict == ["predict", "run", *place, str(own), "--to", "predictions.csv"]
    assert embed == ["embed", "run", *place, str(own), "--to", "features.npz"]


def test_a_run_on_known_data_proposes_how_to_train_on_ones_own(tmp_path, own):
    run = finished_on(tmp_path / "elsewhere", "fashion_mini", ["a"], "quickstart")
    first, recipes = next_steps(run)
    assert first.endswith("rotnet-keras init /path/to/images")
    assert recipes.endswith("rotnet-keras show quickstart")
    assert invoke("show", "quickstart").returncode == 0
    # A recipe of one's own is not shown by its name, which nobody knows.
    assert "show" not in next_steps(finished_on(tmp_path / "more", "fashion_mini", ["a"]))[1]
    assert next_steps(RunFolder(own)) == []
