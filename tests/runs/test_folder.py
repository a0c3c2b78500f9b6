import errno
import json
import os
import time

import psutil
import pytest
from support.fake_runs import fake_run, work_on, write_steps

from rotnet_keras.errors import RunError
from rotnet_keras.files import write_atomically
from rotnet_keras.runs.events import EventReader, EventWriter, is_locked, parse_event
from rotnet_keras.runs.folder import FORMAT, RunFolder, find_run, list_runs
from rotnet_keras.runs.launch import create_run
from rotnet_keras.runs.processes import process_identity
from rotnet_keras.runs.verdict import verdict


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path, "a", 'kind = "pretrain"\n', {"recipe": "a"})


def claim(run, pid=None, **facts):
    """Make `run.json` say that a process works on the run: this one, or none that is alive."""
    own = process_identity(psutil.Process())
    facts = {**own, "pid": pid or own["pid"], "host": os.uname().nodename, **facts}
    run.facts_file.write_text(json.dumps(facts))
    if not is_locked(run.events_file):
        work_on(run)


def write(run, *kinds, at=None):
    with run.events_file.open("a") as file:
        for i, kind in enumerate(kinds):
            event = {"kind": kind, "time": (at or time.time()) + i, "step": i + 1, "outcome": "finished"}
            file.write(json.dumps(event) + "\n")


def test_a_name_that_is_taken_gets_a_number(tmp_path, run):
    assert create_run(tmp_path, "a", "", {}).name == "a-2"
    assert [r.name for r in list_runs(tmp_path)] == ["a", "a-2"]


@pytest.mark.parametrize("name", ["../a", "a/b", "", ".a", "a\n", "x" * 200])
def test_a_name_cannot_leave_the_folder(tmp_path, name):
    with pytest.raises(RunError, match="cannot name a run"):
        create_run(tmp_path, name, "", {})


def test_states(run):
    claim(run)
    write(run, "start")
    assert run.state() == "starting"
    write(run, "step")
    assert run.state() == "running"
    run.stop_file.touch()
    assert run.state() == "stopping"
    write(run, "end")
    assert run.state() == "finished"


@pytest.mark.parametrize(
    ("ages", "state"),
    [
        ({"created": 0}, "starting"),
        ({"created": 100}, "killed"),
        ({"created": 100, "queued": 100}, "queued"),
        ({}, "killed"),
    ],
)
def test_a_run_without_a_process_is_queued_or_starting_or_killed(tmp_path, ages, state):
    facts = {name: time.time() - age for name, age in ages.items()}
    run = create_run(tmp_path, "b", "", facts)
    assert run.state() == state
    assert (run.queued_since() is not None) == (state == "queued")
    claim(run, **facts)
    assert run.state() == "starting" and run.queued_since() is None


def test_a_folder_of_a_newer_format_is_recognised(run):
    assert run.facts()["format"] == FORMAT and not run.has_newer_format()
    claim(run)
    assert not run.has_newer_format()
    claim(run, format=FORMAT + 1)
    assert run.has_newer_format()


def test_a_run_whose_process_is_gone_was_killed(run):
    claim(run, pid=2**22 + 1)
    write(run, "start", "step")
    assert run.state() == "killed"


def test_a_reused_process_number_is_not_the_run(run):
    claim(run, since_boot=process_identity(psutil.Process())["since_boot"] - 100)
    write(run, "start", "step")
    assert run.state() == "killed"


def test_setting_the_clock_does_not_make_a_live_run_look_killed(run, monkeypatch):
    claim(run)
    write(run, "start", "step")
    booted = psutil.boot_time()
    for module in (psutil, psutil._psplatform):
        monkeypatch.setattr(module, "boot_time", lambda: booted + 3600)
    assert abs(psutil.Process().create_time() - time.time()) > 1800, "psutil tells the time of day by the boot's"
    assert run.alive() and run.state() == "running"


