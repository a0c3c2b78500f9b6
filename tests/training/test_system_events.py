"""What a run records of its machine."""

import json
import time
from pathlib import Path

import psutil
import pytest
from support.command_line import invoke
from support.fake_runs import fake_run, work_on

from rotnet_keras.runs.event_fields import event_problem
from rotnet_keras.runs.events import EventReader, EventWriter
from rotnet_keras.runs.launch import create_run
from rotnet_keras.runs.machine_load import GpuLoad, own_gpus
from rotnet_keras.runs.processes import process_identity
from rotnet_keras.runs.status import comparison_table
from rotnet_keras.training import system_events
from rotnet_keras.training.system_events import SystemEvents


def test_a_run_writes_what_it_uses_ever_more_rarely_and_nothing_after_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(system_events, "SECONDS", 0.02)
    monkeypatch.setattr(system_events, "EVENTS", 4)
    file = tmp_path / "events.jsonl"
    writer = EventWriter(file)
    measured = SystemEvents(lambda **values: writer.write("system", **values), tmp_path)
    measured.start()
    end = time.monotonic() + 20
    while measured.interval < 0.08:
        assert time.monotonic() < end and sum(n * n for n in range(1000))
    measured.stop()
    writer.write("end", outcome="finished", message="")
    time.sleep(0.2)
    *found, last = EventReader(file).new_events()
    assert last["kind"] == "end" and len(found) >= 8
    assert not any(map(event_problem, found))
    memory = psutil.Process().memory_info().rss
    assert all(0.5 * memory < e["memory"] and e["disk_free"] > 0 and e["machine_memory"] > 0 for e in found)
    assert max(e["cpu"] for e in found if e["cpu"] is not None) > 10


def test_a_measurement_takes_less_than_half_a_percent_of_a_core():
    measured = SystemEvents(lambda **values: None, Path.cwd())
    measured._measure()
    before = time.thread_time()
    for _ in range(5):
        measured._measure()
    assert (time.thread_time() - before) / 5 < 0.005 * system_events.SECONDS


def test_a_run_that_hangs_counts_as_stalled_though_it_goes_on_measuring(tmp_path):
    run = create_run(tmp_path, "hangs", "", {**process_identity(psutil.Process())})
    now = time.time()
    steps = [{"kind": "step", "time": now - 1000 + n, "step": n} for n in range(1, 6)]
    load = [{"kind": "system", "time": now - n, "cpu": 1.0} for n in range(900, 0, -1)]
    # One that another program has written, in another order.
    load.append({"time": now, "kind": "system", "cpu": 1.0})
    run.events_file.write_text("".join(json.dumps(e, separators=(",", ":")) + "\n" for e in [*steps, *load]))
    work_on(run)
    assert run.state() == "stalled"
    assert {e["kind"] for e in (*run.last_events(), *run.newest_events(["step"]))} == {"step"}
    assert len(run.events()) == 906


@pytest.mark.parametrize(("visible", "expected"), [(None, [0, 1, 2]), ("", []), ("-1", []), ("2,0", [0, 2])])
def test_only_the_gpus_of_the_run_are_recorded(visible, expected):
    gpus = [GpuLoad(n, 1.0, 1.0, 2.0, 50.0, 100.0) for n in range(3)]
    found = own_gpus(gpus, {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    assert [gpu.index for gpu in found] == expected


@pytest.mark.long
def test_reports_and_comparisons_say_what_a_run_used(runs_dir):
    runs = [fake_run(runs_dir, name, epochs=4, outcome="finished") for name in "ab"]
    _, rows = comparison_table(runs)
    found = {row[0]: row[1:] for row in rows}
    assert found["CPU of the run"] == ["156 % of a core on average"] * 2
    assert found["memory of the run"] == ["1.5 GB at most"] * 2
    assert found["GPU 0"] == ["83 % on average, 8.0 GB at most, 250 W on average"] * 2
    assert invoke("report", "a").returncode == 0
    page = (runs[0].path / "report.md").read_text()
    assert "| GPU 0 | 83 % on average" in page and "![Machine](figures/system.png)" in page
    assert (runs[0].figures / "system.png").stat().st_size > 5000
