"""The references that the documentation generates name every command, option and recipe key."""

import importlib.util
import re
from pathlib import Path

import click
import pytest

from rotnet_keras.cli.main import COMMANDS, app
from rotnet_keras.config.finder import shipped_recipes
from rotnet_keras.config.kinds import KINDS


@pytest.fixture(scope="module")
def hooks():
    path = Path(__file__).parents[2] / "docs" / "hooks.py"
    spec = importlib.util.spec_from_file_location("documentation_hooks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_and_option_is_in_the_reference(hooks):
    sections = dict(part.split("\n", 1) for part in hooks.command_reference().split("\n### ")[1:])
    context = click.Context(app)
    for name in COMMANDS:
        command = app.get_command(context, name)
        assert command.help.split()[0] in sections[name]
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.opts[0] in sections[name], (name, parameter.opts)
    assert "rotnet-keras queue add [OPTIONS] RECIPE" in sections["queue add"]


def test_every_environment_variable_of_ours_is_in_the_reference():
    root = Path(__file__).parents[2]
    files = [*(root / "rotnet_keras").rglob("*.py"), *(root / "tui").rglob("*.py")]
    named = {name for file in files for name in re.findall(r"\bROTNET_[A-Z_]+", file.read_text(encoding="utf-8"))}
    table = (root / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
    assert len(named) >= 5 and {name for name in named if f"| `{name}` |" not in table} == set()


def test_every_recipe_and_key_is_in_the_reference(hooks):
    keys, recipes = hooks.key_reference(), hooks.recipe_list()
    for kind in KINDS.values():
        for key in kind.schema.model_fields:
            assert f"| `{key}` |" in keys
    for name in shipped_recipes():
        # Recipes that only studies use lie deeper.
        assert (f"| `{name}` |" in recipes) == (name.count("/") < 2)
