"""Runs that are jobs of a cluster: their states, cancelling, what is not believed. Programs stand in for Slurm's."""

import json
import os
import threading
import time

import pytest
from support.command_line import invoke
from support.fake_runs import fake_run

from rotnet_keras.config.loading import load_recipe, to_toml
from rotnet_keras.config.submit_options import parse_submit_options
from rotnet_keras.errors import RecipeError, RunError
from rotnet_keras.runs.cluster import jobs
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.launch import create_run
from rotnet_keras.runs.queue import is_signed, sign


class FakeSlurm:
    """Programs that answer as Slurm's would, and write down how they were called."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("squeue", "scancel", "sbatch", "srun", "scontrol"):
            program = folder / name
            program.write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/calls\ncat {folder}/{name}.out 2>/dev/null\n')
            program.chmod(0o755)
        self.say()

    def say(self, *lines):
        """What squeue prints from now on."""
        (self.folder / "squeue.out").write_text("".join(f"{line}\n" for line in lines))
        jobs._queue.forget()

    def calls(self):
        return (self.folder / "calls").read_text() if (self.folder / "calls").exists() else ""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    folder = tmp_path / "slurm"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(jobs, "_queue", jobs._Queue())
    return FakeSlurm(folder)


@pytest.fixture
def waiting(runs_dir, slurm):
    """A run that was submitted and has no process yet."""
    run = create_run(runs_dir, "waiting", to_toml(load_recipe("quickstart")), {"created": 1.0, "recipe": "quickstart"})
    jobs.note_job(run.path, "slurm", "17")
    return RunFolder(run.path.resolve())


def test_a_run_has_the_state_of_its_job_until_it_has_a_process(waiting, slurm):
    slurm.say("18|RUNNING|node7|None|/somewhere/else", f"17|PENDING||Priority|{waiting.path}")
    assert waiting.state() == "pending"
    assert str(waiting.job()) == "Slurm job 17, pending (Priority)"
    slurm.say(f"17|RUNNING|node7|None|{waiting.path}")
    assert waiting.state() == "starting" and str(waiting.job()) == "Slurm job 17 on node7"
    slurm.say()
    assert waiting.state() == "killed"


def test_where_slurm_cannot_be_asked_a_submitted_run_is_pending(waiting, slurm, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    jobs._queue.forget()
    assert waiting.state() == "pending" and str(waiting.job()) == "Slurm job 17, unknown"


@pytest.mark.parametrize(
    ("outcome", "line", "expected"),
    [
        ("stopped", "PENDING||BeginTime", "pending"),
        # Its last event is old: its process is starting again.
        ("stopped", "RUNNING|node7|None", "starting"),
        ("stopped", "COMPLETING|node7|None", "stopping"),
        ("stopped", None, "stopped"),
        ("finished", "COMPLETING|node7|None", "finished"),
        ("failed", "PENDING||JobHeldUser", "failed"),
        (None, "RUNNING|node7|None", "stopping"),
        (None, "PENDING||BeginTime", "pending"),
        (None, None, "killed"),
    ],
)
def test_a_job_that_makes_room_is_pending_again(runs_dir, slurm, outcome, line, expected):
    run = fake_run(runs_dir, "made_room", epochs=1, outcome=outcome)
    run = RunFolder(run.path.resolve())
    jobs.note_job(run.path, "slurm", "3")
    slurm.say(*([f"3|{line}|{run.path}"] if line else []))
    assert run.state() == expected


def test_stop_cancels_a_pending_job_and_says_how_to_start_it(waiting, slurm, runs_dir):
    slurm.say(f"17|PENDING||Resources|{waiting.path}")
    program = slurm.folder / "scancel"
    program.write_text(f"{program.read_text()}: > {slurm.folder}/squeue.out\n")
    result = invoke("stop", "waiting")
    assert result.returncode == 0 and "Cancelled the job of waiting" in result.stdout, result.stderr
    assert "scancel --state=PENDING 17" in slurm.calls()
    assert waiting.state() == "stopped"
    said = invoke("status", "waiting").stdout
    assert "Its job was cancelled before it began" in said and "resume waiting" in said


def test_the_list_of_runs_says_where_jobs_are(waiting, slurm):
    slurm.say(f"17|PENDING||Priority|{waiting.path}")
    said = invoke("runs").stdout
    assert "pending" in said and "Slurm job 17, pending (Priority)" in said
    (found,) = json.loads(invoke("runs", "--json").stdout)
    assert found["job"] == "Slurm job 17, pending (Priority)"
    assert "To cancel it: rotnet-keras stop waiting" in found["message"]
    assert invoke("resume", "waiting").returncode == 1
    assert "Stop it first" in invoke("delete", "waiting", "--yes").stderr


def test_a_folder_of_others_names_no_job_of_this_user(waiting, slurm):
    """The number in `job.json` is never used: Slurm's comment says whose job it is."""
    (waiting.path / "job.json").write_text('{"cluster": "slurm", "id": "99; rm -rf /"}')
    slurm.say("99|RUNNING|node7|None|/my/other/run")
    assert waiting.state() == "killed"
    for end in (jobs.kill_job, jobs.cancel_pending):
        with pytest.raises(RunError, match="has no job"):
            end(waiting.path)
    assert "scancel" not in slurm.calls()
    (waiting.path / "job.json").write_text("[" * 1000)
    assert waiting.job() is None


