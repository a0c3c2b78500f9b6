"""What recipes of the kind `transfer` may say: PASCAL VOC's tasks, or those of data annotated alike."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from rotnet_keras.config.schema import Head, Pretrained, SeededRecipe
from rotnet_keras.config.sections import (
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
    rescale: bool = Field(
        False,
        description="Fold the backbone's batch normalisation into its weights, and let all its layers learn equally "
        "fast. From scratch, the statistics are those of some pictures.",
    )
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    train: Train
    devices: Devices = Devices()


class Canvas(Section):
    """The square that pictures are laid on."""

    side: int = Field(512, ge=32, le=2048, description="In pixels.")
    scales: list[PositiveFloat] = Field(
        [1.0, 1.0],
        min_length=2,
        max_length=2,
        description="Pictures in training have a size between these; at 1, as in tests, they just fill the canvas.",
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


class CanvasRecipe(TransferRecipe):
    """What tasks on whole pictures have."""

    canvas: Canvas = Canvas()

    @field_validator("train")
    @classmethod
    def _no_smoothing(cls, train: Train) -> Train:
        if train.label_smoothing:
            raise ValueError("this task has no label_smoothing; leave it out")
        return train


class SegmentationRecipe(CanvasRecipe):
    """What every pixel belongs to."""

    task: Literal["segmentation"]
    decoder: Literal["fcn", "deeplab"] = "fcn"
    tap: str = Field(pattern=r"^[A-Za-z_]\w*$", description="The last map of the backbone that is read.")
    low: str | None = Field(None, description="deeplab: an earlier, larger map that refines the edges.")

    @model_validator(mode="after")
    def _low_is_deeplabs(self) -> "SegmentationRecipe":
        if (self.decoder == "deeplab") != (self.low is not None):
            raise ValueError(f"low: {'deeplab needs a second map' if self.low is None else 'only deeplab has one'}")
        return self


class DetectionRecipe(CanvasRecipe):
    """Which objects are where."""

    task: Literal["detection"]
    detector: Literal["faster_rcnn", "retinanet"] = "faster_rcnn"
    taps: list[str] = Field(
        min_length=1, description="The map that Faster R-CNN reads, or RetinaNet's three, each half as large."
    )
    after: str | None = Field(
        None, description="What follows on this layer tells regions apart; on the tap when not given (faster_rcnn)."
    )
    cells: int | None = Field(
        None,
        ge=1,
        le=32,
        description="Height and width of regions as read from the map; the backbone's own there when not given.",
    )

    @model_validator(mode="after")
    def _taps_are_the_detectors(self) -> "DetectionRecipe":
        wanted = {"faster_rcnn": 1, "retinanet": 3}[self.detector]
        if len(self.taps) != wanted:
            raise ValueError(f"taps: {self.detector} reads {wanted}, got {len(self.taps)}")
        for key in ("after", "cells"):
            if getattr(self, key) and self.detector == "retinanet":
                raise ValueError(f"{key}: retinanet reads no regions; leave it out")
        return self
