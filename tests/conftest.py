"""What the tests share: tiny data that rotation can be learned from, and a run that has finished."""

import os
from pathlib import Path

import numpy as np
import pytest
from support.tiny import PROBES, TINY_RECIPE, upright_images
from support.whole_runs import start

# Pictures of the terminal UI must not depend on how far an animation has come.
os.environ["TEXTUAL_ANIMATIONS"] = "none"


# Minutes of waiting for other processes, which nobody should be left with at the end.
LONG = ("test_tmux", "test_devices", "test_study")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What reads the one finished run is tested where that was made, by one of several workers; what is long, first."""
    items.sort(key=lambda item: item.path.stem not in LONG)
    for item in items:
        if "finished" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("finished"))


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    x_train, y_train = upright_images(200)
    x_test, y_test = upright_images(40, seed=1)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_data):
    """One uninterrupted run with every kind of probe: (result of the command, run)."""
    recipe = tmp_path_factory.mktemp("finished") / "tiny.toml"
    recipe.write_text(TINY_RECIPE.format(data=tiny_data) + PROBES)
    return start(recipe, "seed=3")


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
