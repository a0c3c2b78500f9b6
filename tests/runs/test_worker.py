"""The queue's worker, with runs that do nothing but say that they were started."""

import os
import signal
import subprocess
import sys
import time

from rotnet_keras.runs import launch, queue
from rotnet_keras.runs.folder import list_runs
from rotnet_keras.runs.launch import create_run

# What a run does first: it names its process in run.json, and from then on waits no more.
RUN = """
import json, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
with (folder.parent / "started").open("a") as file:
    file.write(folder.name + "\\n")
facts = json.loads((folder / "run.json").read_text())
(folder / "run.json").write_text(json.dumps(facts | {"pid": 2**22, "since_boot": 1.0}))
time.sleep(float(sys.argv[2]))
"""


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def worker(runs_dir, first_takes):
    """The process of a worker whose runs take no time but for the first."""
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        queue.POLL_SECONDS = 0.02
        launch.start_detached = lambda run, device: subprocess.Popen(
            [sys.executable, "-c", RUN, run.path, str(first_takes if run.name == "a" else 0)], start_new_session=True
        )
        queue.run_worker(runs_dir)
        code = 0
    finally:
        os._exit(code)


def test_each_queued_run_is_started_once_also_when_the_worker_is_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    runs_dir, recipe = tmp_path / "runs", 'kind = "none"\n'
    runs_dir.mkdir()
    for number, name in enumerate("abc"):
        queued = 1.0 + number
        facts = {"queued": queued, "queued_by": queue.signature(recipe.encode(), queued, runs_dir)}
        create_run(runs_dir, name, recipe, {"recipe": "a", "created": queued, **facts})
    started = runs_dir / "started"
    first = worker(runs_dir, first_takes=3)
    wait_until(lambda: started.exists() and [run.name for run in queue.queued_runs(runs_dir)] == ["b", "c"])
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    second = worker(runs_dir, first_takes=3)
    assert os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]) == 0
    assert started.read_text().split() == ["a", "b", "c"]
    assert queue.queued_runs(runs_dir) == [] and len(list_runs(runs_dir)) == 3
