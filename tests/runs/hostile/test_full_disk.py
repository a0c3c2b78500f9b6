"""A disk that is full when a run is to start: it is said where the command was typed, and nothing is left."""

import errno
import os
from pathlib import Path

import pytest
from support.fake_runs import fake_run

from rotnet_keras.errors import RunError
from rotnet_keras.runs.launch import create_run
from rotnet_keras.tasks import run as tasks
from rotnet_keras.training import session


def full(*arguments, **keywords):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_run_that_does_not_fit_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunError, match=r"cannot create a run folder in .*: No space left on device"):
        create_run(tmp_path, "a", "", {})
    assert list(tmp_path.iterdir()) == []


def test_it_is_said_where_the_command_was_typed_and_not_in_the_log(tmp_path, monkeypatch, capfd):
    """Output goes to the log from early on, and the log is on the disk that is full."""
    run = fake_run(tmp_path, "a", epochs=1, outcome="stopped")
    log = run.log.read_text()
    before = run.facts_file.read_text()
    monkeypatch.setattr(session, "write_atomically", full)
    pid = os.fork()
    if not pid:
        try:
            tasks.run(run)
        except RunError as error:
            os.write(1, f"said: {error}\n".encode())
        finally:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    said = capfd.readouterr().out
    assert "said: a cannot be started, because its folder cannot be written: [Errno 28] No space left on device" in said
    assert "start it with: rotnet-keras resume a --runs-dir" in said
    assert run.log.read_text() == log and run.facts_file.read_text() == before
    assert not list(run.path.glob(".*"))
