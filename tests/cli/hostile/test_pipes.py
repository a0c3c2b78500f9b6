"""Pipes and devices in place of files: one line, and no waiting for what never comes."""

import os
import shutil
import signal

import pytest
from support.command_line import invoke
from support.fake_runs import fake_run

from rotnet_keras.runs.zoo import list_pretrained

COMMANDS = (
    ("run", "{pipe}.toml"),
    ("run", "{pipe}.toml", "--dry-run"),
    ("check", "{pipe}.toml"),
    ("show", "{pipe}.toml"),
    ("queue", "add", "{pipe}.toml"),
    ("alike", "{pipe}.npz", "a.jpg"),
    ("alike", "{pipe}.parquet", "a.jpg"),
)


@pytest.fixture(autouse=True)
def in_time():
    signal.alarm(60)
    yield
    signal.alarm(0)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_what_is_no_regular_file_is_refused_in_a_line(tmp_path, words):
    for suffix in (".toml", ".npz", ".parquet"):
        os.mkfifo(tmp_path / f"pipe{suffix}")
        (tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
    for name, what in (("pipe", "a pipe"), ("zero", "a device")):
        result = invoke(*(word.format(pipe=tmp_path / name) for word in words), cwd=tmp_path)
        assert result.returncode in (2, 3), result.stderr
        assert f"{what}, where a regular file is expected" in result.stderr
        assert len(result.stderr.splitlines()) == 1 and not (tmp_path / "runs").exists()


def as_pipe(path):
    os.mkfifo(path)


def as_link_to_a_device(path):
    path.symlink_to("/dev/zero")


def as_deep_json(path):
    path.write_text('{"classes": ' + "[" * 200_000)


@pytest.mark.parametrize(
    ("make", "in_a_run", "reason"),
    [
        (as_deep_json, True, "too deeply nested"),
        (as_pipe, True, "a pipe, where a regular file is expected"),
        (as_pipe, False, "a pipe, where a regular file is expected"),
        (as_link_to_a_device, True, "a link, where a regular file is expected"),
        (as_link_to_a_device, False, "a device, where a regular file is expected"),
    ],
)
def test_the_card_of_a_stranger_s_classifier_is_a_regular_file(tmp_path, make, in_a_run, reason):
    folder = tmp_path / "lone"
    if in_a_run:
        folder = fake_run(tmp_path / "runs", "theirs", epochs=1).export
    folder.mkdir(exist_ok=True)
    shutil.copy(list_pretrained()["compact4_cifar10"].backbone, folder / "classifier.keras")
    make(folder / "classifier.json")
    result = invoke("predict", folder / "classifier.keras", tmp_path, "--to", tmp_path / "classes.csv", cwd=tmp_path)
    assert result.returncode == 3, result.stderr
    assert f"the card of the classifier cannot be read: {reason}" in result.stderr
    assert len(result.stderr.splitlines()) == 1 and not (tmp_path / "classes.csv").exists()
