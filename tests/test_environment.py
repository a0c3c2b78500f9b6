"""Machines that are set up otherwise: without a home, a locale or a terminal, or for another backend of Keras."""

import shutil
import subprocess

import pytest
from support.command_line import command, run_cli
from support.whole_runs import events_of

from rotnet_keras.runs.folder import list_runs

# What Python runs first where nothing may be sent or listened to.
OFFLINE = """\
import socket

def refused(*arguments):
    raise SystemExit("something on the network was asked for")

socket.socket.connect = socket.socket.connect_ex = socket.socket.listen = socket.getaddrinfo = refused
"""


@pytest.mark.long
def test_a_run_needs_no_home_locale_terminal_or_network_and_its_folder_may_have_any_name(
    tmp_path, tiny_recipe, tiny_data
):
    """Nobody can write to /proc, not even root."""
    folder = tmp_path / "Bilder und 画像 [1]"
    folder.mkdir()
    shutil.copy(tiny_data, folder / "töne.npz")
    recipe = folder / "rezept ü.toml"
    recipe.write_text(tiny_recipe.read_text().replace(str(tiny_data), str(folder / "töne.npz")))
    offline = tmp_path / "offline"
    offline.mkdir()
    (offline / "sitecustomize.py").write_text(OFFLINE)
    environment = {"HOME": "/proc", "LC_ALL": "C", "TERM": "dumb", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(offline)}

    def run(*arguments):
        found = subprocess.run(
            command(*arguments), cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        assert found.returncode == 0, found.stdout + found.stderr
        return found.stdout.decode()

    run("run", recipe.name, "train.steps=2")
    (finished,) = list_runs(folder / "runs")
    assert finished.name.startswith("rezept-ü-")
    assert finished.state() == "finished" and events_of(finished, "warning") == []
    assert finished.name in run("runs") and "finished" in run("status", finished.name)
    assert finished.name in (finished.path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [("run", "quickstart"), ("queue", "add", "quickstart"), ("resume", "any")])
def test_another_backend_of_keras_is_refused_before_anything_is_written(tmp_path, arguments):
    result = run_cli(*arguments, cwd=tmp_path, KERAS_BACKEND="jax")
    assert result.returncode == 1 and result.stdout == ""
    assert "KERAS_BACKEND is 'jax': unset it" in result.stderr
    assert list(tmp_path.iterdir()) == []
