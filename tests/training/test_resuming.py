"""Runs that are stopped, killed or left alone, and go on."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from support.command_line import command, invoke, run_cli
from support.precision import needs_bfloat16
from support.tiny import shared_data
from support.whole_runs import assert_same_end, events_of, run_of, start, wait_for_step


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_run_stopped_killed_and_resumed_ends_with_the_same_weights(finished, tiny_recipe, number, code):
    _, whole = finished
    folder = tiny_recipe.parent
    run = run_of(folder, "run")
    process = subprocess.Popen(command("run", tiny_recipe, "--name", "run"), cwd=folder, stdout=subprocess.DEVNULL)
    wait_for_step(run, 4)
    process.send_signal(number)
    assert process.wait(60) == code
    assert run.state() == "stopped"
    stopped_at = max(e["step"] for e in events_of(run, "checkpoint"))
    assert stopped_at < 20, "the run was too far on before it could be stopped"
    process = subprocess.Popen(command("resume", "run"), cwd=folder, stdout=subprocess.DEVNULL)
    wait_for_step(run, stopped_at + 3)
    process.kill()
    process.wait(60)
    assert run.state() == "killed"
    # A damaged newest checkpoint costs a few steps more, nothing else.
    newest = max(run.checkpoints.glob("step-*.npz"))
    newest.write_bytes(newest.read_bytes()[:1000])
    # What it was writing when it was killed: a checkpoint, a report, or an export.
    for name in ("checkpoints/.0a1b.tmp.step-00000099.npz", ".0a1b.tmp.report.md"):
        (run.path / name).write_bytes(b"half")
    (run.path / ".export.tmp-x1").mkdir()
    result = run_cli("resume", "run", cwd=folder)
    assert result.returncode == 0 and f"checkpoint {newest.name} cannot be used" in result.stdout
    assert_same_end(run, whole)
    assert not list(run.path.rglob(".*"))
    points, of_whole = (
        {file.name: file.read_bytes() for file in each.samples.glob("projection-*.json")} for each in (run, whole)
    )
    assert points == of_whole and len(points) == 3
    steps = [e["step"] for e in events_of(run, "step")]
    assert steps == sorted(set(steps)) and [e["step"] for e in events_of(run, "epoch")] == [10, 20, 30]
    assert invoke("resume", "run", cwd=folder).returncode == 1


# Python runs this first: whoever replaces a file draws from the generator that Keras's initial weights come from.
DRAWING = """\
import os, random
replace = os.replace
def drawing(*arguments, **settings):
    random.random()
    return replace(*arguments, **settings)
os.replace = drawing
"""


@pytest.mark.long
def test_initial_weights_do_not_depend_on_what_else_draws_random_numbers(finished, tiny_recipe, tmp_path):
    _, whole = finished
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "sitecustomize.py").write_text(DRAWING)
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "first"), os.environ.get("PYTHONPATH", "")])}
    result = run_cli("run", tiny_recipe, "--name", "run", "probe=[]", cwd=tiny_recipe.parent, **environment)
    assert result.returncode == 0, result.stdout
    assert_same_end(run_of(tiny_recipe.parent, "run"), whole)


@pytest.mark.long
def test_a_run_of_the_resolved_recipe_gives_the_same_weights_though_its_terminal_is_closed(finished, tmp_path):
    _, whole = finished
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(tmp_path)
        os.execv(sys.executable, command("run", whole.recipe, "probe=[]", "--name", "run"))
    seen = b""
    while b"pretraining" not in seen or "━".encode() not in seen or b"accuracy" not in seen:
        seen += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    run = run_of(tmp_path, "run")
    assert run.state() == "finished" and b"ETA" in seen
    assert_same_end(run, whole)


@pytest.mark.long
def test_a_detached_run_is_watched_and_stopped_from_elsewhere(tiny_recipe):
    folder = tiny_recipe.parent
    result, run = start(tiny_recipe, "train.steps=1000000", "--detach")
    assert result.returncode == 0 and "Started run as process" in result.stdout
    wait_for_step(run, 2)
    status = json.loads(invoke("status", "run", "--json", cwd=folder).stdout)
    assert status["state"] == "running" and status["step"] >= 2
    again = invoke("resume", "run", cwd=folder)
    assert again.returncode == 1 and "running already" in again.stderr
    assert invoke("stop", "run", cwd=folder).returncode == 0
    logs = invoke("logs", "-f", "run", cwd=folder).stdout
    assert "Stopped. Resume with: rotnet-keras resume run" in logs
    assert "Warning: train.log_every is 2, but a run of 1,000,000 steps would write too many events" in logs
    assert run.state() == "stopped"
    assert "stopped" in invoke("runs", cwd=folder).stdout


@needs_bfloat16
@pytest.mark.long
def test_a_run_with_muon_in_mixed_precision_resumes_to_the_bit(tiny_recipe):
    network = ("backbone.name=airbench", "backbone.activation=silu")
    options = (*network, "optimizer.name=muon", "train.precision=mixed_bfloat16", "train.steps=30", "probe=[]")
    _, whole = start(tiny_recipe, *options, name="whole")
    _, run = start(tiny_recipe, *options, "--detach")
    wait_for_step(run, 4)
    assert invoke("stop", "run", cwd=tiny_recipe.parent).returncode == 0
    invoke("logs", "-f", "run", cwd=tiny_recipe.parent)
    assert run.state() == "stopped" and max(e["step"] for e in events_of(run, "checkpoint")) < 30
    assert run_cli("resume", "run", cwd=tiny_recipe.parent).returncode == 0
    assert_same_end(run, whole)


@pytest.mark.slow
def test_resuming_with_changed_data_is_refused(tiny_recipe, tiny_data, tmp_path):
    mine = tmp_path / "mine.npz"
    shutil.copy(tiny_data, mine)
    process = subprocess.Popen(
        command("run", tiny_recipe, f"data.name={mine}", "train.steps=100000", "--name", "run"),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    wait_for_step(run_of(tmp_path, "run"), 1)
    process.terminate()
    process.wait(60)
    with np.load(mine) as arrays:
        np.savez(tmp_path / "other.npz", **{**arrays, "x_train": arrays["x_train"][:, ::-1]})
    shutil.move(tmp_path / "other.npz", mine)
    result = run_cli("resume", "run", cwd=tmp_path)
    assert result.returncode == 3 and "the data have changed" in result.stdout


@pytest.mark.slow
def test_the_full_nin_on_cifar10_is_killed_and_resumes(tmp_path):
    data = shared_data("tfds")
    arguments = [f"data.data_dir={data}", "train.steps=12", "train.log_every=1", "probe=[]", "--name", "run"]
    process = subprocess.Popen(command("run", "cifar_nin", "train.checkpoint_minutes=0", *arguments), cwd=tmp_path)
    run = run_of(tmp_path, "run")
    wait_for_step(run, 5)
    process.terminate()
    assert process.wait(120) == 143
    assert run_cli("resume", "run", cwd=tmp_path).returncode == 0
    losses = [e["loss"] for e in events_of(run, "step")]
    assert len(losses) == 12 and np.mean(losses[-3:]) < losses[0]
