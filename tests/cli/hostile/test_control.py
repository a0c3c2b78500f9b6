"""Killing, deleting, queueing, collecting: a folder from elsewhere names processes and files that are not its own."""

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
from support.command_line import invoke
from support.fake_runs import fake_run, work_on

from rotnet_keras.runs import launch, queue
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.launch import create_run
from rotnet_keras.runs.processes import process_identity

SLEEP = "import time; time.sleep(300)"


@pytest.fixture
def process(request):
    """A process of this user; a test can give the word that its command line ends with."""
    with subprocess.Popen([sys.executable, "-c", SLEEP, getattr(request, "param", "mine")]) as child:
        process = psutil.Process(child.pid)
        # A process that the kernel is still starting has no command line yet.
        while not process.cmdline():
            time.sleep(0.001)
        yield process
        child.kill()


def naming(process, runs_dir, locked):
    """A run folder that names a process as its own."""
    facts = process_identity(process) | {"created": time.time()}
    run = create_run(runs_dir, "a", 'kind = "pretrain"\n', facts)
    run.events_file.write_text(json.dumps({"kind": "step", "time": time.time(), "step": 1}) + "\n")
    if locked:
        work_on(run)
    return run


@pytest.mark.parametrize("process", ["rotnet_keras"], indirect=True)
def test_a_process_is_not_a_runs_only_because_the_folder_names_it(tmp_path, process):
    """Of the run whose folder was copied, for example: only whoever works on a run holds its lock."""
    run = naming(process, tmp_path, locked=False)
    assert not run.alive() and run.state() == "killed"
    for command in ("kill", "stop"):
        result = invoke(command, "a", *["--yes"][: command == "kill"], "--runs-dir", tmp_path)
        assert result.returncode == 1 and "a is not running on this machine: it is killed" in result.stderr
    assert process.is_running() and not run.stop_file.exists()


def test_a_process_that_is_no_run_is_not_killed(tmp_path, process):
    naming(process, tmp_path, locked=True)
    result = invoke("kill", "a", "--yes", "--runs-dir", tmp_path)
    assert result.returncode == 1 and f"names process {process.pid}, which is not a run of this user" in result.stderr
    assert "Nothing was killed" in result.stderr and process.is_running()


@pytest.mark.parametrize("process", ["rotnet_keras"], indirect=True)
def test_a_run_of_somebody_else_is_not_killed(tmp_path, process, monkeypatch):
    naming(process, tmp_path, locked=True)
    other = os.getuid() + 1
    monkeypatch.setattr(psutil.Process, "uids", lambda self: SimpleNamespace(real=other))
    result = invoke("kill", "a", "--yes", "--runs-dir", tmp_path)
    assert result.returncode == 1 and "not a run of this user" in result.stderr and process.is_running()


def test_only_a_run_in_the_runs_folder_is_deleted(tmp_path):
    runs = tmp_path / "runs"
    fake_run(runs, "kept", epochs=1, outcome="finished")
    elsewhere = fake_run(tmp_path / "other", "far", epochs=1, outcome="finished")
    project = runs / "project"
    project.mkdir()
    (project / "recipe.toml").write_text('kind = "pretrain"\n')
    (project / "thesis.tex").write_text("years of work")
    (runs / "link").symlink_to(elsewhere.path)
    (runs / "sibling").symlink_to(runs / "kept")
    for name, reason in (
        ("link", "is a link to"),
        ("sibling", "is a link to"),
        (elsewhere.path, f"add: --runs-dir {elsewhere.path.parent}"),
        (runs / "project" / ".." / ".." / "other" / "far", "is not in the runs folder"),
        ("project", "has no run.json of rotnet-keras"),
    ):
        for command in (("delete", name, "--yes"), ("queue", "remove", name)):
            result = invoke(*command, "--runs-dir", runs)
            assert result.returncode == 1 and reason in result.stderr and "nothing was deleted" in result.stderr
    assert elsewhere.events() and RunFolder(runs / "kept").events() and (project / "thesis.tex").exists()
    assert invoke("delete", "kept", "--yes", "--runs-dir", runs).returncode == 0
    assert not (runs / "kept").exists()


