"""Starting whole runs through the command line, and looking at what they leave."""

import time

import numpy as np
from support.command_line import run_cli

from rotnet_keras.runs.folder import RunFolder


def run_of(tmp_path, name):
    return RunFolder(tmp_path / "runs" / name)


def start(recipe, *arguments, name="run"):
    result = run_cli("run", recipe, "--name", name, *arguments, cwd=recipe.parent)
    return result, run_of(recipe.parent, name)


def events_of(run, kind):
    return [event for event in run.events() if event["kind"] == kind]


def final_arrays(run):
    newest = max(run.checkpoints.glob("step-*.npz"))
    with np.load(newest) as archive:
        return newest.name, {name: archive[name] for name in archive.files}


def assert_same_end(run, other):
    (name, arrays), (other_name, others) = final_arrays(run), final_arrays(other)
    assert name == other_name and arrays.keys() == others.keys()
    for key in arrays.keys() - {"progress"}:
        assert arrays[key].tobytes() == others[key].tobytes(), key


def wait_for(condition, what="it"):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what} in vain"
        time.sleep(0.02)


def wait_for_step(run, step):
    wait_for(
        lambda: any(e["kind"] == "checkpoint" and e["step"] >= step for e in run.last_events()),
        f"step {step} of {run.path}",
    )
