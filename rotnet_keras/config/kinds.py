"""The kinds of recipe there are: what each may say, and the function that runs it."""

from dataclasses import dataclass

from rotnet_keras.schema import ClassifyRecipe, PretrainRecipe, ProbeRecipe, Recipe
from rotnet_keras.study_schema import StudyRecipe
from rotnet_keras.transfer_schema import ClassificationRecipe, DetectionRecipe, SegmentationRecipe


@dataclass(frozen=True)
class Kind:
    """One kind of recipe. `runner` is "module:function", imported only when a run starts.

    Attributes:
        trains: whether its own process loads TensorFlow.
    """

    schema: type[Recipe]
    runner: str
    trains: bool = True


# What recipes of the kind `transfer` are about.
TASKS = {
    "classification": Kind(ClassificationRecipe, "rotnet_keras.classification:classify_pictures"),
    "detection": Kind(DetectionRecipe, "rotnet_keras.detection:detect"),
    "segmentation": Kind(SegmentationRecipe, "rotnet_keras.segmentation:segment"),
}
KINDS = {
    "pretrain": Kind(PretrainRecipe, "rotnet_keras.pretrain:pretrain"),
    "classify": Kind(ClassifyRecipe, "rotnet_keras.classify:classify"),
    "probe": Kind(ProbeRecipe, "rotnet_keras.probing:probe_backbone"),
    **{f"transfer {task}": kind for task, kind in TASKS.items()},
    "study": Kind(StudyRecipe, "rotnet_keras.study:study", trains=False),
}


def kind_of(recipe: Recipe) -> Kind:
    """The kind of a recipe."""
    return KINDS[" ".join([recipe.kind, *([recipe.task] if hasattr(recipe, "task") else [])])]
