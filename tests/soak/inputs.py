"""Drills of what a user, or a stranger, may hand in: recipes and images."""

import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis.strategies import SearchStrategy
from support.bad_images import bad_images, check_image
from support.bad_recipes import bad_recipes, check_recipe

from soak.tally import Tally


def recipes(folder: Path, rng: Random, count: int) -> Iterator[Tally]:
    """Recipes changed, torn and made up."""
    yield _fuzzed("fuzzed recipes", bad_recipes, lambda content: check_recipe(folder, content), rng, count)


def images(folder: Path, rng: Random, count: int) -> Iterator[Tally]:
    """Image files of all kinds, whole and spoilt."""
    warnings.filterwarnings("ignore", module="PIL")
    yield _fuzzed("fuzzed image files", bad_images(), lambda image: check_image(folder, *image), rng, count)


def _fuzzed(what: str, examples: SearchStrategy[Any], check: Callable[[Any], bool], rng: Random, count: int) -> Tally:
    tally = Tally(what)
    good = 0

    @seed(rng.randrange(2**31))
    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(example=examples)
    def one(example: Any) -> None:
        nonlocal good
        tally.tried += 1
        try:
            good += check(example)
        except Exception:  # Whatever comes of it is what the drill is for.
            tally.lost.append(f"{traceback.format_exc(limit=-2)[-600:]} of {repr(example)[:600]}")

    one()
    tally.note = f"{good:,} were usable, {tally.tried - good:,} ended with one message"
    return tally
