"""What recipes of the kind `transfer` may say: PASCAL VOC's tasks, or those of data annotated alike."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from rotnet_keras.schema import Head, Pretrained, SeededRecipe
from rotnet_keras.sections import (
    AnnotatedData,
    Augment,
    Backbone,
    Devices,
    Optimizer,
    PositiveFloat,
    Schedule,
    Section,
    Train,
)


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


class Canvas(Section):
    """The square that pictures are laid on."""

    side: int = Field(512, ge=32, le=2048, description="In pixels; what is larger is cut, or made smaller in tests.")
    scales: list[PositiveFloat] = Field(
        [1.0, 1.0], min_length=2, max_length=2, description="Pictures are enlarged by something between these."
    )
    flip: bool = Field(True, description="Mirror left and right, with probability one half.")

    @model_validator(mode="after")
    def _scales_rise(self) -> "Canvas":
        if self.scales[0] > self.scales[1]:
            raise ValueError(f"scales: expected two rising numbers, got {self.scales}")
        return self


class ClassificationRecipe(TransferRecipe):
    """Which classes are in a picture; several may be."""

    task: Literal["classification"]
    augment: Augment = Augment()
    head: Head = Head()
    views: int = Field(10, ge=1, le=100, description="Random crops of a test picture whose scores are summed.")

    @field_validator("head")
    @classmethod
    def _all_labels(cls, head: Head) -> Head:
        if head.labels_per_class is not None:
            raise ValueError("pictures of several classes cannot be chosen by class: leave labels_per_class out")
        return head


class SegmentationRecipe(TransferRecipe):
    """What every pixel belongs to."""

    task: Literal["segmentation"]
    canvas: Canvas = Canvas()
    tap: str = Field(pattern=r"^[A-Za-z_]\w*$", description="The last map of the backbone that is read.")

    @field_validator("train")
    @classmethod
    def _no_smoothing(cls, train: Train) -> Train:
        if train.label_smoothing:
            raise ValueError("segmentation has no label_smoothing; leave it out")
        return train
