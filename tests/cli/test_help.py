"""The help of every command is whole, plain and instant."""

import re
import shlex

import click
import pytest
import rotnet_tui.cli
from support.command_line import invoke, run_python

from rotnet_keras.cli.main import COMMANDS, GROUPS, app
from rotnet_keras.config.loading import load_recipe

SLOW_IMPORTS = ("pydantic", "typer", "numpy", "keras", "tensorflow", "psutil", "rich", "importlib.metadata")
# What counts as an imperative: the verbs that helps begin with.
VERBS = {
    *("Add", "Check", "Collect", "Compare", "Continue", "Convert", "Delete", "Estimate", "Export", "Find", "Inspect"),
    *(
        "Kill",
        "List",
        "Measure",
        "Plot",
        "Predict",
        "Print",
        "Queue",
        "Rank",
        "Remove",
        "Rescale",
        "Run",
        "Say",
        "Select",
    ),
    *("Select", "Show", "Start", "Stop", "Test", "Write", "Send"),
}


def commands():
    """Every command with its words: those of the command line, those of the queue, and the terminal UI's."""
    for name in COMMANDS:
        found = app.get_command(click.Context(app), name)
        yield (name,), found
        if isinstance(found, click.Group):
            yield from (((name, sub), found.commands[sub]) for sub in found.commands)


def named(parameters):
    return [pytest.param(*each, id=" ".join(each[0])) for each in parameters]


def test_all_commands_stand_in_groups_each_line_whole(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = invoke("--help").stdout
    lines = shown.splitlines()
    assert all(len(line) <= 80 for line in lines) and "..." not in shown.replace("[ARGS]...", "")
    starts = [lines.index(f"{group}:") for group in GROUPS]
    assert starts == sorted(starts) and len(COMMANDS) == 41
    for start, group in zip(starts, GROUPS.values(), strict=True):
        listed = lines[start + 1 : start + 1 + len(group)]
        assert [line.split(maxsplit=1) for line in listed] == [[name, text] for name, (_, text) in group.items()]
    assert all(len(text) <= 60 for _, text in COMMANDS.values())


@pytest.mark.parametrize(("words", "command"), named(commands()))
def test_a_command_says_what_it_does(words, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    first = command.help.splitlines()[0]
    assert first.split()[0].rstrip(",") in VERBS and first.endswith(".")
    if len(words) == 1:
        assert first == COMMANDS[words[0]][1], "the list of commands says the same as the command"
    for parameter in command.params:
        row = parameter.get_help_record(click.Context(command))
        assert row and row[1], f"{parameter.name} has no help"
    result = invoke(*words, "--help")
    assert result.returncode == 0
    for line in result.stdout.splitlines():
        assert len(line) <= 80 and not line.endswith(("-", "`rotnet"))
    shown = re.sub(r"\S+\.\.\.", "", result.stdout)
    assert "..." not in shown


@pytest.mark.parametrize(
    "example",
    [line for words, command in commands() for line in getattr(command, "examples", ())],
)
def test_examples_are_understood(example):
    program, *words = shlex.split(example.split(" > ")[0])
    assert program == "rotnet-keras"
    command = app
    while isinstance(command, click.Group):
        command = command.get_command(click.Context(command), words.pop(0))
    context = command.make_context(command.name, words)
    recipe = context.params.get("recipe")
    if recipe and not recipe.endswith(".toml"):
        load_recipe(recipe)


@pytest.mark.parametrize(("words", "name", "former"), [
    (("upright", "photos"), "--model", "--network"),
    (("measure-upright", "photos", "--to", "measured"), "--model", "--network"),
    (("duplicates", "photos"), "--model", "--network"),
    (("publish", "some.keras", "--to", "model", "--license", "mit"), "--model", "--export"),
])  # fmt: skip
def test_a_former_name_of_an_option_goes_on_working(words, name, former, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "some.keras").touch()
    ways = (name, "nosuch"), (former, "nosuch"), (f"{former}=nosuch",)
    now, before, joined = (invoke(*words, *option, cwd=tmp_path) for option in ways)
    assert now.returncode in (1, 2) and "no such option" not in now.stderr.lower()
    assert (before.returncode, before.stderr) == (now.returncode, now.stderr) == (joined.returncode, joined.stderr)
    assert former not in invoke(words[0], "--help").stdout


def test_the_terminal_ui_is_explained():
    with pytest.raises(SystemExit) as end:
        rotnet_tui.cli.main(["--help"])
    assert end.value.code == 0
    for words in rotnet_tui.cli.app.examples:
        rotnet_tui.cli.app.make_context("rotnet-tui", shlex.split(words)[1:])


@pytest.mark.parametrize("arguments", [["--help"], ["recipes"], ["runs"], ["status", "--help"], ["queue", "--help"]])
def test_light_commands_import_nothing_slow(arguments, tmp_path):
    code = f"""
import sys
from rotnet_keras.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as error:
    assert not error.code, error.code
slow = [name for name in {SLOW_IMPORTS!r} if name in sys.modules]
assert not slow, slow
"""
    assert run_python(code, *arguments, ROTNET_RUNS_DIR=str(tmp_path))


def test_a_mistyped_command_is_answered_with_the_nearest():
    result = invoke("quueue", "list")
    assert result.returncode == 2 and "No such command 'quueue'; did you mean 'queue'?" in result.stderr


def test_ctrl_c_ends_a_command_with_the_code_of_its_signal(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("rotnet_keras.config.finder.shipped_recipes", interrupted)
    assert invoke("recipes").returncode == 130


def test_the_shell_completes_commands_and_options():
    words = {"_ROTNET_KERAS_COMPLETE": "bash_complete", "COMP_WORDS": "rotnet-keras re", "COMP_CWORD": "1"}
    assert invoke(**words).stdout.split() == ["plain,recipes", "plain,report", "plain,resume", "plain,rescale"]
    words |= {"COMP_WORDS": "rotnet-keras queue work --de", "COMP_CWORD": "3"}
    assert invoke(**words).stdout.split() == ["plain,--detach"]
