"""Runs that are mirrored to MLflow's local database and to Weights & Biases offline."""

import json
import re
import socket
import subprocess
from importlib.util import find_spec

import pytest
from support.command_line import command, invoke, run_cli, run_python
from support.whole_runs import events_of, run_of, start, wait_for, wait_for_step

needs_mlflow = pytest.mark.skipif(not find_spec("mlflow"), reason="needs rotnet-keras[mlflow]")
needs_wandb = pytest.mark.skipif(not find_spec("wandb"), reason="needs rotnet-keras[wandb]")

# What MLflow has of an experiment.
READ_MLFLOW = """
import json, sys
from mlflow.tracking import MlflowClient
client = MlflowClient()
found = []
for run in client.search_runs([client.get_experiment_by_name("rotnet-keras").experiment_id]):
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    files = [file.path for folder in (None, "export") for file in client.list_artifacts(run.info.run_id, folder)]
    found.append({
        "id": run.info.run_id, "name": run.info.run_name, "status": run.info.status, "parameters": run.data.params,
        "metrics": run.data.metrics, "steps": [metric.step for metric in losses], "files": files,
    })
print(json.dumps(found))
"""
# What a file of Weights & Biases has: the steps whose loss it knows, and the recipe. It is a log in LevelDB's format
# after a header of seven bytes: blocks of 32 KiB of chunks, each with a checksum, a length and a type.
READ_WANDB = """
import json, pathlib, struct, sys
from wandb.proto.wandb_internal_pb2 import Record
data, place, whole = pathlib.Path(sys.argv[1]).read_bytes(), 7, b""
steps, config = [], {}
while place + 7 <= len(data):
    if 32768 - place % 32768 < 7:
        place += 32768 - place % 32768
    _, length, kind = struct.unpack("<IHB", data[place : place + 7])
    whole += data[place + 7 : place + 7 + length]
    place += 7 + length
    if kind in (2, 3):
        continue
    record, whole = Record.FromString(whole), b""
    config.update({item.key: item.value_json for item in record.run.config.update})
    items = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
    if "train/loss" in items:
        steps.append(int(float(items["step"])))
print(json.dumps([steps, config]))
"""


