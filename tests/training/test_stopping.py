"""Requests to stop: signals and the file `stop`."""

import os
import signal

import pytest

from rotnet_keras.errors import RunStopped
from rotnet_keras.training.stopping import Stop

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def stop(tmp_path):
    before = [signal.getsignal(number) for number in SIGNALS]
    yield Stop(tmp_path / "stop")
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_exit_code_is_that_of_the_signal(stop, number, code):
    stop.check()
    os.kill(os.getpid(), number)
    with pytest.raises(RunStopped) as stopped:
        stop.check()
    assert stopped.value.exit_code == code


def test_a_second_signal_ends_the_process_at_once(stop, monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.requested() and not ended
    os.kill(os.getpid(), signal.SIGINT)
    assert ended == [130]


def test_a_closed_terminal_stops_nothing(stop):
    os.kill(os.getpid(), signal.SIGHUP)
    assert not stop.requested()


def test_a_stop_file_stops_and_an_old_one_does_not(tmp_path, stop):
    stop.check()
    (tmp_path / "stop").touch()
    with pytest.raises(RunStopped) as stopped:
        stop.check()
    assert stopped.value.exit_code == 143
    assert not Stop(tmp_path / "stop").requested() and not (tmp_path / "stop").exists()
