"""Overrides on the command line: the type of the recipe's key decides what the words mean."""

import pytest
from support.command_line import invoke

from rotnet_keras.config.loading import load_recipe, parse_override
from rotnet_keras.errors import RecipeError


@pytest.mark.parametrize(
    "text",
    [
        "2024",
        "2023-12-24",
        "a=b",
        "Bob's photos",
        'my "best" photos',
        "true",
        "1e3",
        "0x10",
        "[1]",
        "{a = 1}",
        "nan",
        "x",
    ],
)
def test_a_key_that_takes_a_text_takes_what_was_typed(text):
    assert parse_override(f"data.name={text}") == ("data.name", text)
    assert load_recipe("quickstart", dict([parse_override(f"data.name={text}")])).data.name == text


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ('data.name="Bob\'s photos"', "Bob's photos"),
        ("data.name='2024'", "2024"),
        ("data.splits.train=train[:90%]", "train[:90%]"),
        ("data.size=32", 32),
        ("data.whole=true", True),
        ("data.mean=[1, 2.5]", [1, 2.5]),
        ("optimizer.learning_rate=1", 1),
        ("probe.0.tap=conv2", "conv2"),
        ('probe.0.tap=["conv1", "conv2"]', ["conv1", "conv2"]),
        ("probe.0.controls=['random']", ["random"]),
        ("backbone.run=2024", "2024"),
        ("train.epochs=ten", "ten"),
        ("data.name=x\nsize = 3", "x\nsize = 3"),
    ],
)
def test_other_keys_take_toml(word, value):
    assert parse_override(word) == (word.partition("=")[0], value)


@pytest.mark.parametrize("word", ["data.mean=[1", "train.epochs={", "a.b=[1"])
def test_a_value_that_fits_neither_is_refused(word):
    with pytest.raises(RecipeError, match=r"command line: .*: not a TOML value"):
        parse_override(word)


def test_the_command_line_names_folders_as_they_are_called(tmp_path):
    shown = invoke("show", "quickstart", "data.name=2024", "title=Bob's photos", "seed=7")
    assert shown.returncode == 0, shown.stderr
    for line in ('name = "2024"', 'title = "Bob\'s photos"', "seed = 7"):
        assert line in shown.stdout
    wrong = invoke("show", "quickstart", "train.epochs=ten")
    assert wrong.returncode == 2 and "train.epochs: expected an integer, got 'ten'" in wrong.stderr


def test_a_recipe_saved_by_notepad_is_read(tmp_path):
    text = invoke("show", "quickstart").stdout
    file = tmp_path / "mine.toml"
    file.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load_recipe(file) == load_recipe("quickstart")
    assert invoke("check", file).returncode == 0
    file.write_bytes(text.encode("utf-16"))
    assert "mine.toml: not a text file in UTF-8" in invoke("check", file).stderr
    assert "save it as UTF-8 in your editor" in invoke("check", file).stderr
