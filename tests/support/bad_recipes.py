"""Recipes that nobody would write: shipped ones with something changed, and text that never was one."""

import functools
import re
import time
import tomllib

import tomlkit
from hypothesis import strategies as st

from rotnet_keras.config.finder import shipped_recipes
from rotnet_keras.config.loading import load_recipe, to_toml
from rotnet_keras.errors import RotnetError
from rotnet_keras.runs.launch import load_for_run

# Where things go wrong: at the ends of ranges, beyond them, in names that mean something elsewhere.
NUMBERS = [0, -1, 1, 2**31, 2**63 - 1, -(2**63), 1e308, -1e308, 5e-324, float("inf"), float("nan"), -0.0, True]
WORDS = [
    "",
    " ",
    ".",
    "..",
    "../../x",
    "/",
    "/dev/zero",
    "~",
    "all",
    "\x1b[2J",
    "a" * 5000,
    "ü\u202e\U0001f600",
    "%",
    "{}",
    "$HOME",
]

words = st.one_of(st.sampled_from(WORDS), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
numbers = st.one_of(st.sampled_from(NUMBERS), st.integers(-(2**63), 2**63 - 1), st.floats())
values = st.recursive(
    st.one_of(words, numbers, st.booleans(), st.datetimes(), st.times()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(words, inner, max_size=4)),
    max_leaves=8,
)


@functools.cache
def shipped(name):
    return shipped_recipes()[name].read_text(encoding="utf-8")


def _places(tree, place=()):
    """Where something stands in nested tables and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*place, key)
        yield from _places(value, (*place, key))


@st.composite
def changed_recipes(draw):
    """A shipped recipe in which some values are others, are gone, or have company; often one whose data are there."""
    name = draw(st.one_of(st.just("quickstart"), st.sampled_from(sorted(shipped_recipes()))))
    recipe = tomllib.loads(shipped(name))
    for _ in range(draw(st.integers(1, 4))):
        places = list(_places(recipe))
        if not places:
            break
        *tables, last = draw(st.sampled_from(places))
        target = recipe
        for key in tables:
            target = target[key]
        what = draw(st.sampled_from(["replace", "remove", "add", "wrap"]))
        if what == "remove":
            del target[last]
        elif what == "add" and isinstance(target, dict):
            target[draw(words)] = draw(values)
        elif what == "wrap":
            target[last] = [target[last]]
        else:
            alike = {bool: st.booleans(), int: numbers, float: numbers, str: words}
            target[last] = draw(st.one_of(alike.get(type(target[last]), values), values))
    return tomlkit.dumps(recipe).encode("utf-8", "surrogatepass")


@st.composite
def torn_recipes(draw):
    """A shipped recipe's text, cut off, with bytes in it that do not belong there, or with a piece twice."""
    text = shipped(draw(st.sampled_from(sorted(shipped_recipes())))).encode()
    first, last = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
    middle = draw(st.one_of(st.binary(max_size=20), st.just(text[first:last] * 2), st.just(b"")))
    return text[:first] + middle + text[last:]


@st.composite
def deep_recipes(draw):
    """Tables in tables, lists in lists, hundreds and thousands deep."""
    depth = draw(st.sampled_from([10, 100, 1000, 20_000]))
    deep = draw(
        st.sampled_from(
            [
                "x = " + "[" * depth + "]" * depth,
                "x = " + "{a=" * depth + "1" + "}" * depth,
                "[" + ".".join(["a"] * depth) + "]",
                ".".join(["train"] * depth) + " = 1",
                "[[probe]]\n" * depth,
            ]
        )
    )
    return f'kind = "pretrain"\n{deep}\n'.encode()


bad_recipes = st.one_of(changed_recipes(), changed_recipes(), torn_recipes(), deep_recipes(), st.binary(max_size=200))


# Seconds of processor time that a person would wait for a word on a recipe.
SOON = 5.0


def check_recipe(folder, content):
    """Read a recipe as a run does; whether it is one."""
    recipe = folder / "recipe.toml"
    recipe.write_bytes(content)
    start = time.process_time()
    try:
        loaded = load_recipe(str(recipe))
        recipe.write_text(to_toml(loaded), encoding="utf-8")
        # Infinite numbers and those that are none are not what training can go by.
        assert load_recipe(str(recipe)) == loaded and not re.search(r"= -?(nan|inf)\b", recipe.read_text())
        load_for_run(str(recipe), {}, folder / "runs")
        return True
    except RotnetError as error:
        assert str(error).strip() and "Traceback" not in str(error)
        return False
    finally:
        assert time.process_time() - start < SOON, "slow"
        assert sorted(path.name for path in folder.iterdir()) == ["recipe.toml"]
