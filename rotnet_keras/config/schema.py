"""The kinds of recipe and the sections of each.

Rules between sections are in `validation.py`, the recipes of studies in `study.py`, those of VOC's tasks in
`transfer.py`.
"""

from collections.abc import Set
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from rotnet_keras.config.probes import Labels, Probe
from rotnet_keras.config.sections import (
    Augment,
    Backbone,
    Data,
    Devices,
    Optimizer,
    PositiveFloat,
    Rotation,
    Schedule,
    Section,
    Train,
)


class Expect(Section):
    """The measured duration of a run of the recipe: for information only, it changes nothing."""

    minutes: PositiveFloat = Field(description="Duration of the whole run in minutes.")
    hardware: str = Field(min_length=1, description="The machine that it was measured on.")


class Recipe(Section):
    """The keys of every recipe."""

    kind: str = Field(description="The kind of recipe.")
    title: str = Field(min_length=1, description="One line about the recipe, shown in lists and reports.")
    expect: Expect | None = None


class SeededRecipe(Recipe):
    """The keys of every recipe of a single run."""

    seed: int = Field(0, ge=0, lt=2**31, description="Seed of everything random in the run.")


class RunRecipe(SeededRecipe):
    """The keys of every recipe of a single run on images that have at most one label each."""

    data: Data


class BackboneSource(Section):
    """Where a pretrained backbone comes from: a run, the newest run of a recipe, or a file; exactly one of them."""

    WAYS: ClassVar = ("run", "recipe", "file")

    run: str | None = Field(
        None,
        description="Name or folder of a run, or the name of a pretrained model that `rotnet-keras weights` lists.",
    )
    recipe: str | None = Field(None, description="Name of a recipe, whose newest finished run is taken.")
    file: str | None = Field(None, description="Path of a .keras file.")

    @model_validator(mode="after")
    def _check_one_way(self) -> "BackboneSource":
        if sum(getattr(self, way) is not None for way in self.WAYS) != 1:
            raise ValueError("expected exactly one of run, recipe and file")
        return self


class Head(Labels):
    """The classifier on top of the backbone, and the labelled images that it learns from."""

    name: Literal["pool", "linear", "mlp", "conv", "fc", "conv_fc"] = Field(
        "pool", description="The classifier: a linear one on pooled features (pool), or one of the probes' heads."
    )
    tap: str | None = Field(
        None,
        pattern=r"^[A-Za-z_]\w*$",
        description="Layer of the backbone that the classifier is attached to; the last one by default.",
    )


class Pretrained(BackboneSource):
    """The pretrained backbone that is fine-tuned: from a run, the newest run of a recipe, or a file."""

    learning_rate: PositiveFloat | None = Field(
        None, description="Peak learning rate of the backbone's layers; `optimizer.learning_rate` by default."
    )
    frozen: str | None = Field(
        None,
        description="Last layer that is not trained: it and all layers before it are frozen, with batch normalisation "
        "in inference mode.",
    )


class Start(Pretrained):
    """The pretrained backbone that pretraining goes on from, with a new head for the rotations."""

    statistics: Literal["model", "images"] = Field(
        "model",
        description="The mean and standard deviation that pixels are scaled by: those that the backbone was trained "
        "with, or those of these images.",
    )


class FeatureMeasures(Section):
    """What is measured of the features of each tap after every epoch of pretraining, without training anything."""

    images: int = Field(
        512,
        ge=0,
        le=25_600,
        description="Number of training images for the effective rank (RankMe) and the share of dead channels, which "
        "need no labels; 0 for none.",
    )
    knn: bool = Field(
        False,
        description="Measure the k-NN accuracy too: of at most 4,000 labelled training images, the 20 nearest vote on "
        "each of at most 1,000 validation images.",
    )

    @model_validator(mode="after")
    def _check_images(self) -> "FeatureMeasures":
        if self.knn and not self.images:
            raise ValueError("knn: it is measured together with the effective rank; set images above 0")
        return self


