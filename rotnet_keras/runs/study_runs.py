"""A study's runs: what each is to be, and the run folders that are that already."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rotnet_keras.config.finder import describe, find_recipe, shipped_recipes
from rotnet_keras.config.loading import flattened, load_recipe
from rotnet_keras.config.schema import Recipe
from rotnet_keras.config.sections import Backbone
from rotnet_keras.config.study import StudyRecipe
from rotnet_keras.errors import RecipeError
from rotnet_keras.runs.folder import RunFolder


@dataclass(frozen=True)
class Planned:
    """One run of a study with one seed.

    Attributes:
        recipe: a file, or the name of a shipped recipe.
        changes: what replaces its values.
        of: the run whose backbone it goes on from.
    """

    name: str
    seed: int
    recipe: str
    changes: dict[str, Any]
    of: "Planned | None"

    @property
    def folder_name(self) -> str:
        """What its run folder is called, where that name is free."""
        return f"{self.name}-s{self.seed}"

    def overrides(self, backbone: Path | None = None) -> dict[str, Any]:
        """What replaces the recipe's values.

        Args:
            backbone: that of `of`, once it is there.
        """
        if self.of is None:
            return self.changes
        section = "backbone" if describe(find_recipe(self.recipe))[0] == "probe" else "pretrained"
        return {**self.changes, f"{section}.file": str(backbone or "later.keras")}


def planned_runs(study: StudyRecipe) -> list[Planned]:
    """All runs of a study at its scale, seed by seed, each after the run that it goes on from.

    Raises:
        RecipeError: a recipe is wrong with what the study changes of it.
    """
    scale = study.scales[study.scale]
    planned: list[Planned] = []
    complaints = []
    for seed in scale.seeds:
        by_name: dict[str, Planned] = {}
        for run in study.run:
            if run.once and seed != scale.seeds[0]:
                continue
            changes = {**flattened(study.set), **flattened(run.set), **flattened(scale.set.get(run.name, {}))}
            changes |= {"seed": seed} | (_architecture(by_name[run.like]) if run.like else {})
            source = by_name[run.of] if run.of else None
            by_name[run.name] = Planned(run.name, seed, scale.recipes[run.recipe], changes, source)
        planned += by_name.values()
    for first in planned[: len(study.run)]:
        try:
            load_recipe(first.recipe, first.overrides())
        except RecipeError as error:
            complaints.append(f"run {first.name!r}: {error}")
    if complaints:
        raise RecipeError("\n".join(complaints))
    return planned


def _architecture(run: Planned) -> dict[str, Any]:
    """What gives another recipe the backbone that this run makes from scratch.

    Raises:
        RecipeError: its recipe is wrong, or makes none.
    """
    try:
        backbone = getattr(load_recipe(run.recipe, run.overrides()), "backbone", None)
    except RecipeError as error:
        raise RecipeError(f"run {run.name!r}: {error}") from None
    if not isinstance(backbone, Backbone):
        raise RecipeError(f"run {run.name!r} makes no backbone from scratch: no run can be like it")
    return flattened({"backbone": backbone.model_dump(exclude_none=True)})


def with_absolute_paths(study: StudyRecipe, base: Path) -> StudyRecipe:
    """The study with the recipes of its scales named so that they are found from anywhere.

    Args:
        base: the folder that relative paths start from.
    """
    shipped = shipped_recipes()

    def found(name: str) -> str:
        return name if name in shipped else str((base / name).absolute())

    scales = {
        name: scale.model_copy(update={"recipes": {key: found(value) for key, value in scale.recipes.items()}})
        for name, scale in study.scales.items()
    }
    return study.model_copy(update={"scales": scales})


def run_of(recipe: Recipe, runs: Sequence[RunFolder]) -> RunFolder | None:
    """The run folder of exactly this recipe: a finished one if there is one, else the newest.

    Keys that were not there yet when a folder was made count as their defaults.
    """
    same = [run for run in runs if _loaded(run.recipe) == recipe and not run.newer()]
    finished = [run for run in same if run.state() == "finished"]
    return next(iter([*finished[-1:], *same[-1:]]), None)


def _loaded(path: Path) -> Recipe | None:
    try:
        return load_recipe(path)
    except RecipeError:
        return None