def test_a_run_folder_that_is_deleted_takes_nothing_with_it_that_a_link_names(tmp_path):
    run = fake_run(tmp_path / "runs", "a", epochs=1, outcome="finished")
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "one.jpg").write_bytes(bytes(5_000_000))
    (run.path / "samples" / "photos").symlink_to(photos)
    result = invoke("delete", "a", "--yes", "--runs-dir", tmp_path / "runs")
    assert result.returncode == 0 and "(5." not in result.stdout and not run.path.exists()
    assert (photos / "one.jpg").stat().st_size == 5_000_000


RECIPE = 'kind = "pretrain"\n'


def queued(runs_dir, name, by=None, recipe=RECIPE):
    return create_run(runs_dir, name, recipe, {"created": 1.0, "queued": 1.0, **({"queued_by": by} if by else {})})


def test_the_worker_starts_only_what_this_user_has_queued_in_this_folder(tmp_path, monkeypatch):
    runs, other = tmp_path / "runs", tmp_path / "other"
    runs.mkdir()
    other.mkdir()
    ours = queue.signature(RECIPE.encode(), 1.0, runs)
    mine = queued(runs, "mine", ours)
    queued(runs, "unsigned")
    queued(runs, "guessed", "0" * 64)
    queued(runs, "changed", ours, f"{RECIPE}seed = 5\n")
    queued(runs, "copied", queue.signature(RECIPE.encode(), 1.0, other))
    queued(runs, "wrong", ["x"])
    started = []

    def start(run, device):
        started.append(run.name)
        run.facts_file.write_text(json.dumps(run.facts() | {"pid": 2**22}))
        return subprocess.Popen(["true"])

    monkeypatch.setattr(launch, "start_detached", start)
    monkeypatch.setattr(queue, "POLL_SECONDS", 0.01)
    listed = invoke("queue", "list", "--runs-dir", runs).stdout
    assert listed.count("you have not queued it in this folder") == 5 and "skips mine" not in listed
    result = invoke("queue", "work", "--runs-dir", runs)
    assert result.returncode == 0 and started == ["mine"] and mine.queued_since() is None
    assert "unsigned could not be started and is skipped: you have not queued it in this folder" in result.stdout
    assert f"start it with: rotnet-keras resume unsigned --runs-dir {runs}" in result.stdout
    # A moved folder is the same one; a key of another user is another one.
    runs.rename(tmp_path / "moved")
    again = queued(tmp_path / "moved", "again", ours)
    assert queue.was_queued_here(again)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "theirs"))
    assert not queue.was_queued_here(again)
    key = tmp_path / "theirs" / "rotnet-keras" / "queue.key"
    assert key.stat().st_mode & 0o777 == 0o600 and key.parent.stat().st_mode & 0o777 == 0o700
    assert list(key.parent.iterdir()) == [key]


def test_a_worker_that_a_file_claims_is_none(tmp_path):
    identity = json.dumps(process_identity(psutil.Process()))
    (tmp_path / queue.LOCK).write_text(identity)
    assert queue.worker_pid(tmp_path) is None
    with (tmp_path / queue.LOCK).open("ab") as file:
        queue.lock(file, tmp_path)
        assert queue.worker_pid(tmp_path) == os.getpid()
    (tmp_path / queue.LOCK).unlink()
    (tmp_path / queue.LOCK).symlink_to(tmp_path / "elsewhere")
    result = invoke("queue", "work", "--runs-dir", tmp_path)
    assert result.returncode == 1 and "a link" in result.stderr and not (tmp_path / "elsewhere").exists()


def without_locks(file, operation):
    raise OSError(95, "Operation not supported")


def test_on_a_disk_without_locks_nothing_is_queued_and_nothing_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", without_locks)
    runs = tmp_path / "runs"
    result = invoke("queue", "add", "quickstart", "--runs-dir", runs)
    assert result.returncode == 1 and "is on a disk without file locks (Operation not supported)" in result.stderr
    assert "choose another folder with --runs-dir" in result.stderr and not list(runs.glob("[!.]*"))