class PretrainRecipe(RunRecipe):
    """Learns features without labels by predicting rotations, and then measures them with probes."""

    kind: Literal["pretrain"] = Field(description="The kind of recipe.")
    augment: Augment = Augment()
    rotation: Rotation = Rotation()
    backbone: Backbone | None = None
    pretrained: Start | None = None
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    train: Train
    devices: Devices = Devices()
    features: FeatureMeasures = FeatureMeasures()
    probe: list[Probe] = Field(
        [], description="The probes, each in a section [[probe]]; left out where the images have no labels."
    )

    def for_labels(self, labelled: Set[str]) -> tuple["PretrainRecipe", str]:
        """Leave out what needs labels that the images do not have: the probes, and the k-NN accuracy.

        Args:
            labelled: the splits with labelled images, of "train", "validation" and "test".

        Returns:
            The recipe to follow, and a sentence on what it leaves out, "" for nothing.
        """
        left_out: dict[str, Any] = {}
        said = []
        if self.probe and not {"train", "test"} <= labelled:
            left_out["probe"] = []
            said.append("the probes are left out: they need labelled training and test images")
        if self.features.knn and not {"train", "validation"} <= labelled:
            left_out["features"] = self.features.model_copy(update={"knn": False})
            said.append("features.knn is left out: it needs labelled training and validation images")
        return self.model_copy(update=left_out), "; ".join(said)


class Auxiliary(Section):
    """Rotation prediction as a second task beside classification (S4L), on labelled and unlabelled images."""

    weight: PositiveFloat = Field(1.0, description="Weight of the rotation loss, added to the classification loss.")
    batch: int | None = Field(
        None,
        ge=0,
        description="Images per step for the rotation loss alone, from all training images; as many as labelled ones "
        "by default, 0 where all images have labels.",
    )
    angles: list[int] = Field(
        [0, 90, 180, 270], min_length=2, description="Angles to predict: distinct multiples of 90 degrees."
    )

    @model_validator(mode="after")
    def _check_angles(self) -> "Auxiliary":
        if len(set(self.angles)) != len(self.angles) or not set(self.angles) <= {0, 90, 180, 270}:
            raise ValueError(f"angles: expected distinct multiples of 90 from 0 to 270, got {self.angles}")
        return self

    def unlabelled(self, labelled: int) -> int:
        """Return the images per step whose labels are not used, beside these labelled ones."""
        return labelled if self.batch is None else self.batch


class Joint(Section):
    """Classes and rotations predicted jointly (Lee et al. 2020), on rotated copies of the labelled images."""

    angles: list[int] = Field(
        [0, 90, 180, 270],
        min_length=2,
        description="Angles of the copies: distinct multiples of 90 degrees, among them 0.",
    )
    predict: Literal["all", "upright"] = Field(
        "all",
        description="What a prediction reads: the mean over the rotated copies of an image, which takes as many passes "
        "as there are angles, or the upright image alone.",
    )

    @property
    def predicted_angles(self) -> list[int]:
        """The angles of the copies that a prediction averages over."""
        return self.angles if self.predict == "all" else [0]

    @model_validator(mode="after")
    def _check_angles(self) -> "Joint":
        distinct = len(set(self.angles)) == len(self.angles) and set(self.angles) <= {0, 90, 180, 270}
        if not distinct or 0 not in self.angles:
            raise ValueError(f"angles: expected 0 and other distinct multiples of 90 below 360, got {self.angles}")
        return self


class ClassifyRecipe(RunRecipe):
    """Trains a classifier on labelled images, from scratch or by fine-tuning a pretrained backbone."""

    kind: Literal["classify"] = Field(description="The kind of recipe.")
    augment: Augment = Augment()
    backbone: Backbone | None = None
    pretrained: Pretrained | None = None
    head: Head = Head()
    auxiliary: Auxiliary | None = None
    joint: Joint | None = None
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    train: Train
    devices: Devices = Devices()


class ProbeRecipe(RunRecipe):
    """Measures the features of a trained backbone with probes."""

    kind: Literal["probe"] = Field(description="The kind of recipe.")
    backbone: BackboneSource
    augment: Augment = Augment()
    probe: list[Probe] = Field(min_length=1, description="The probes, each in a section [[probe]].")
