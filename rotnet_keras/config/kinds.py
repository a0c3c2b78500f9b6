"""The kinds of recipe there are, and what each may say."""

from dataclasses import dataclass

from rotnet_keras.config.schema import ClassifyRecipe, PretrainRecipe, ProbeRecipe, Recipe
from rotnet_keras.config.study import StudyRecipe
from rotnet_keras.config.transfer import ClassificationRecipe, DetectionRecipe, SegmentationRecipe


@dataclass(frozen=True)
class Kind:
    """One kind of recipe.

    Attributes:
        trains: whether its own process loads TensorFlow.
    """

    schema: type[Recipe]
    trains: bool = True


# What recipes of the kind `transfer` are about.
TASKS = {
    "classification": Kind(ClassificationRecipe),
    "detection": Kind(DetectionRecipe),
    "segmentation": Kind(SegmentationRecipe),
}
KINDS = {
    "pretrain": Kind(PretrainRecipe),
    "classify": Kind(ClassifyRecipe),
    "probe": Kind(ProbeRecipe),
    **{f"transfer {task}": kind for task, kind in TASKS.items()},
    "study": Kind(StudyRecipe, trains=False),
}


def name_of(recipe: Recipe) -> str:
    """Its key in `KINDS`."""
    return " ".join([recipe.kind, *([recipe.task] if hasattr(recipe, "task") else [])])


def kind_of(recipe: Recipe) -> Kind:
    """The kind of a recipe."""
    return KINDS[name_of(recipe)]
