"""One training on several devices: replicas of one process, and processes that find each other."""

import json
import os
import signal
import socket
import subprocess

import numpy as np
import pytest
from support.command_line import command, invoke, run_cli
from support.whole_runs import assert_same_end, events_of, run_of, wait_for_step

# 160 images: the last batch of an epoch has 4, or 2 for each of two.
SAME = ["train.precision='float32'", "train.batch=12", "train.steps=50", "train.log_every=1"]
WHOLE_BATCH = [*SAME, "devices.sync_batch_norm=true"]


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def start_workers(*arguments, cwd, count=2):
    """The same command in several processes that know of each other; the first is the chief."""
    hosts = [f"127.0.0.1:{port}" for port in free_ports(count)]
    return [
        subprocess.Popen(
            command(*arguments),
            cwd=cwd,
            env=os.environ
            | {"TF_CONFIG": json.dumps({"cluster": {"worker": hosts}, "task": {"type": "worker", "index": i}})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(count)
    ]


def ends(workers, timeout=200):
    """(exit code, output) of each."""
    try:
        outputs = [worker.communicate(timeout=timeout)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    return [(worker.returncode, output) for worker, output in zip(workers, outputs, strict=True)]


def losses(run):
    return np.array([event["loss"] for event in events_of(run, "step")])


def assert_same_losses(run, other):
    """Steps of one training on other devices: sums of float32 differ in their last bits, and more from step to step."""
    assert len(losses(run)) == len(losses(other)) == 50
    np.testing.assert_allclose(losses(run)[:5], losses(other)[:5], atol=1e-5)
    np.testing.assert_allclose(losses(run), losses(other), atol=5e-3)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, tiny_data):
    from support.tiny import TINY_RECIPE

    folder = tmp_path_factory.mktemp("alone")
    (folder / "tiny.toml").write_text(TINY_RECIPE.format(data=tiny_data))
    result = run_cli("run", "tiny.toml", "--name", "run", *WHOLE_BATCH, cwd=folder)
    assert result.returncode == 0, result.stderr
    return run_of(folder, "run")


@pytest.mark.slow
def test_two_replicas_learn_what_one_device_learns(alone, tiny_recipe):
    folder = tiny_recipe.parent
    result = run_cli("run", tiny_recipe, "--name", "run", *WHOLE_BATCH, "devices.replicas=2", cwd=folder)
    assert result.returncode == 0, result.stdout + result.stderr
    run = run_of(folder, "run")
    assert_same_losses(run, alone)
    np.testing.assert_allclose(
        [e["validation"]["loss"] for e in events_of(run, "epoch")],
        [e["validation"]["loss"] for e in events_of(alone, "epoch")],
        atol=5e-3,
    )


@pytest.mark.long
def test_two_processes_learn_what_one_learns(alone, tiny_recipe):
    folder = tiny_recipe.parent
    results = ends(start_workers("run", tiny_recipe, "--name", "run", *WHOLE_BATCH, cwd=folder))
    assert [code for code, _ in results] == [0, 0], results
    run = run_of(folder, "run")
    assert [p.name for p in (folder / "runs").iterdir()] == ["run"]
    assert_same_losses(run, alone)
    assert run.backbone.is_file() and events_of(run, "test")


@pytest.mark.slow
def test_two_processes_stop_together_and_resume(alone, tiny_recipe):
    folder = tiny_recipe.parent
    workers = start_workers("run", tiny_recipe, "--name", "run", *WHOLE_BATCH, cwd=folder)
    run = run_of(folder, "run")
    wait_for_step(run, 5)
    workers[1].send_signal(signal.SIGTERM)
    results = ends(workers)
    assert [code for code, _ in results] == [143, 143], results
    assert run.state() == "stopped" and len(losses(run)) < 50
    results = ends(start_workers("resume", "run", cwd=folder))
    assert [code for code, _ in results] == [0, 0], results
    assert_same_losses(run, alone)


@pytest.mark.slow
def test_when_one_process_dies_the_others_end_and_all_resume(tiny_recipe):
    folder = tiny_recipe.parent
    settings = [tiny_recipe, *SAME, "train.steps=300"]
    whole = ends(start_workers("run", *settings, "--name", "whole", cwd=folder))
    assert [code for code, _ in whole] == [0, 0], whole
    workers = start_workers("run", *settings, "--name", "run", cwd=folder)
    run = run_of(folder, "run")
    wait_for_step(run, 20)
    workers[1].kill()
    (code, output), _ = ends(workers, timeout=120)
    assert code == 1 and "another process" in output, output
    assert run.state() == "failed"
    assert [code for code, _ in ends(start_workers("resume", "run", cwd=folder))] == [0, 0]
    assert_same_end(run, run_of(folder, "whole"))


@pytest.mark.long
def test_a_batch_that_is_no_multiple_of_the_devices_is_refused(tiny_recipe):
    result = run_cli("run", tiny_recipe, "train.batch=15", "devices.replicas=2", cwd=tiny_recipe.parent)
    assert result.returncode == 2
    assert "expected a multiple of 2, because 2 devices share each batch; got 15" in result.stdout


def test_multi_worker_without_a_described_cluster_is_refused(tiny_recipe):
    result = invoke("run", tiny_recipe, "devices.strategy='multi_worker'", cwd=tiny_recipe.parent)
    assert result.returncode == 2 and "TF_CONFIG" in result.stderr
    result = invoke("run", tiny_recipe, cwd=tiny_recipe.parent, TF_CONFIG="{worker}")
    assert result.returncode == 2 and "TF_CONFIG: expected" in result.stderr
    assert not (tiny_recipe.parent / "runs").exists()


def test_a_process_knows_its_rank(monkeypatch):
    from rotnet_keras.config.loading import load_recipe
    from rotnet_keras.errors import RecipeError
    from rotnet_keras.training.cluster import TrainingProcess, training_process

    training, study = load_recipe("quickstart"), load_recipe("studies/fig4_filters")
    assert training_process(training) == training_process(study) == TrainingProcess(0, 1)
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    for kind, index, rank in (("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}}))
        assert training_process(training) == TrainingProcess(rank, 3)
        assert training_process(load_recipe("quickstart", {"devices.strategy": "one"})) == TrainingProcess(0, 1)
        with pytest.raises(RecipeError, match="runs in one process"):
            training_process(study)
    monkeypatch.delenv("TF_CONFIG")
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert training_process(training) == TrainingProcess(0, 1), "a shell in an allocation is no task of a step"
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert training_process(training) == TrainingProcess(1, 4)
