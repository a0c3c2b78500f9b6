import json
import os
import pty
import subprocess
import sys
import time

import psutil
import pytest
from support.command_line import command, invoke, run_cli
from support.fake_runs import work_on

from rotnet_keras.runs.folder import FORMAT, RunFolder
from rotnet_keras.runs.launch import create_run
from rotnet_keras.runs.processes import process_identity

# It stands for a run, as its command line says.
TREE = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(300)'])"


@pytest.fixture
def process():
    """A process with a child, to be named as the one of a run."""
    with subprocess.Popen([sys.executable, "-c", TREE, "rotnet_keras"]) as process:
        parent = psutil.Process(process.pid)
        while not parent.children():
            time.sleep(0.02)
        family = [parent, *parent.children()]
        yield parent
        for member in family:
            if member.is_running():
                member.kill()


def worked_on_by(process, runs_dir, steps=(), saved=None):
    facts = process_identity(process) | {"host": os.uname().nodename}
    run = create_run(runs_dir, "a", "", facts)
    figures = dict.fromkeys(("epoch", "loss", "accuracy", "learning_rate", "images_per_s"), 1.0)
    events = [{"kind": "step", "time": time.time(), "step": step, **figures} for step in steps]
    if saved:
        events.append({"kind": "checkpoint", "time": time.time(), "step": saved})
    run.events_file.write_text("".join(json.dumps(event) + "\n" for event in events))
    work_on(run)
    return run


def ended(runs_dir):
    run = create_run(runs_dir, "a", "", {"created": 0.0})
    (run.path / "log.txt").write_bytes(bytes(1_500_000))
    return run


@pytest.mark.parametrize(
    ("saved", "loss"), [(5, "loses 15 steps, those since its last checkpoint at step 5"), (None, "no checkpoint yet")]
)
def test_kill_ends_the_process_and_its_children(tmp_path, process, saved, loss):
    run = worked_on_by(process, tmp_path, (10, 20), saved)
    (child,) = process.children()
    result = invoke("kill", "a", "--yes", "--runs-dir", tmp_path)
    assert result.returncode == 0, result.stderr
    assert loss in result.stdout and f"resume a --runs-dir {tmp_path}" in result.stdout
    assert run.state() == "killed"
    deadline = time.monotonic() + 10
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the child goes on"
        time.sleep(0.01)


def test_without_a_terminal_yes_has_to_be_said(tmp_path, process):
    run = worked_on_by(process, tmp_path / "live", (1,))
    gone = ended(tmp_path / "dead")
    for arguments in (["kill", run.path], ["delete", "a", "--runs-dir", gone.path.parent]):
        result = invoke(*arguments)
        assert result.returncode == 2 and "--yes" in result.stderr
    assert process.is_running() and gone.path.exists()


def test_kill_needs_a_process_that_is_the_runs_own(tmp_path, process):
    run = worked_on_by(process, tmp_path)
    facts = run.facts() | {"since_boot": run.facts()["since_boot"] - 100}
    run.facts_file.write_text(json.dumps(facts))
    result = invoke("kill", "a", "--yes", "--runs-dir", tmp_path)
    assert result.returncode == 1 and "not running on this machine" in result.stderr and process.is_running()


def test_delete_refuses_a_live_run_and_removes_one_that_has_ended(tmp_path, process):
    live = worked_on_by(process, tmp_path / "live", (1,))
    result = invoke("delete", live.path, "--yes", "--runs-dir", live.path.parent)
    assert result.returncode == 1 and "Stop it first: rotnet-keras stop a" in result.stderr and live.path.exists()
    gone = ended(tmp_path / "dead")
    result = invoke("delete", "a", "--yes", "--runs-dir", tmp_path / "dead")
    assert result.returncode == 0, result.stderr
    assert "(1.5 MB), which holds no exported backbone" in result.stdout
    assert not gone.path.exists() and not list((tmp_path / "dead").iterdir())


