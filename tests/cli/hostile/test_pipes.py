"""Pipes and devices in place of files: one line, and no waiting for what never comes."""

import os
import signal

import pytest
from support.command_line import invoke

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
