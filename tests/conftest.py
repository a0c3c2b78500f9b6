"""What the tests share: tiny data that rotation can be learned from, and a run that has finished."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.tiny import PROBES, TINY_RECIPE, upright_images
from support.whole_runs import run_of, start

# Pictures of the terminal UI must not depend on how far an animation has come.
os.environ["TEXTUAL_ANIMATIONS"] = "none"


# Minutes of waiting for other processes, which nobody should be left with at the end.
LONG = ("test_tmux", "test_devices", "test_study")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What is long begins first; before it, a test that makes the run that others wait for."""
    items.sort(key=lambda item: item.path.stem not in LONG)
    makes = next((item for item in items if "finished" in item.fixturenames), None)
    items.sort(key=lambda item: item is not makes)


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory, shared_folder):
    """Folders for what the program remembers, so that no test writes into the home of whoever runs it."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    os.environ["ROTNET_CACHE_DIR"] = str(shared_folder / "cache")


@pytest.fixture(autouse=True)
def own_precision():
    """Keras's dtype policy as it was, since a run in this process leaves the fastest one of this machine."""
    yield
    if keras := sys.modules.get("keras"):
        keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory, worker_id):
    """A folder that all workers of this session have."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    save_tiny_data(path)
    return path


def save_tiny_data(path):
    x_train, y_train = upright_images(200)
    x_test, y_test = upright_images(40, seed=1)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


@pytest.fixture(scope="session")
def finished(shared_folder):
    """One uninterrupted run with every kind of probe, made once for all workers: (result of the command, run)."""
    folder = shared_folder / "finished"
    folder.mkdir(exist_ok=True)
    said = folder / "said.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.is_file():
            save_tiny_data(folder / "tiny.npz")
            recipe = folder / "tiny.toml"
            recipe.write_text(TINY_RECIPE.format(data=folder / "tiny.npz") + PROBES)
            result, _ = start(recipe, "seed=3")
            said.write_text(json.dumps([result.args, result.returncode, result.stdout, result.stderr]))
    return subprocess.CompletedProcess(*json.loads(said.read_text())), run_of(folder, "run")


@pytest.fixture
def tiny_recipe(tmp_path, tiny_data):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY_RECIPE.format(data=tiny_data))
    return path


@pytest.fixture
def runs_dir(tmp_path, monkeypatch):
    """A folder for runs, as a user's own, with no settings of the terminal UI yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("ROTNET_RUNS_DIR", raising=False)
    return Path("runs")


@pytest.fixture
def xla():
    """XLA as a TPU has it: not bound to sum in a fixed order, which it cannot in the gradient of a max pool."""
    from tensorflow.python.framework import config

    was_bound = config.is_op_determinism_enabled()
    config.disable_op_determinism()
    yield
    if was_bound:
        config.enable_op_determinism()