def started_elsewhere(runs_dir, age=5.0, kinds=("start", "step"), **facts):
    """A run of this moment whose process was started on another machine."""
    facts = {"pid": os.getpid(), "since_boot": 1.0, "host": "far", "machine": "m", "boot": "b"} | facts
    run = create_run(runs_dir, "a", "", {"created": time.time() - age, **facts})
    values = {"step": 1, "epoch": 0.1, "loss": 1.0, "accuracy": 0.5, "learning_rate": 0.1, "images_per_s": 1.0}
    events = [{"kind": kind, "time": time.time() - age, **values} for kind in kinds]
    run.events_file.write_text("".join(json.dumps(event) + "\n" for event in events))
    for file in (run.events_file, run.facts_file):
        os.utime(file, (time.time() - age, time.time() - age))
    return run


def test_a_run_elsewhere_is_stopped_by_its_file_and_not_deleted(tmp_path):
    run = started_elsewhere(tmp_path)
    status = invoke("status", "a", "--runs-dir", tmp_path).stdout
    assert "state: running" in status and "process: on far, which cannot be seen from here; it last wrote 5 s" in status
    result = invoke("kill", "a", "--yes", "--runs-dir", tmp_path)
    assert result.returncode == 1 and "can be killed only there" in result.stderr and "stop a" in result.stderr
    result = invoke("delete", "a", "--yes", "--runs-dir", tmp_path)
    assert result.returncode == 1 and "running on far" in result.stderr and run.path.exists()
    result = invoke("stop", "a", "--runs-dir", tmp_path)
    assert result.returncode == 0 and "on far and cannot be seen from here" in result.stdout
    assert run.stop_file.exists() and run.state() == "stopping"


@pytest.mark.parametrize("kinds", [("start",), ("start", "step")])
def test_a_silent_run_elsewhere_says_so_and_can_be_deleted(tmp_path, kinds):
    run = started_elsewhere(tmp_path, 3600.0, kinds)
    status = invoke("status", "a", "--runs-dir", tmp_path).stdout
    assert "state: stalled" in status and "started on far, and has written nothing for 1 h" in status
    assert "resume a" in status and "stop a" in status
    result = invoke("delete", "a", "--yes", "--runs-dir", tmp_path)
    assert result.returncode == 0 and "cannot be seen from here" in result.stdout and not run.path.exists()


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 1), (b"y\n", 0)])
def test_a_terminal_is_asked(tmp_path, answer, code):
    run = ended(tmp_path)
    ours, theirs = pty.openpty()
    words = command("delete", "a", "--runs-dir", tmp_path)
    with subprocess.Popen(words, stdin=theirs, stdout=subprocess.DEVNULL) as asking:
        os.write(ours, answer)
        assert asking.wait(30) == code
    os.close(ours)
    os.close(theirs)
    assert run.path.exists() == bool(code)


@pytest.mark.parametrize("arguments", [[], ["--detach"]])
def test_a_folder_of_a_newer_format_is_left_alone(tmp_path, arguments):
    run = create_run(tmp_path, "a", "", {"format": FORMAT + 1})
    before = sorted(run.path.iterdir())
    result = invoke("resume", "a", "--runs-dir", tmp_path, *arguments)
    assert result.returncode == 1 and "newer version of rotnet-keras" in result.stderr
    assert sorted(run.path.iterdir()) == before


@pytest.mark.slow
def test_a_killed_run_goes_on_to_its_end(tiny_recipe, tmp_path):
    where = ("--runs-dir", tmp_path / "elsewhere")
    options = ("train.steps=150", "data.validation=0", "--name", "a", "--detach", *where)
    assert f"logs -f a --runs-dir {where[1]}" in run_cli("run", tiny_recipe, *options).stdout
    run = RunFolder(where[1] / "a")
    deadline = time.monotonic() + 120
    while not any(e["kind"] == "checkpoint" for e in run.last_events()):
        assert time.monotonic() < deadline, run.log.read_text()
        time.sleep(0.02)
    assert invoke("kill", "a", "--yes", *where).returncode == 0
    assert run.state() == "killed"
    result = run_cli("resume", "a", *where)
    assert result.returncode == 0 and run.state() == "finished", result.stderr
