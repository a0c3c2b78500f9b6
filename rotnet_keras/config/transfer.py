"""Recipes of the kind `transfer`: PASCAL VOC's tasks on VOC itself, or on data annotated in its format."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from rotnet_keras.config.schema import Head, Pretrained, SeededRecipe
from rotnet_keras.config.sections import (
    AnnotatedData,
    Augment,
    Backbone,
    Devices,
    Fraction,
    Optimizer,
    PositiveFloat,
    Schedule,
    Section,
    Train,
)

# Of Fast R-CNN in the paper.
MOST_PROPOSALS = 2000


class TransferRecipe(SeededRecipe):
    """The keys of all transfer tasks: annotated images, and a backbone from scratch or pretrained."""

    kind: Literal["transfer"] = Field(description="The kind of recipe.")
    data: AnnotatedData
    backbone: Backbone | None = None
    pretrained: Pretrained | None = None
    rescale: bool = Field(
        False,
        description="Fold the backbone's batch normalisation into its weights and rescale them so that all layers "
        "learn at the same rate; from scratch, with statistics of a few training images.",
    )
    bias_rate: PositiveFloat = Field(
        1.0, description="Factor of the biases' learning rate: 2 in the protocols of PASCAL VOC, 1 by default."
    )
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    train: Train
    devices: Devices = Devices()


class Canvas(Section):
    """The square input that whole images are letterboxed into."""

    side: int = Field(512, ge=32, le=2048, description="Side of the square in pixels.")
    scales: list[PositiveFloat] = Field(
        [1.0, 1.0],
        min_length=2,
        max_length=2,
        description="Smallest and largest scale of training images; at 1 an image just fits into the square.",
    )
    short: int | None = Field(
        None,
        ge=16,
        le=2048,
        description="Length in pixels of an image's short side in evaluation, if the image then fits into the square; "
        "by default, and where it would not, it just fits.",
    )
    flip: bool = Field(True, description="Mirror a training image left to right with a probability of one half.")

    @model_validator(mode="after")
    def _check_scales(self) -> "Canvas":
        if self.scales[0] > self.scales[1]:
            raise ValueError(f"scales: expected two rising numbers, got {self.scales}")
        if self.short is not None and self.short > self.side:
            raise ValueError(f"short: expected at most side, {self.side}, got {self.short}")
        return self


class ClassificationRecipe(TransferRecipe):
    """Predicts which classes an image contains; there may be several."""

    task: Literal["classification"] = Field(description="The task.")
    augment: Augment = Augment()
    head: Head = Head()
    head_start: Literal["released", "voc"] = Field(
        "released",
        description="How the head's last layer starts: as in the released code, or from N(0, 0.01) with biases of 0.1, "
        "as in the protocol of VOC's classification.",
    )
    views: int = Field(
        10, ge=1, le=100, description="Number of random crops of each test image whose scores are summed."
    )

    @field_validator("head")
    @classmethod
    def _refuse_labels_per_class(cls, head: Head) -> Head:
        if head.labels_per_class is not None:
            raise ValueError("images of several classes cannot be drawn per class; leave labels_per_class out")
        return head


class CanvasRecipe(TransferRecipe):
    """The keys of tasks on whole images."""

    canvas: Canvas = Canvas()
    dropout: Fraction = Field(
        0.0, description="Dropout behind the dense layers that the backbone ends in, such as AlexNet's fc6 and fc7."
    )

    @model_validator(mode="after")
    def _check_dropout(self) -> "CanvasRecipe":
        if self.dropout and self.train.accumulate > 1:
            raise ValueError("dropout: every part of a batch would drop the same features; leave out train.accumulate")
        return self

    @field_validator("train")
    @classmethod
    def _refuse_label_smoothing(cls, train: Train) -> Train:
        if train.label_smoothing:
            raise ValueError("this task has no label smoothing; leave label_smoothing out")
        return train


class SegmentationRecipe(CanvasRecipe):
    """Predicts the class of every pixel."""

    task: Literal["segmentation"] = Field(description="The task.")
    decoder: Literal["fcn", "deeplab"] = Field("fcn", description="Decoder: FCN-32s' or DeepLab v3+'s.")
    tap: str = Field(
        pattern=r"^[A-Za-z_]\w*$", description="Layer of the backbone whose feature map the decoder reads."
    )
    low: str | None = Field(
        None, description="deeplab: an earlier layer, whose larger feature map refines the edges of objects."
    )

    @model_validator(mode="after")
    def _check_low(self) -> "SegmentationRecipe":
        if (self.decoder == "deeplab") != (self.low is not None):
            problem = "'deeplab' needs a second, earlier layer" if self.low is None else "only 'deeplab' has it"
            raise ValueError(f"low: {problem}")
        if self.dropout and self.decoder == "deeplab":
            raise ValueError("dropout: only 'fcn' keeps the backbone's dense layers; leave it out")
        return self


class DetectionRecipe(CanvasRecipe):
    """Finds objects: their boxes and their classes."""

    task: Literal["detection"] = Field(description="The task.")
    detector: Literal["faster_rcnn", "fast_rcnn", "retinanet"] = Field(
        "faster_rcnn",
        description="The detector. fast_rcnn has regions proposed by selective search, which takes some seconds for "
        "each image and is done once; it needs another package.",
    )
    proposals: int | None = Field(
        None, ge=1, le=10_000, description="fast_rcnn: most regions that are proposed for an image; 2,000 by default."
    )
    taps: list[str] = Field(
        min_length=1,
        description="Layers whose feature maps the detector reads: three for RetinaNet, each half as large as the one "
        "before; one for the others.",
    )
    after: str | None = Field(
        None,
        description="Not for retinanet: layer of the backbone after which its remaining layers become the head that "
        "classifies regions; the tap by default.",
    )
    cells: int | None = Field(
        None,
        ge=1,
        le=32,
        description="Not for retinanet: height and width of the features that RoI align reads for a region; what the "
        "backbone has at that layer by default.",
    )

    @model_validator(mode="after")
    def _check_taps(self) -> "DetectionRecipe":
        expected = 3 if self.detector == "retinanet" else 1
        if len(self.taps) != expected:
            layers = "1 layer" if expected == 1 else f"{expected} layers"
            raise ValueError(f"taps: expected {layers} for {self.detector!r}, got {len(self.taps)}")
        for key in ("after", "cells", "dropout"):
            if getattr(self, key) and self.detector == "retinanet":
                raise ValueError(f"{key}: 'retinanet' has none; leave it out")
        if self.proposals is not None and self.detector != "fast_rcnn":
            raise ValueError("proposals: only 'fast_rcnn' has them; leave it out")
        return self

    @property
    def most_proposals(self) -> int:
        """The most regions that are proposed for an image by another program; 0 where the detector does so itself."""
        return (self.proposals or MOST_PROPOSALS) if self.detector == "fast_rcnn" else 0