def test_a_screen_does_not_wait_for_slurm(waiting, slurm):
    program = slurm.folder / "squeue"
    program.write_text(f"#!/bin/sh\nsleep 0.5\necho '17|PENDING||Priority|{waiting.path}'\n")
    jobs.ask_in_background()
    began = time.monotonic()
    assert waiting.job().state == "unknown"
    assert time.monotonic() - began < 0.3
    for thread in threading.enumerate():
        if thread.daemon and thread is not threading.current_thread():
            thread.join(timeout=5)
    assert waiting.job().state == "pending"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("partition=gpu,gpus=2,time=4:30:00", {"partition": "gpu", "gpus": 2, "minutes": 270}),
        ("partition=a,b,memory=3.5,time=90", {"partition": "a,b", "memory": 3.5, "minutes": 90}),
        ("time=1-12", {"minutes": 36 * 60}),
        ("time=2:30,grace=30", {"minutes": 3}),
        (None, {"minutes": 24 * 60, "nodes": 1}),
    ],
)
def test_options_of_a_submission_are_read(text, expected):
    options = parse_submit_options(text)
    assert {**options.model_dump(), "minutes": options.minutes()} | expected == {
        **options.model_dump(),
        "minutes": options.minutes(),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("partitoin=gpu", "did you mean 'partition'"),
        ("partition=a b\n#SBATCH --wrap=x", "partition"),
        ("gpus=many", "gpus"),
        ("time=soon", "expected minutes, H:MM:SS"),
        ("time=1,grace=90", "grace: expected fewer seconds"),
        ("setup=module load cuda", "setup is a list of commands"),
        ("gpu", "expected KEY=VALUE"),
        ("nowhere.toml", "cannot be read"),
    ],
)
def test_a_mistake_in_the_options_is_named(text, said):
    with pytest.raises(RecipeError, match="--submit-options") as error:
        parse_submit_options(text)
    assert said in str(error.value)


def test_options_in_a_file_may_have_commands_to_run_first(tmp_path):
    file = tmp_path / "gpu.toml"
    file.write_text('partition = "gpu"\nsetup = ["module load cuda"]\ntime = 30\n')
    options = parse_submit_options(str(file))
    assert options.setup == ["module load cuda"] and options.minutes() == 30
    file.write_text('setup = ["a\\nb"]')
    with pytest.raises(RecipeError, match="without line breaks"):
        parse_submit_options(str(file))


def test_submission_is_checked_before_anything_is_made(runs_dir, tmp_path, monkeypatch):
    result = invoke("run", "quickstart", "--submit-options", "gpus=1")
    assert result.returncode == 2 and "--submit-options needs --submit slurm" in result.stderr
    monkeypatch.setenv("PATH", "/nowhere")
    result = invoke("run", "quickstart", "--submit", "slurm")
    assert result.returncode == 1 and "use a login node" in result.stderr
    result = invoke("run", "quickstart", "--submit", "slurm", "--submit-options", "gpus=x")
    assert result.returncode == 2 and "gpus" in result.stderr
    assert not runs_dir.exists()


def test_only_the_user_s_own_study_submits_jobs(runs_dir):
    from rotnet_keras.tasks.study.jobs import submission_of

    submission = {"cluster": "slurm", "options": {"partition": "gpu", "time": "60"}}
    assert is_signed(submission, sign(submission)) and not is_signed({**submission, "cluster": "x"}, sign(submission))
    own = create_run(runs_dir, "own", "", {"submission": submission, "submission_by": sign(submission)})
    cluster, options = submission_of(own)
    assert cluster == "slurm" and options.partition == "gpu" and options.minutes() == 60
    other = create_run(runs_dir, "other", "", {"submission": submission, "submission_by": "0" * 64})
    with pytest.raises(RunError, match="you have not said so"):
        submission_of(other)
    assert submission_of(create_run(runs_dir, "plain", "", {})) is None
