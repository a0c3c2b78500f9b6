"""What README, documentation and recipes tell people to type is understood by the commands there are."""

import re
import shlex
from pathlib import Path

import click
import pytest

from rotnet_keras.cli.main import app
from rotnet_keras.config.finder import shipped_recipes
from rotnet_keras.config.loading import load_recipe, parse_override

HERE = Path(__file__).parents[2]
PAGES = [HERE / "README.md", *sorted((HERE / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What stands for something of the reader's: a word in capitals, or a place.
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b|/path/|\.\.\.")


def command_lines(text):
    """Command lines, one each, without what is told of them; synopses, with alternatives and brackets, left out."""
    for line in text.replace("\\\n", " ").splitlines():
        line = line.strip().lstrip("$# ")
        start = re.match(r"(?:\w+=('[^']*'|\S+) +|srun +)*(?=rotnet-keras )", line)
        if start and not re.search(r"\[[a-zA-Z-]|[|…]| {2,}\w", line := line[start.end() :]):
            yield shlex.split(line, comments=True)


def typed():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in BLOCK.findall(text):
            for words in command_lines(block):
                yield pytest.param(words, id=f"{page.name}: {' '.join(words)}")
    for name, path in shipped_recipes().items():
        header = re.split(r"^[^#]", path.read_text(encoding="utf-8"), maxsplit=1, flags=re.MULTILINE)[0]
        for words in command_lines(header):
            yield pytest.param(words, id=f"{name}: {' '.join(words)}")


@pytest.mark.parametrize("words", typed())
def test_what_people_are_told_to_type_is_understood(words):
    command, path = app, ["rotnet-keras"]
    arguments = words[1:]
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), arguments[0]) if arguments else None
        assert found, f"no command {arguments[:1]} of {' '.join(path)}"
        command, path = found, [*path, arguments.pop(0)]
    context = command.make_context(path[-1], arguments)
    recipe, overrides = context.params.get("recipe"), context.params.get("overrides") or []
    if recipe and not PLACEHOLDER.search(recipe) and not recipe.endswith(".toml"):
        concrete = [word for word in overrides if not PLACEHOLDER.search(word)]
        load_recipe(recipe, dict(map(parse_override, concrete)))


def test_commands_are_found_in_the_pages():
    assert len(list(typed())) > 60
