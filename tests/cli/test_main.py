import importlib.metadata
import json
import os
import pty
import subprocess
from contextlib import suppress

import click
import pytest
from support.command_line import command, invoke, run_cli, run_python
from support.fake_runs import fake_run

from rotnet_keras.cli.options import warn

HEAVY = ("tensorflow", "keras", "numpy", "sklearn", "matplotlib")
LIGHT_COMMAND = """
import sys
from rotnet_keras.cli.main import main
sys.argv = ["rotnet-keras", *sys.argv[1:]]
try:
    main()
except SystemExit as error:
    assert not error.code, error.code
loaded = [name for name in {heavy!r} if name in sys.modules]
assert not loaded, loaded
"""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "--help"], ["recipes"], ["runs"], ["runs", "--json"], ["weights"], ["queue", "list"]],
)
def test_light_commands_load_nothing_heavy(arguments):
    assert run_python(LIGHT_COMMAND.format(heavy=HEAVY), *arguments)


@pytest.mark.parametrize(
    "arguments",
    [["show", "quickstart"], ["check", "quickstart", "studies/table3_cifar"]],
)
def test_recipes_are_checked_without_tensorflow(arguments):
    assert run_python(LIGHT_COMMAND.format(heavy=HEAVY), *arguments)


def test_data_are_checked_without_tensorflow():
    heavy = [name for name in HEAVY if name != "numpy"]
    assert run_python(LIGHT_COMMAND.format(heavy=heavy), "run", "quickstart", "--dry-run")


def test_importing_the_package_loads_nothing_else():
    run_python("import sys, rotnet_keras; assert not {'pydantic', 'keras', 'tensorflow'} & set(sys.modules)")


def test_recipes_are_listed_with_their_titles():
    listed = json.loads(invoke("recipes", "--json").stdout)
    assert {"quickstart", "cifar_nin", "cifar_nin_paper", "cifar_cpu", "folder"} <= {r["name"] for r in listed}
    assert "quickstart" in invoke("recipes").stdout


def test_missing_data_end_with_3_and_what_was_looked_for(tmp_path):
    result = invoke("run", "folder", f"data.name={tmp_path}/none", cwd=tmp_path)
    assert result.returncode == 3 and f"no folder {tmp_path}/none" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_no_runs_yet(tmp_path):
    assert "Start one: rotnet-keras run quickstart" in invoke("runs", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "quikstart"], 2, "did you mean 'quickstart'"),
        (["run", "quickstart", "epochs"], 2, "expected KEY=VALUE"),
        (["run", "quickstart", "--name", "../up"], 1, "cannot name a run"),
        (["resume", "none"], 1, "no run called 'none'"),
        (["stop", "none"], 1, "no run called 'none'"),
    ],
)
def test_mistakes_end_in_a_message(tmp_path, arguments, code, message):
    result = invoke(*arguments, cwd=tmp_path)
    assert result.returncode == code and message in result.stderr and "Traceback" not in result.stderr
    assert not list(tmp_path.glob("runs/*"))


def test_a_runs_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    result = invoke("run", "quickstart", "--runs-dir", tmp_path / "file" / "runs")
    assert result.returncode == 1 and "cannot create a run folder" in result.stderr


@pytest.mark.parametrize("module", ["rotnet_keras", "rotnet_tui"])
def test_the_version_is_that_of_the_package(module):
    expected = f"rotnet-keras {importlib.metadata.version('rotnet-keras')}"
    command = f"import runpy; runpy.run_module({module!r}, run_name='__main__')"
    assert run_python(command, "--version").strip() == expected


def test_doctor_names_the_versions():
    found = json.loads(run_cli("doctor", "--json").stdout)
    assert found["keras"].startswith("3.") and "device" in found


def in_a_terminal(*arguments, cwd):
    """What a command writes to a terminal; to a pipe it would write no escapes anyway."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command(*arguments), cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    with suppress(OSError):  # The other end is closed.
        while part := os.read(ours, 4096):
            written += part
    os.close(ours)
    process.wait(10)
    return written


@pytest.mark.parametrize(
    "arguments", ["runs", "status", "report", "logs", "stop", "queue remove", "compare {} {}", "resume no-{}"]
)
def test_control_characters_of_a_name_do_not_reach_the_terminal(tmp_path, arguments):
    name = "\x1b[2J\x1b]0;x\x07y"
    run = fake_run(tmp_path / "runs", "y", epochs=1, message="\x1b[2J", outcome="finished")
    run.path.rename(run.path.with_name(name))
    words = [word.format(name, name) for word in arguments.split()]
    if arguments != "runs" and "{}" not in arguments:
        words.append(name)
    written = in_a_terminal(*words, cwd=tmp_path)
    assert b"y" in written and b"\x1b" not in written and b"\x07" not in written


def test_a_command_gives_each_warning_once(capsys):
    with click.Context(click.Command("run")):
        for note in ("old key", "old key", "another"):
            warn(note)
    assert capsys.readouterr().err == "Warning: old key\nWarning: another\n"