def test_a_silent_run_is_stalled_only_after_many_of_its_own_step_intervals(run):
    claim(run)
    write(run, "start", *["step"] * 10, at=time.time() - 100)
    assert run.state() == "running"
    write(run, *["step"] * 10, at=time.time() - 1000)
    assert run.state() == "stalled"


def test_a_reader_waits_for_the_end_of_a_line_and_skips_lines_that_are_not_events(run):
    reader = EventReader(run.events_file)
    assert list(reader.new_events()) == []
    write(run, "start")
    with run.events_file.open("a") as file:
        file.write('not json\n[1]\n{"kind": "step", ')
    assert [e["kind"] for e in reader.new_events()] == ["start"]
    with run.events_file.open("a") as file:
        file.write('"time": 1, "step": 1}\n')
    assert [e["kind"] for e in reader.new_events()] == ["step"]
    assert reader.unreadable == 2


def test_raw_lines_can_be_taken_a_few_at_a_time(run):
    write(run, "start", "step", "step")
    reader = EventReader(run.events_file)
    assert b'"start"' in next(reader.new_lines())
    lines = list(reader.new_lines())
    assert [parse_event(line)["step"] for line in lines] == [2, 3]
    assert list(reader.new_lines()) == [] and reader.offset == run.events_file.stat().st_size
    assert parse_event(b"[1]\n") is None


def test_a_reader_begins_again_when_the_file_was_replaced_by_a_shorter_one(run):
    write(run, "start", "step", "step")
    reader = EventReader(run.events_file)
    assert len(list(reader.new_events())) == 3 and reader.restarted == 0
    run.events_file.unlink()
    write(run, "end")
    assert [e["kind"] for e in reader.new_events()] == ["end"] and reader.restarted == 1


def test_a_writer_cuts_off_a_torn_line_and_keeps_a_second_writer_out(run):
    write(run, "start")
    with run.events_file.open("a") as file:
        file.write('{"kind": "step", "ti')
    writer = EventWriter(run.events_file)
    with pytest.raises(RunError, match="running already"):
        EventWriter(run.events_file)
    writer.write("step", step=1, loss=float("nan"))
    writer.close()
    events = run.events()
    assert [e["kind"] for e in events] == ["start", "step"]
    assert events[1]["loss"] is None


def test_going_back_to_a_checkpoint_drops_the_events_after_it(run):
    writer = EventWriter(run.events_file)
    for kind, step in (("step", 1), ("step", 2), ("step", 3), ("resume", 2), ("step", 3)):
        writer.write(kind, step=step)
    assert [(e["kind"], e["step"]) for e in run.events()] == [("step", 1), ("step", 2), ("resume", 2), ("step", 3)]


def test_the_last_events_of_a_long_file_begin_with_a_whole_event(run):
    write(run, *["step"] * 3000)
    tail = run.last_events()
    assert 500 < len(tail) < 3000 and tail[-1]["step"] == 3000


def test_a_wrong_name_suggests_the_nearest(tmp_path, run):
    with pytest.raises(RunError, match="did you mean 'a'"):
        find_run("aa", tmp_path)
    assert find_run(str(run.path), tmp_path / "elsewhere").path == RunFolder(run.path).path


def test_a_file_that_cannot_be_written_whole_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_thinned_events_give_the_verdict_of_all_events(tmp_path):
    """A verdict on millions of steps must not take their memory."""
    run = fake_run(tmp_path, "long", epochs=6, outcome="stopped")
    write_steps(run, 5000)
    with run.events_file.open("a") as file:
        file.write('{"kind":"resume","time":501,"step":4100}\n')
        for step in range(4101, 4111):
            file.write(f'{{"kind":"step","time":{step},"step":{step},"loss":0.5,"accuracy":0.9}}\n')
    milestones, events = run.thinned_events(), run.events()
    assert len(milestones) < 40 < len(events)
    assert [e["step"] for e in milestones if e["kind"] == "epoch"] == [1000, 2000, 3000, 4000]
    assert [e["step"] for e in milestones if e["kind"] == "step"][-10:] == [*range(4101, 4111)]
    assert verdict(milestones) == verdict(events)
