"""What the terminal UI remembers between two sessions."""

import json
import subprocess
import sys

import pytest
from rotnet_tui.settings import Settings, load_settings, save_settings, settings_file


@pytest.fixture
def file(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    settings_file().parent.mkdir(parents=True)
    return settings_file()


def test_settings_are_remembered(file):
    assert load_settings() == Settings()
    chosen = Settings(theme="nord", smoothing=2, charts=["loss"], percent=False, pinned=["a", "b"])
    assert save_settings(chosen) == ""
    assert load_settings() == chosen


def test_settings_of_another_version_are_read_as_far_as_they_are_known(file):
    file.write_text(json.dumps({"theme": "nord", "from_a_newer_version": {"a": 1}}))
    assert load_settings() == Settings(theme="nord")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[" * 100_000,
        "null",
        '["theme"]',
        '{"theme": 3}',
        '{"smoothing": 5}',
        '{"smoothing": true}',
        '{"follow": 1}',
        '{"images": "ascii"}',
        '{"charts": "loss"}',
        '{"charts": [1]}',
        '{"pinned": null}',
        "\\udcff",
    ],
)
def test_a_damaged_file_gives_the_defaults(file, content):
    file.write_text(content)
    assert load_settings() == Settings()


def test_the_start_loads_nothing_that_only_recipes_need():
    code = "import sys, rotnet_tui.app, rotnet_tui.screens.home; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "textual.app" in loaded and not {"pydantic", "tomlkit", "numpy", "keras", "PIL"} & set(loaded)
