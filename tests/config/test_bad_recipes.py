"""Whatever a recipe says: it is one, or there is one clear error, soon, and nothing is left behind."""

import pytest
from hypothesis import HealthCheck, given, settings
from support.bad_recipes import bad_recipes, check_recipe, values, words
from support.command_line import invoke

from rotnet_keras.config.loading import load_recipe, parse_override
from rotnet_keras.errors import RecipeError

# No examples are kept between runs, and the same are tried each time.
FAST = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bad")


@FAST
@given(content=bad_recipes)
def test_a_recipe_is_one_or_there_is_one_error(folder, content):
    check_recipe(folder, content)


@FAST
@given(key=words, value=values)
def test_an_override_is_one_or_there_is_one_error(key, value):
    for text in (f"train.steps={value}", f"{key}={value!r}", f"{key}", f"data.name={value}"):
        try:
            name, parsed = parse_override(text)
            load_recipe("quickstart", {name: parsed})
        except RecipeError as error:
            assert str(error).strip()


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"kind = " + b"[" * 20_000, b"train." * 20_000 + b"x = 1\n", b"x" * 2_000_000],
    ids=["bytes", "lists", "keys", "large"],
)
def test_the_command_ends_with_one_message_and_no_run_folder(tmp_path, content):
    (tmp_path / "recipe.toml").write_bytes(content)
    result = invoke("run", "recipe.toml", cwd=tmp_path)
    assert result.returncode == 2 and result.stderr.startswith("recipe.toml") and "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]


def test_a_name_that_no_file_can_have_ends_in_one_message(tmp_path):
    long = "a" * 300
    (tmp_path / "study.toml").write_text(f"""\
kind = "study"
title = "t"
paper = "p"
scales.full = {{ note = "n", recipes = {{ pretrain = "{long}" }} }}
run = [{{ name = "a", recipe = "pretrain" }}]
""")
    for recipe, *overrides in (("study.toml",), (long,), ("quickstart", f"data.name={long}")):
        result = invoke("run", recipe, *overrides, cwd=tmp_path)
        assert result.returncode in (2, 3) and "too long" in result.stderr, result.stderr
        assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["study.toml"]
