"""The kinds of recipe, and the schema of each."""

from dataclasses import dataclass

from rotnet_keras.config.schema import ClassifyRecipe, PretrainRecipe, ProbeRecipe, Recipe
from rotnet_keras.config.study import StudyRecipe
from rotnet_keras.config.transfer import ClassificationRecipe, DetectionRecipe, SegmentationRecipe


@dataclass(frozen=True)
class Kind:
    """A kind of recipe.

    Attributes:
        schema: the model that its recipes are checked with.
        trains: whether the process of its runs loads TensorFlow.
    """

    schema: type[Recipe]
    trains: bool = True


# The kind `transfer` by its key `task`.
TRANSFER_TASKS = {
    "classification": Kind(ClassificationRecipe),
    "detection": Kind(DetectionRecipe),
    "segmentation": Kind(SegmentationRecipe),
}
KINDS = {
    "pretrain": Kind(PretrainRecipe),
    "classify": Kind(ClassifyRecipe),
    "probe": Kind(ProbeRecipe),
    **{f"transfer {task}": kind for task, kind in TRANSFER_TASKS.items()},
    "study": Kind(StudyRecipe, trains=False),
}


def kind_name(recipe: Recipe) -> str:
    """Return the recipe's key in `KINDS`."""
    return " ".join([recipe.kind, *([recipe.task] if hasattr(recipe, "task") else [])])


def kind_of(recipe: Recipe) -> Kind:
    """Return the kind of a recipe."""
    return KINDS[kind_name(recipe)]
