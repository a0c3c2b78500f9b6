"""How a run ends when what lies under it fails, with a task that does nothing but fail."""

import errno
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.command_line import invoke
from support.whole_runs import events_of

from rotnet_keras.config.loading import to_toml
from rotnet_keras.errors import DataError
from rotnet_keras.files import write_atomically
from rotnet_keras.runs import launch
from rotnet_keras.runs.launch import create_run
from rotnet_keras.tasks import run as tasks


@pytest.fixture
def run(tmp_path):
    """The folder of a run that has not begun."""
    recipe, facts = launch.load_for_run("quickstart", {}, tmp_path)
    return create_run(tmp_path, "run", to_toml(recipe), facts)


def exit_code(run, task):
    """Run the folder with another task, in a process of its own, because its output goes to the run's log."""
    pid = os.fork()
    if not pid:
        code = 99
        try:
            tasks.TASKS["pretrain"] = task
            code = tasks.run(run)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fill_the_disk(session):
    with Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"a checkpoint")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_on_a_full_disk_a_run_ends_with_one_message_and_can_be_resumed(run):
    assert exit_code(run, fill_the_disk) == 1
    (end,) = events_of(run, "end")
    assert (end["outcome"], end["exit_code"]) == ("failed", 1)
    expected = "Error: [Errno 28] No space left on device. Saved files are intact. Resume with: rotnet-keras resume run"
    assert end["message"].startswith(expected) and run.log.read_text().count("Saved files are intact") == 1
    assert exit_code(run, lambda session: None) == 0 and run.state() == "finished"


def test_a_checkpoint_that_does_not_fit_leaves_the_ones_before(tmp_path, monkeypatch):
    write_atomically(tmp_path / "step-00000001.npz", b"whole")

    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for name in ("step-00000001.npz", "step-00000002.npz"):
        with pytest.raises(OSError, match="No space left"):
            write_atomically(tmp_path / name, b"other")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("step-00000001.npz", b"whole")]


def test_a_run_whose_folder_is_deleted_says_so(run, capfd):
    def delete(session):
        shutil.rmtree(session.folder.path)
        write_atomically(session.folder.checkpoints / "step-00000001.npz", b"")

    assert exit_code(run, delete) == 1
    assert capfd.readouterr().out.splitlines()[-1].endswith(f"the run folder {run.path} no longer exists")
    assert not run.path.exists()


def test_a_read_only_disk_is_reported(run, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "mkdir", refuse)
    monkeypatch.setattr("rotnet_keras.runs.events.open_to_append", refuse)
    for words, refused in (
        (("run", "quickstart"), f"cannot create a run folder in {tmp_path}"),
        (("resume", "run"), f"{run.events_file} cannot be written"),
    ):
        result = invoke(*words, "--runs-dir", tmp_path)
        assert result.returncode == 1 and result.stderr == f"{refused}: Read-only file system\n"


def test_a_detached_run_has_a_session_of_its_own(run, monkeypatch):
    """So neither a closed terminal nor a killed UI ends it."""
    look = "import os; print('own session:', os.getsid(0) == os.getpid(), os.read(0, 1))"
    monkeypatch.setattr(launch, "python_command", lambda *words: [sys.executable, "-c", look])
    assert launch.start_detached(run).wait(30) == 0
    assert run.log.read_text() == "own session: True b''\n"


def session_of(run):
    def record(**facts):
        run.facts_file.write_text(json.dumps(run.facts() | facts))

    return SimpleNamespace(folder=run, say=print, warn=print, record=record)


def test_a_run_does_not_continue_with_other_data(run):
    from rotnet_keras.training.setup import record_data

    def dataset(fingerprint, train=4):
        split = range(train)
        return SimpleNamespace(
            **{"name": "mine", "fingerprint": fingerprint, "old_fingerprint": lambda: "npz:old", "notes": []},
            **{"train": split, "validation": None, "test": None},
        )

    session = session_of(run)
    record_data(session, dataset("npz:1"), (8, 8, 3), ["a", "b"])
    record_data(session, dataset("npz:1"), (8, 8, 3), ["a", "b"])
    for changed, shape, classes, what in (
        (dataset("npz:2"), (8, 8, 3), ["a", "b"], "fingerprint: was npz:1, is npz:2"),
        (dataset("npz:1", 5), (8, 8, 3), ["a", "b"], "train: was 4, is 5"),
        (dataset("npz:1"), (8, 8, 1), ["a", "b"], "image_shape: was"),
        (dataset("npz:1"), (8, 8, 3), ["b", "a"], "classes: was"),
    ):
        with pytest.raises(DataError, match=rf"the data have changed since this run began \({what}"):
            record_data(session, changed, shape, classes)
    assert run.facts()["data"]["fingerprint"] == "npz:1"
