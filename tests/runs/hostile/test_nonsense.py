"""Run folders that make no sense hide no other, and cost neither time nor memory."""

import json
import signal
import tracemalloc

import pytest
from support.command_line import invoke
from support.nonsense import NONSENSE, make_nonsense

from rotnet_keras.runs import events
from rotnet_keras.runs.events import EventReader, EventWriter, lines_from_end
from rotnet_keras.runs.folder import RunFolder, list_runs


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory):
    """All of them in one folder."""
    folder = tmp_path_factory.mktemp("nonsense")
    make_nonsense(folder)
    return folder


@pytest.fixture(autouse=True)
def in_time():
    """Waiting for a pipe or a device would last for ever."""
    signal.alarm(60)
    yield
    signal.alarm(0)


def test_the_list_has_all_of_them(runs_dir):
    result = invoke("runs", "--json", "--runs-dir", runs_dir)
    assert result.returncode == 0 and result.stderr == ""
    found = {run["name"]: run for run in json.loads(result.stdout)}
    assert set(found) == {"good", *NONSENSE}
    assert found["good"]["state"] == "finished" and found["good"]["object_accuracy"] == 0.77
    assert all(isinstance(run["created"], (int, float, type(None))) for run in found.values())
    table = invoke("runs", "--runs-dir", runs_dir)
    assert table.returncode == 0 and len(table.stdout.splitlines()) == len(found) + 1
    assert not set(table.stdout) & {"\x1b", "\x00"}


@pytest.mark.parametrize("command", ["status", "logs"])
def test_each_is_told_of_or_refused_in_a_line(runs_dir, command):
    for name in NONSENSE:
        result = invoke(command, runs_dir / name, "--runs-dir", runs_dir)
        assert result.returncode in (0, 1), (name, result.stderr)
        assert (len(result.stderr.splitlines()) == 1) == (result.returncode == 1), (name, result.stderr)


def test_each_is_compared_or_refused_in_a_line(runs_dir):
    for name in NONSENSE:
        result = invoke("compare", "good", runs_dir / name, "--runs-dir", runs_dir)
        assert result.returncode in (0, 1) and len(result.stderr.splitlines()) == result.returncode, name


@pytest.mark.parametrize("command", ["queue list", "queue list --json"])
def test_the_queue_is_listed(runs_dir, command):
    assert invoke(*command.split(), "--runs-dir", runs_dir).returncode == 0


def test_an_unknown_outcome_is_no_state(runs_dir):
    states = {RunFolder(runs_dir / name).state() for name in NONSENSE if name.startswith("outcome_")}
    assert states == {"unknown"}


def test_a_long_line_is_skipped_and_never_held(tmp_path, monkeypatch):
    most = 1 << 16
    for name in ("MAX_LINE_BYTES", "MAX_BLOCK_BYTES"):
        monkeypatch.setattr(events, name, most)
    path = tmp_path / "events.jsonl"
    first, last = b'{"kind":"start","time":1}\n', b'{"kind":"end","time":2}\n'
    with path.open("wb") as file:
        file.write(first)
        file.truncate(100 * most)
        file.seek(0, 2)
        file.write(b"\n" + last)
    tracemalloc.start()
    reader = EventReader(path)
    assert [event["kind"] for event in reader.new_events()] == ["start", "end"] and reader.unreadable == 1
    assert [line + b"\n" for line in lines_from_end(path)] == [last, first]
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + 100 * most)
    assert list(reader.new_events()) == [] and [line + b"\n" for line in lines_from_end(path)] == [last, first]
    EventWriter(path).close()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * most
    assert path.read_bytes().endswith(last)


def test_folders_that_may_not_be_read_are_named(runs_dir, monkeypatch):
    names = {"good", "markup"}
    lstat = type(runs_dir).lstat

    def refused(path):
        if path.parent.name in names:
            raise PermissionError(13, "Permission denied", str(path))
        return lstat(path)

    monkeypatch.setattr(type(runs_dir), "lstat", refused)
    closed = []
    assert not names & {run.name for run in list_runs(runs_dir, closed)} and {path.name for path in closed} == names
    result = invoke("runs", "--runs-dir", runs_dir)
    assert result.returncode == 0 and "2 folders: " in result.stderr and "may not be read" in result.stderr
