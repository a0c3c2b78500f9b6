"""What the terminal UI keeps of a run's events."""

import json
from itertools import pairwise

import pytest
from rotnet_tui.state.history import MAX_STEPS, History
from support.fake_runs import fake_run, write_steps

from rotnet_keras.reports.report import working_seconds
from rotnet_keras.runs import events
from rotnet_keras.runs.launch import create_run


def read_all(history):
    while history.poll() or not history.complete:
        pass


def test_a_long_history_is_thinned_and_keeps_its_epochs(tmp_path):
    run = create_run(tmp_path, "long", "", {})
    write_steps(run, 30 * MAX_STEPS // 10)
    history = History(run)
    read_all(history)
    steps = history.columns["step"]
    assert MAX_STEPS / 2 <= len(steps) <= MAX_STEPS and history.stride > 1
    assert {b - a for a, b in pairwise(steps)} == {history.stride}
    assert len(history.epochs) == 3 * MAX_STEPS // 1000 and history.latest["step"] == 3 * MAX_STEPS


def test_a_clock_that_is_set_back_and_a_pause_cost_no_time(tmp_path):
    run = create_run(tmp_path, "clock", "", {})
    times = [("start", 1000), ("step", 1010), ("step", 400), ("step", 410), ("start", 5000), ("step", 5003)]
    rows = [{"kind": kind, "time": at, "step": number, "loss": 1.0} for number, (kind, at) in enumerate(times)]
    run.events_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    history = History(run)
    read_all(history)
    assert list(history.columns["seconds"]) == [10, 10, 20, 23]
    assert working_seconds(run.events()) == 23


def test_a_history_goes_back_where_the_run_did(tmp_path):
    run = create_run(tmp_path, "back", "", {})
    write_steps(run, 2500)
    history = History(run)
    read_all(history)
    with run.events_file.open("a") as file:
        file.write('{"kind":"start","time":1000.0,"pid":1}\n{"kind":"resume","time":1001.0,"step":1500}\n')
        file.write('{"kind":"step","time":1002.0,"step":1510,"loss":0.5}\n')
    read_all(history)
    assert list(history.columns["step"])[-2:] == [1500, 1510] and len(history.epochs) == 1
    # Between the stop and the start, 750 seconds passed without work.
    assert history.columns["seconds"][-1] == pytest.approx(252, abs=1)


def test_what_a_thread_has_fetched_is_parsed_without_the_disk(runs_dir, monkeypatch):
    run = fake_run(runs_dir, "run", epochs=2, outcome="finished")
    whole = History(run)
    read_all(whole)
    monkeypatch.setattr(events, "FETCHED_BYTES", 300)
    history = History(run)
    while not history.complete:
        history.fetch()
        with monkeypatch.context() as patch:
            patch.setattr(events, "open_file", lambda *arguments: pytest.fail("the disk was asked"))
            history.poll()
    assert {name: list(map(repr, values)) for name, values in history.columns.items()} == {
        name: list(map(repr, values)) for name, values in whole.columns.items()
    }
    assert history.events == whole.events and history.end == whole.end
    # A file that has become shorter is another one: it is read anew.
    lines = run.events_file.read_bytes().splitlines(keepends=True)
    run.events_file.write_bytes(b"".join(lines[:5]))
    for _ in range(20):
        history.fetch()
        history.poll()
    assert history.complete and len(history.columns["step"]) < len(whole.columns["step"]) and history.end is None
