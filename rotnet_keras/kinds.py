"""The kinds of recipe there are: what each may say, and the function that runs it."""

from dataclasses import dataclass

from rotnet_keras.schema import ClassifyRecipe, PretrainRecipe, ProbeRecipe, Recipe
from rotnet_keras.study_schema import StudyRecipe


@dataclass(frozen=True)
class Kind:
    """One kind of recipe. `runner` is "module:function", imported only when a run starts.

    Attributes:
        trains: whether its own process loads TensorFlow.
    """

    schema: type[Recipe]
    runner: str
    trains: bool = True


KINDS = {
    "pretrain": Kind(PretrainRecipe, "rotnet_keras.pretrain:pretrain"),
    "classify": Kind(ClassifyRecipe, "rotnet_keras.classify:classify"),
    "probe": Kind(ProbeRecipe, "rotnet_keras.probing:probe_backbone"),
    "study": Kind(StudyRecipe, "rotnet_keras.study:study", trains=False),
}