@pytest.fixture
def trackers(tmp_path, monkeypatch):
    """Trackers that keep everything in folders of the test, and a function that returns the runs in MLflow."""
    for name, value in {
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(tmp_path),
        "WANDB_DATA_DIR": str(tmp_path / "staging"),
        "WANDB_CACHE_DIR": str(tmp_path / "cache"),
        "WANDB_CONFIG_DIR": str(tmp_path / "config"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return lambda: json.loads(run_python(READ_MLFLOW))


def begin(recipe, *words):
    folder = recipe.parent
    process = subprocess.Popen(
        command("run", recipe, "--name", "run", *words), cwd=folder, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    return process, run_of(folder, "run")


@pytest.mark.long
@needs_mlflow
def test_a_killed_and_resumed_run_is_one_run_in_mlflow(tiny_recipe, trackers):
    process, run = begin(tiny_recipe, "train.track=['mlflow']")
    wait_for_step(run, 4)
    process.kill()
    process.wait(60)
    state = run.path / "tracking" / "mlflow.json"
    wait_for(state.is_file, "the first events in MLflow")
    wait_for(lambda: trackers()[0]["status"] == "KILLED", "MLflow to be told that the run was killed")
    result = run_cli("resume", "run", cwd=tiny_recipe.parent)
    assert result.returncode == 0, result.stdout + result.stderr
    (tracked,) = trackers()
    assert f"goes on in run {tracked['id']}" in result.stdout and "has everything of run" in result.stdout
    assert tracked["name"] == "run" and tracked["status"] == "FINISHED"
    assert sorted(set(tracked["steps"])) == sorted({event["step"] for event in events_of(run, "step")})
    assert (
        tracked["parameters"]["train.batch"] == "16" and tracked["parameters"]["rotation.angles"] == "[0, 90, 180, 270]"
    )
    last = events_of(run, "epoch")[-1]["validation"]
    assert tracked["metrics"]["validation/accuracy"] == pytest.approx(last["accuracy"])
    assert {"test/accuracy", "features/conv2/rank"} <= tracked["metrics"].keys()
    assert {"recipe.toml", "run.json", "report.html", "report.md", "export/backbone.keras"} <= set(tracked["files"])


@pytest.mark.long
@needs_wandb
def test_a_stopped_and_resumed_run_is_one_run_in_wandb(tiny_recipe, trackers):
    result, run = start(tiny_recipe, "train.track=['wandb']", "train.steps=12")
    assert result.returncode == 0, result.stdout + result.stderr
    folder = tiny_recipe.parent
    (segment,) = folder.glob("wandb/offline-run-*")
    name = json.loads((run.path / "tracking" / "wandb.json").read_text())["run"]
    assert segment.name.endswith(name)
    steps, config = json.loads(run_python(READ_WANDB, segment / f"run-{name}.wandb"))
    assert steps == [event["step"] for event in events_of(run, "step")]
    assert json.loads(config["train"])["batch"] == 16
    assert {"report.html", "recipe.toml"} <= {file.name for file in (segment / "files").iterdir()}
    again = run_cli("track", "run", "--to", "wandb", cwd=folder)
    assert again.returncode == 0 and f"goes on in run {name}" in again.stdout
    assert len(list(folder.glob(f"wandb/offline-run-*-{name}"))) == 2


@pytest.mark.long
@needs_mlflow
@pytest.mark.parametrize("server", ["down", "hanging"])
def test_a_server_that_is_down_or_hangs_costs_a_warning(server, tiny_recipe, trackers, monkeypatch):
    """A database in a file has the run afterwards, by a command that the warning names."""
    database = f"sqlite:///{tiny_recipe.parent}/mlflow.db"
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if server == "hanging":
            listening.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        result, run = start(tiny_recipe, "train.track=['mlflow']", "train.epochs=8")
    assert result.returncode == 0 and run.state() == "finished"
    assert events_of(run, "epoch")[-1]["step"] == 80 and run.backbone.is_file()
    (warning,) = (event["message"] for event in events_of(run, "warning") if "MLflow" in event["message"])
    assert "MLflow fails: " in warning and "secret" not in warning + result.stdout
    again = re.search(r"rotnet-keras (track run.* --to mlflow)", warning)[1]
    assert run.last_events()[-1]["kind"] == "end"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    sent = run_cli(*again.split(), cwd=tiny_recipe.parent)
    assert sent.returncode == 0, sent.stderr
    (tracked,) = trackers()
    assert tracked["status"] == "FINISHED" and tracked["steps"] == [e["step"] for e in events_of(run, "step")]


@pytest.mark.parametrize(
    ("value", "message"),
    [("['mlflow', 'mlflow']", "expected each tracker once"), ("['comet']", "'mlflow' or 'wandb'"), ("mlflow", "list")],
)
def test_a_recipe_names_known_trackers_once(value, message, tiny_recipe):
    result = invoke("run", tiny_recipe, f"train.track={value}", cwd=tiny_recipe.parent)
    assert result.returncode == 2 and "track" in result.stderr and message in result.stderr


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_is_one_error_before_the_run_begins(name, tiny_recipe, monkeypatch):
    monkeypatch.setattr("rotnet_keras.runs.tracking.trackers.find_spec", lambda package: None)
    result = invoke("run", tiny_recipe, f"train.track=['{name}']", cwd=tiny_recipe.parent)
    assert result.returncode == 2 and f"pip install 'rotnet-keras[{name}]'" in result.stderr
    assert not (tiny_recipe.parent / "runs").exists()


def test_track_wants_a_tracker_and_a_run_that_has_begun(tiny_recipe):
    folder = tiny_recipe.parent
    run = run_of(folder, "run")
    run.path.mkdir(parents=True)
    run.recipe.write_text(tiny_recipe.read_text())
    without = invoke("track", "run", cwd=folder)
    assert without.returncode == 2 and "expected --to mlflow or --to wandb" in without.stderr
    early = invoke("track", "run", "--to", "mlflow", cwd=folder)
    assert early.returncode in (1, 2) and ("has not begun" in early.stderr or "pip install" in early.stderr)
    assert not (run.path / "tracking").exists()
