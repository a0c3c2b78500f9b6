"""What a run does about the processes that mirror it: it says what they report, and waits for none in trouble."""

import sys
import time
from types import SimpleNamespace

import pytest

from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.training import tracking

HANG = "import time; time.sleep(60)"


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Start a mirror whose process runs some code instead; return it with what the run warned of and said."""
    session = SimpleNamespace(folder=RunFolder(tmp_path / "run"), warned=[], said=[])
    session.warn, session.say = session.warned.append, session.said.append
    started = []

    def start(code, wait=10.0):
        monkeypatch.setattr(tracking, "python_command", lambda *_: [sys.executable, "-uc", code])
        monkeypatch.setattr(tracking, "is_installed", lambda name: True)
        monkeypatch.setattr(tracking, "WAIT_SECONDS", wait)
        started.append(tracking.Tracking(session, ["mlflow"]))
        return started[-1], session

    yield start
    for each in started:
        for mirror in each._mirrors:
            mirror.process.kill()
            mirror.process.wait()


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_end_of_a_run_waits_for_a_mirror_that_works(begin):
    mirrors, session = begin("import time; print('say begun'); time.sleep(0.3); print('done has everything')")
    mirrors.no_more_events()
    mirrors.wait()
    assert session.said == ["begun", "has everything"] and not session.warned


def test_the_end_of_a_run_waits_a_little_for_a_mirror_that_hangs(begin):
    mirrors, session = begin(f"print('say begun'); {HANG}", wait=0.2)
    until(lambda: session.said)
    began = time.monotonic()
    mirrors.wait()
    assert 0.2 <= time.monotonic() - began < 5
    assert "goes on with what is not sent yet" in session.said[-1] and "rotnet-keras track run " in session.said[-1]


def test_the_end_of_a_run_does_not_wait_for_a_mirror_in_trouble(begin):
    mirrors, session = begin(f"print('warn MLflow fails'); {HANG}", wait=60.0)
    until(lambda: session.warned)
    began = time.monotonic()
    mirrors.wait()
    assert time.monotonic() - began < 5 and session.warned == ["MLflow fails"]


def test_after_the_end_event_a_warning_is_no_event(begin):
    mirrors, session = begin("import sys; sys.stdin.read(); import time; time.sleep(0.3); print('warn MLflow fails')")
    mirrors.no_more_events()
    until(lambda: session.said)
    assert session.said == ["Warning: MLflow fails"] and not session.warned


def test_a_tracker_that_is_not_installed_costs_a_resumed_run_a_warning(begin, monkeypatch):
    _, session = begin("")
    monkeypatch.setattr(tracking, "is_installed", lambda name: False)
    tracking.Tracking(session, ["wandb"]).wait()
    assert len(session.warned) == 1 and "pip install 'rotnet-keras[wandb]'" in session.warned[0]