def study(runs_dir, recipe_name):
    run = fake_run(runs_dir, "study", epochs=1, outcome="finished")
    run.recipe.write_text(
        'kind = "study"\ntitle = "[/] $x"\npaper = "p"\nscale = "a; touch b"\n'
        '[scales."a; touch b"]\nnote = "n"\nrecipes = {}\n'
        '[[table]]\ntitle = "$\\\\frac"\nx = "labels"\n'
        'entry = [{row = "$\\\\bad{", run = "r", column = "1"}, {row = "b", run = "r", column = "2"}]\n'
    )
    run.facts_file.write_text(json.dumps(run.facts() | {"recipe": recipe_name}))
    measures = [{"value": 0.5}]
    event = {"kind": "run", "time": 1, "step": 1, "name": "r", "seed": 0, "folder": "f", "measures": measures}
    end = run.events_file.read_text().splitlines()[-1]
    run.events_file.write_text(f"{json.dumps(event)}\n{end}\n")
    return run


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/b", ".hidden", "", "--help", "a\nb"])
def test_collect_writes_nothing_by_a_name_that_leaves_its_folder(tmp_path, name):
    study(tmp_path / "runs", name)
    result = invoke("collect", "study", "--output", tmp_path / "results", "--runs-dir", tmp_path / "runs")
    assert result.returncode == 1 and "expected a plain name, which becomes that of a folder" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "runs"]
    assert not list((tmp_path / "results").iterdir())


def test_collect_refuses_a_folder_with_a_link_and_follows_none_in_its_output(tmp_path):
    run = study(tmp_path / "runs", "mine")
    secret = tmp_path / "secret"
    secret.write_text("mine")
    command = ("collect", "study", "--output", tmp_path / "results", "--runs-dir", tmp_path / "runs")
    run.figures.mkdir()
    (run.figures / "photo.png").symlink_to(secret)
    result = invoke(*command)
    assert result.returncode == 1 and "photo.png is a link" in result.stderr and not (tmp_path / "results").exists()
    (run.figures / "photo.png").unlink()
    (tmp_path / "results" / "mine").mkdir(parents=True)
    (tmp_path / "results" / "mine" / "events.jsonl").symlink_to(secret)
    assert invoke(*command).returncode == 0
    assert secret.read_text() == "mine"
    assert "r" in {event.get("name") for event in RunFolder(tmp_path / "results" / "mine").events()}
    page = (tmp_path / "results" / "README.md").read_text()
    assert "rotnet-keras run mine.toml 'scale=a; touch b'" in page
    assert sorted(path.name for path in (tmp_path / "results" / "mine" / "figures").iterdir()) == [
        "table-0.png",
        "table-0.svg",
    ]


@pytest.mark.parametrize(
    ("whole", "damaged", "problem"),
    [
        ('run = "r", column = "1"', 'run = [], column = "1"', "table.0.entry.0.run: expected a string, got []"),
        ("recipes = {}", "recipes = {a = 0.5}", "recipes.a: expected a string, got 0.5"),
        ('note = "n"', "note = 1", "note: expected a string, got 1"),
        ('kind = "study"', 'kind = "stud"', "kind: expected one of 'pretrain', 'classify'"),
    ],
)
def test_reports_of_a_recipe_that_makes_no_sense_end_in_one_message(tmp_path, whole, damaged, problem):
    run = study(tmp_path / "runs", "mine")
    text = run.recipe.read_text()
    assert whole in text
    run.recipe.write_text(text.replace(whole, damaged))
    for words in (("report", "study"), ("collect", "study", "--output", tmp_path / "results")):
        result = invoke(*words, "--runs-dir", tmp_path / "runs")
        assert result.returncode == 1 and problem in result.stderr and str(run.recipe) in result.stderr
    assert not (run.path / "report.html").exists() and not (tmp_path / "results").exists()
