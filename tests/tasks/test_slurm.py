"""Runs as jobs of a real Slurm, which the tests start on this machine."""

import json
import signal
import subprocess

import psutil
import pytest
from support.command_line import command, run_cli
from support.slurm import slurm  # noqa: F401 - a fixture
from support.whole_runs import assert_same_end, events_of, run_of, wait_for, wait_for_step

from rotnet_keras.runs.cluster import jobs

OPTIONS = ("--submit", "slurm", "--submit-options", "partition=low,cpus=1,time=30,grace=60")
STUDY = """\
kind = "study"
title = "tiny study"
paper = "Table 1"
[scales.full]
note = "small"
recipes = { pretrain = "tiny.toml" }
[[run]]
name = "long"
recipe = "pretrain"
set = { train.epochs = 60 }
[[run]]
name = "waits"
recipe = "pretrain"
[[run]]
name = "fails"
recipe = "pretrain"
set = { optimizer.learning_rate = 1e30 }
[[table]]
title = "Rotation accuracy, %"
entry = [{ row = "long", run = "long", column = "rotation" }, { row = "waits", run = "waits", column = "rotation" }]
"""


@pytest.fixture
def folder(tiny_recipe, monkeypatch):
    monkeypatch.chdir(tiny_recipe.parent)
    monkeypatch.delenv("ROTNET_RUNS_DIR", raising=False)
    return tiny_recipe.parent


def listed(folder):
    """What `runs --json` says of each run."""
    result = run_cli("runs", "--json", cwd=folder)
    assert result.returncode == 0, result.stderr
    return {run["name"]: run for run in json.loads(result.stdout)}


def states(folder):
    return {name: run["state"] for name, run in listed(folder).items()}


