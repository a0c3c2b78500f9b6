"""What recipes of the kind `transfer` may say: PASCAL VOC's tasks, or those of data annotated alike."""

from typing import Literal

from pydantic import Field

from rotnet_keras.schema import Head, Pretrained, SeededRecipe
from rotnet_keras.sections import AnnotatedData, Augment, Backbone, Devices, Optimizer, Schedule, Train


class TransferRecipe(SeededRecipe):
    """What all tasks have: annotated pictures, and a backbone, from scratch or pretrained."""

    kind: Literal["transfer"]
    data: AnnotatedData
    backbone: Backbone | None = None
    pretrained: Pretrained | None = None
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    train: Train
    devices: Devices = Devices()


class ClassificationRecipe(TransferRecipe):
    """Which classes are in a picture; several may be."""

    task: Literal["classification"]
    augment: Augment = Augment()
    head: Head = Head()
    views: int = Field(10, ge=1, le=100, description="Random crops of a test picture whose scores are summed.")
