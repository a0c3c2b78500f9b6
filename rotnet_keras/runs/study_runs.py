"""The runs of a study: the recipe of each, and the run folders that have exactly that recipe already."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rotnet_keras.config.finder import find_recipe, kind_and_title, shipped_recipes
from rotnet_keras.config.loading import flatten_overrides, load_recipe
from rotnet_keras.config.schema import Recipe
from rotnet_keras.config.sections import Backbone
from rotnet_keras.config.study import StudyRecipe
from rotnet_keras.errors import RecipeError
from rotnet_keras.runs.folder import RunFolder


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study, with one seed.

    Attributes:
        name: the name of the run in the study.
        recipe: a file, or the name of a shipped recipe.
        changed_values: values that replace the recipe's, by dotted key.
        source: the run whose backbone this one starts from; None if it starts from scratch.
    """

    name: str
    seed: int
    recipe: str
    changed_values: dict[str, Any]
    source: "PlannedRun | None"

    @property
    def folder_name(self) -> str:
        """The name of its run folder, if that name is free."""
        return f"{self.name}-s{self.seed}"

    def overrides(self, backbone: Path | None = None) -> dict[str, Any]:
        """Return the values that replace the recipe's, by dotted key.

        Args:
            backbone: the backbone file of `source`; None as long as it does not exist.
        """
        if self.source is None:
            return self.changed_values
        section = "backbone" if kind_and_title(find_recipe(self.recipe))[0] == "probe" else "pretrained"
        return {**self.changed_values, f"{section}.file": str(backbone or "later.keras")}


def planned_runs(study: StudyRecipe) -> list[PlannedRun]:
    """Return all runs of a study at its scale, seed by seed, each after the run whose backbone it starts from.

    Raises:
        RecipeError: a recipe is invalid with the values that the study changes.
    """
    scale = study.scales[study.scale]
    planned: list[PlannedRun] = []
    complaints = []
    by_name: dict[str, PlannedRun] = {}  # The newest of each name: a run that is made once serves all seeds.
    for seed in scale.seeds:
        for run in study.run:
            if run.once and seed != scale.seeds[0]:
                continue
            changes: dict[str, Any] = {}
            for overrides in (study.set, run.set, scale.set.get(run.name, {})):
                changes |= flatten_overrides(overrides)
            changes |= {"seed": seed} | (_architecture(by_name[run.like]) if run.like else {})
            source = by_name[run.of] if run.of else None
            by_name[run.name] = PlannedRun(run.name, seed, scale.recipes[run.recipe], changes, source)
            planned.append(by_name[run.name])
    for first in planned[: len(study.run)]:
        try:
            load_recipe(first.recipe, first.overrides())
        except RecipeError as error:
            complaints.append(f"run {first.name!r}: {error}")
    if complaints:
        raise RecipeError("\n".join(complaints))
    return planned


def _architecture(run: PlannedRun) -> dict[str, Any]:
    """Return the recipe values that describe the backbone that this run trains from scratch.

    Raises:
        RecipeError: its recipe is invalid, or trains no backbone.
    """
    try:
        backbone = getattr(load_recipe(run.recipe, run.overrides()), "backbone", None)
    except RecipeError as error:
        raise RecipeError(f"run {run.name!r}: {error}") from None
    if not isinstance(backbone, Backbone):
        raise RecipeError(f"run {run.name!r} trains no backbone from scratch, so no run can be like it")
    return flatten_overrides({"backbone": backbone.model_dump(exclude_none=True)})


def with_absolute_paths(study: StudyRecipe, base: Path) -> StudyRecipe:
    """Return the study with absolute paths to its recipes, so that they are found from any folder.

    Args:
        base: the folder that relative paths are relative to.
    """
    shipped = shipped_recipes()

    def found(name: str) -> str:
        return name if name in shipped else str((base / name).absolute())

    scales = {
        name: scale.model_copy(update={"recipes": {key: found(value) for key, value in scale.recipes.items()}})
        for name, scale in study.scales.items()
    }
    return study.model_copy(update={"scales": scales})


def find_matching_run(recipe: Recipe, runs: Sequence[RunFolder]) -> RunFolder | None:
    """Return the newest run folder with exactly this recipe, preferably a finished one; None if there is none.

    Keys that did not exist yet when a folder was created count as their defaults.
    """
    same = [run for run in runs if _load_valid_recipe(run.recipe) == recipe and not run.has_newer_format()]
    finished = [run for run in same if run.state() == "finished"]
    return next(iter([*finished[-1:], *same[-1:]]), None)


def _load_valid_recipe(path: Path) -> Recipe | None:
    try:
        return load_recipe(path)
    except RecipeError:
        return None
