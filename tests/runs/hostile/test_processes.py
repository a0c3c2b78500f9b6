"""Processes are started without the current folder in their import path: what strangers put there does not run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.fake_runs import fake_run

from rotnet_keras import host
from rotnet_keras.runs import launch, queue

ROOT = Path(__file__).parents[3]
SOURCES = [path for folder in ("rotnet_keras", "tui", "scripts") for path in (ROOT / folder).rglob("*.py")]


@pytest.fixture
def hostile_folder(tmp_path, monkeypatch):
    """A current folder with a file by the name of a module that Python imports early; running it leaves a mark."""
    folder = tmp_path / "strange"
    folder.mkdir()
    (folder / "json.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\nraise SystemExit(9)\n")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    return tmp_path / "mark"


@pytest.mark.parametrize("arguments", [("-m", "rotnet_keras", "--version"), ("-c", "import json")])
def test_a_file_in_the_current_folder_is_not_imported(hostile_folder, arguments):
    subprocess.run(host.python_command(*arguments), stdout=subprocess.DEVNULL, check=True)
    assert not hostile_folder.exists()


def test_the_processes_of_runs_and_of_the_queue_do_not_import_it(hostile_folder, tmp_path):
    run = fake_run(tmp_path / "runs", "done", outcome="finished")
    for process in (launch.start_detached(run), queue.start_worker(tmp_path / "runs")):
        process.wait(60)
    assert "done is finished" in run.log.read_text()
    assert "the queue is empty" in (tmp_path / "runs" / queue.LOG).read_text()
    assert not hostile_folder.exists()


def test_one_function_alone_builds_the_commands_that_start_python():
    """Also those of studies, trials, the terminal UI, scripts, and whatever is added."""
    named = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        if re.search(r"\bexecutable\b(?!, \"-P\")", path.read_text(encoding="utf-8"))
    }
    assert named == {"rotnet_keras/host.py"}
    assert '"$python" -P -m gpu_check' in (ROOT / "scripts" / "gpu_check.sh").read_text(encoding="utf-8")
    assert host.python_command("-m", "x") == [sys.executable, "-P", "-m", "x"]
    assert host.python_command("x", isolated=True) == [sys.executable, "-I", "x"]
