import json
import os
import signal
import subprocess
import time

import psutil
import pytest
from support.command_line import command, invoke, run_cli
from support.fake_runs import work_on

from rotnet_keras.errors import RunError
from rotnet_keras.runs import queue
from rotnet_keras.runs.folder import list_runs
from rotnet_keras.runs.launch import create_run
from rotnet_keras.runs.processes import process_identity

SHORT = ("train.steps=4", "data.validation=0")


def add(recipe, name, *overrides, **environment):
    result = run_cli("queue", "add", recipe, *overrides, "--name", name, cwd=recipe.parent, **environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


def wait(condition, what, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def log_of(runs_dir):
    return "\n".join(path.read_text() for path in (runs_dir / queue.LOG, *runs_dir.glob("*/log.txt")))


def lifetime(run):
    """When the run's process began and ended its work."""
    events = run.events()
    return next(e["time"] for e in events if e["kind"] == "start"), events[-1]["time"]


def waiting(tmp_path, name, since, recipe='kind = "none"\n'):
    facts = {"recipe": "a", "created": since, "queued": since}
    facts["queued_by"] = queue.signature(recipe.encode(), since, tmp_path)
    return create_run(tmp_path, name, recipe, facts)


@pytest.mark.slow
def test_runs_go_one_after_another_also_when_the_worker_is_killed(tiny_recipe):
    folder, runs_dir = tiny_recipe.parent, tiny_recipe.parent / "runs"
    said = add(tiny_recipe, "a", "train.steps=100", "data.validation=0", CUDA_VISIBLE_DEVICES="")
    assert "See the queue: rotnet-keras queue list" in said and "--runs-dir" not in said
    first = list_runs(runs_dir)[0]
    wait(lambda: any(e["kind"] == "step" for e in first.last_events()), log_of(runs_dir))
    worker = queue.worker_pid(runs_dir)
    assert "number 1" in add(tiny_recipe, "b", *SHORT) and "number 2" in add(tiny_recipe, "c", *SHORT)
    assert queue.worker_pid(runs_dir) == worker
    refused = invoke("queue", "work", cwd=folder)
    assert refused.returncode == 1 and f"process {worker} works on the queue" in refused.stderr

    os.kill(worker, signal.SIGKILL)
    wait(lambda: queue.worker_pid(runs_dir) is None, "the worker is there")
    assert first.alive()
    listed = json.loads(invoke("queue", "list", "--json", cwd=folder).stdout)
    assert listed["worker"] is None and [r["name"] for r in listed["runs"]] == ["b", "c"]
    assert "queue work --detach" in invoke("queue", "list", cwd=folder).stdout

    drained = run_cli("queue", "work", cwd=folder, CUDA_VISIBLE_DEVICES="")
    assert drained.returncode == 0, drained.stderr
    runs = {run.name: run for run in list_runs(runs_dir)}
    assert {run.state() for run in runs.values()} == {"finished"}, log_of(runs_dir)
    (_, a_end), (b_start, b_end), (c_start, _) = (lifetime(runs[name]) for name in "abc")
    assert a_end <= b_start and b_end <= c_start
    assert runs["b"].facts()["gpus"] == "" and queue.worker_pid(runs_dir) is None


@pytest.mark.slow
def test_each_gpu_gets_a_run_of_its_own(tiny_recipe):
    runs_dir = tiny_recipe.parent / "elsewhere"
    for name in "ab":
        said = add(tiny_recipe, name, *SHORT, "--runs-dir", runs_dir, CUDA_VISIBLE_DEVICES="0,1")
        assert f"queue list --runs-dir {runs_dir}" in said
    runs = list_runs(runs_dir)
    wait(lambda: all(run.state() == "finished" for run in runs), log_of(runs_dir))
    assert {run.facts()["gpus"] for run in runs} == {"0", "1"}
    (a_start, a_end), (b_start, b_end) = map(lifetime, runs)
    assert a_start < b_end and b_start < a_end
    wait(lambda: queue.worker_pid(runs_dir) is None, "the worker does not end")


def test_the_queue_is_in_the_order_of_adding(tmp_path):
    now = time.time()
    for name, since in (("z", now - 3), ("a", now - 1), ("m", now - 2)):
        waiting(tmp_path, name, since)
    create_run(tmp_path, "no", "", {"created": now})
    assert [run.name for run in queue.queued_runs(tmp_path)] == ["z", "m", "a"]
    assert queue.queued_runs(tmp_path / "none") == []


def test_a_run_that_cannot_be_started_is_skipped(tmp_path):
    broken = waiting(tmp_path, "broken", 1.0)
    result = run_cli("queue", "work", "--runs-dir", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "broken could not be started" in result.stdout and broken.state() == "queued"


def test_a_stopped_worker_leaves_and_a_run_that_is_deleted_does_not_disturb_it(tmp_path):
    # A run that somebody else started keeps the device busy.
    process = psutil.Process()
    facts = process_identity(process) | {"host": os.uname().nodename}
    work_on(create_run(tmp_path, "busy", "", facts))
    first, second = waiting(tmp_path, "first", 1.0), waiting(tmp_path, "second", 2.0)
    worker = subprocess.Popen(command("queue", "work", "--runs-dir", tmp_path), stdout=subprocess.PIPE, text=True)
    wait(lambda: queue.worker_pid(tmp_path) == worker.pid, "no worker")
    with pytest.raises(RunError, match="has a worker already"):
        queue.run_worker(tmp_path)
    assert invoke("queue", "remove", "first", "--runs-dir", tmp_path).returncode == 0
    assert not first.path.exists() and not list(tmp_path.glob(".gone-*"))
    time.sleep(1.5 * queue.POLL_SECONDS)
    assert worker.poll() is None and second.state() == "queued"
    refused = invoke("queue", "remove", "busy", "--runs-dir", tmp_path)
    assert refused.returncode == 1 and "does not wait in the queue" in refused.stderr
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(10) == 143 and "Traceback" not in worker.stdout.read()
    assert queue.worker_pid(tmp_path) is None and second.state() == "queued"


def test_a_recipe_error_adds_nothing(tmp_path):
    result = invoke("queue", "add", "quikstart", cwd=tmp_path)
    assert result.returncode == 2 and "did you mean 'quickstart'" in result.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("visible", "expected"), [("0,1", ["0", "1"]), ("GPU-1f", ["GPU-1f"]), ("", [None]), ("-1", [None])]
)
def test_the_devices_are_those_that_are_visible(monkeypatch, visible, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert queue.visible_devices() == expected


def test_stop_sends_the_user_to_the_queue(tmp_path):
    waiting(tmp_path, "a", 1.0)
    result = invoke("stop", "a", "--runs-dir", tmp_path)
    assert result.returncode == 1
    assert f"rotnet-keras queue remove a --runs-dir {tmp_path}" in result.stderr
