"""Commands in the README, the documentation, `results/` and the headers of recipes are accepted by the command line."""

import re
import shlex
from pathlib import Path

import click
import pytest

from rotnet_keras.cli.main import app
from rotnet_keras.config.finder import shipped_recipes
from rotnet_keras.config.loading import load_recipe, parse_override

HERE = Path(__file__).parents[2]
PAGES = [HERE / "README.md", *sorted((HERE / "docs").rglob("*.md")), *sorted((HERE / "results").rglob("*.md"))]
BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
# In running text, a command may be named without its arguments, or with an option alone.
INLINE = re.compile(r"`(rotnet-keras [a-z-]+ [^-`][^`]*)`")
# What stands for something of the reader's: a word in capitals, or a path.
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b|/path/|\.\.\.")


def command_lines(text):
    """Command lines, one each, without their comments; synopses, with alternatives and brackets, are left out."""
    for line in text.replace("\\\n", " ").splitlines():
        line = line.strip().lstrip("$# ")
        start = re.match(r"(?:\w+=('[^']*'|\S+) +|srun +)*(?=rotnet-keras )", line)
        if start and not re.search(r"\[[a-zA-Z-]|[|…]| {2,}\w", line := line[start.end() :]):
            yield shlex.split(line, comments=True)


def typed():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for code in [*BLOCK.findall(text), *INLINE.findall(text)]:
            for words in command_lines(code):
                yield pytest.param(words, id=f"{page.relative_to(HERE)}: {' '.join(words)}")
    for name, path in shipped_recipes().items():
        header = re.split(r"^[^#]", path.read_text(encoding="utf-8"), maxsplit=1, flags=re.MULTILINE)[0]
        for words in command_lines(header):
            yield pytest.param(words, id=f"{name}: {' '.join(words)}")


@pytest.mark.parametrize("words", typed())
def test_the_command_is_accepted(words):
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
    assert len(list(typed())) > 100