@pytest.mark.slow
async def test_a_study_of_jobs_one_preempted_one_cancelled_one_failing(slurm, folder):  # noqa: F811
    from rotnet_tui.app import RotnetApp

    (folder / "study.toml").write_text(STUDY)
    busy = slurm.occupy(3600)
    with (folder / "study.out").open("w") as out:
        study = subprocess.Popen(command("run", "study.toml", "--name", "study", *OPTIONS), cwd=folder, stdout=out)
    long, waits = (run_of(folder, f"{name}-s0") for name in ("long", "waits"))
    slurm.wait(lambda: len(events_of(long, "checkpoint")) > 3, "a checkpoint")
    # One core is left to the study: the others are pending.
    found = listed(folder)
    assert {name: run["state"] for name, run in found.items()} == {
        "study": "starting",
        "long-s0": "running",
        "waits-s0": "pending",
        "fails-s0": "pending",
    }
    assert "Slurm job" in found["long-s0"]["job"] and " on " in found["long-s0"]["job"]
    assert "pending (" in found["waits-s0"]["job"]

    # One is cancelled from the terminal UI.
    app = RotnetApp(folder / "runs", waits)
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.pause(1.0)
        await pilot.press("s")
        for _ in range(100):
            await pilot.pause(0.2)
            if waits.state() == "stopped":
                break
    jobs._queue.in_background = False
    assert states(folder)["waits-s0"] == "stopped"
    assert "cancelled before it began" in run_cli("status", "waits-s0", cwd=folder).stdout

    # One has to make room for a job that comes first, with a checkpoint, and is queued again.
    first = slurm.occupy(3600)
    slurm.wait(lambda: long.state() == "pending", "the preempted job to be queued again")
    assert events_of(long, "end")[-1]["outcome"] == "stopped"
    slurm.command("scancel", first, busy)
    slurm.start_requeued()
    assert study.wait(timeout=400) == 1
    said = (folder / "study.out").read_text()

    assert states(folder) == {"study": "failed", "long-s0": "finished", "waits-s0": "stopped", "fails-s0": "failed"}
    assert "1 of 3 runs are finished" in said and "waits-s0: stopped" in said and "fails-s0: failed" in said
    assert "diverge" in said or "the loss became" in said
    assert (run_of(folder, "study").path / "report.html").is_file()
    # Nothing twice: one job each, one end of the long one, and its steps once.
    submitted = [path.name for path in (folder / "runs" / ".jobs").glob("*/*_submitted.pkl")]
    assert len(submitted) == 3 == len(list((folder / "runs").glob("*-s0")))
    assert len(events_of(long, "start")) == 2
    steps = [event["step"] for event in events_of(long, "step")]
    assert steps == sorted(set(steps)) and steps[-1] == 600
    result = run_cli("run", "tiny.toml", "train.epochs=60", "seed=0", "--name", "alone", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert_same_end(long, run_of(folder, "alone"))


@pytest.mark.slow
def test_a_job_that_runs_out_of_time_is_queued_again_and_goes_on(slurm, folder):  # noqa: F811
    options = ("--submit", "slurm", "--submit-options", "partition=low,cpus=1,time=2,grace=80")
    result = run_cli("queue", "add", "tiny.toml", "train.epochs=3000", "--name", "run", *options, cwd=folder)
    assert result.returncode == 0 and "Submitted run as Slurm job" in result.stdout, result.stderr
    run = run_of(folder, "run")
    slurm.wait(lambda: run.state() == "pending" and events_of(run, "end"), "the end of the time limit")
    done = events_of(run, "step")[-1]["step"]
    slurm.start_requeued()
    slurm.wait(lambda: events_of(run, "step")[-1]["step"] > done + 5, "the run to go on")
    assert not run.stop_file.exists() and events_of(run, "resume")[-1]["step"] == done
    result = run_cli("stop", "run", cwd=folder)
    assert result.returncode == 0, result.stderr
    slurm.wait(lambda: run.state() == "stopped", "the run to stop")
    slurm.wait(lambda: "run" not in slurm.command("squeue", "--noheader", "--format=%j"), "its job to end")
    again = run_cli("resume", "run", *OPTIONS, cwd=folder)
    assert again.returncode == 0 and "Submitted run" in again.stdout
    twice = run_cli("resume", "run", *OPTIONS, cwd=folder)
    assert twice.returncode == 1
    slurm.wait(lambda: run.state() == "running", "the run to go on once more")
    killed = run_cli("kill", "run", "--yes", cwd=folder)
    assert killed.returncode == 0, killed.stderr
    slurm.wait(lambda: run.state() == "killed", "the run to be killed")


@pytest.mark.long
def test_a_local_job_that_has_to_end_goes_on_from_its_checkpoint(folder):
    """submitit's executor for this machine, which needs no Slurm."""
    pytest.importorskip("submitit")
    assert run_cli("run", "tiny.toml", "--name", "whole", "train.steps=200", cwd=folder).returncode == 0
    words = ("run", "tiny.toml", "--name", "run", "train.steps=200", "--submit", "local")
    result = run_cli(*words, cwd=folder)
    assert result.returncode == 0 and "Submitted run as local job" in result.stdout, result.stderr
    run = run_of(folder, "run")
    wait_for_step(run, 5)
    # The parent of the run's process is the job's, which the cluster's signal goes to.
    psutil.Process(run.facts()["pid"]).parent().send_signal(signal.SIGUSR2)
    wait_for(lambda: run.state() == "finished", "the run to go on")
    assert len(events_of(run, "start")) == 2 and events_of(run, "end")[0]["outcome"] == "stopped"
    assert_same_end(run, run_of(folder, "whole"))
    assert run_cli("run", "tiny.toml", "--name", "bad", "--submit", "local", "--submit-options", "nodes=2").returncode
    assert not (folder / "runs" / "bad").exists()


@pytest.mark.slow
def test_two_tasks_of_a_job_train_together(slurm, folder):  # noqa: F811
    options = ("--submit", "slurm", "--submit-options", "partition=low,cpus=1,tasks=2,time=30")
    result = run_cli("run", "tiny.toml", "--name", "two", "train.steps=20", *options, cwd=folder)
    assert result.returncode == 0, result.stderr
    run = run_of(folder, "two")
    slurm.wait(lambda: run.state() in ("finished", "failed", "killed", "stopped"), "two tasks to train")
    text = run.log.read_text()
    assert run.state() == "finished", text + slurm.logs()
    assert "Process 1 of 2" in text and len(list((folder / "runs").glob("[!.]*"))) == 1
