"""The kinds of recipe: which sections each has. What spans sections is checked in `consistency.py`.

What a study may say is in `study_schema.py`.
"""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from rotnet_keras.config.sections import (
    Augment,
    Backbone,
    Data,
    Devices,
    Labels,
    Optimizer,
    PositiveFloat,
    Probe,
    Rotation,
    Schedule,
    Section,
    Train,
)


class Expect(Section):
    """What a run of the recipe came to when it was measured; informs people, changes nothing."""

    minutes: PositiveFloat = Field(description="Wall-clock time of the whole run.")
    hardware: str = Field(min_length=1, description="What it was measured on.")


class Recipe(Section):
    """What every kind of recipe has."""

    kind: str
    title: str = Field(min_length=1)
    expect: Expect | None = None


class SeededRecipe(Recipe):
    """What the recipe of a single run has."""

    seed: int = Field(0, ge=0, lt=2**31)


class RunRecipe(SeededRecipe):
    """What the recipe of a single run on images, perhaps with labels, has."""

    data: Data


class PretrainRecipe(RunRecipe):
    """Learn features by predicting rotations, then probe them."""

    kind: Literal["pretrain"]
    augment: Augment = Augment()
    rotation: Rotation = Rotation()
    backbone: Backbone
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    train: Train
    devices: Devices = Devices()
    probe: list[Probe] = Field([])


class Source(Section):
    """Where a backbone comes from: a run, the newest finished run of a recipe, or a .keras file."""

    WAYS: ClassVar = ("run", "recipe", "file")

    run: str | None = Field(None, description="Its name or folder; or weights that ship, see `rotnet-keras weights`.")
    recipe: str | None = None
    file: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "Source":
        if sum(getattr(self, way) is not None for way in self.WAYS) != 1:
            raise ValueError("expected exactly one of run, recipe and file")
        return self


class Head(Labels):
    """The classifier on top of a backbone, and the labels that it learns from."""

    name: Literal["pool", "linear", "mlp", "conv", "fc", "conv_fc"] = "pool"
    tap: str | None = Field(None, pattern=r"^[A-Za-z_]\w*$", description="Where it sits; on the last layer by default.")


class Pretrained(Source):
    """A backbone to go on training with labels."""

    learning_rate: PositiveFloat | None = Field(
        None, description="Peak for its layers; optimizer.learning_rate, which the head has, when not given."
    )
    frozen: str | None = Field(
        None, description="Its layers up to this one stay as they are, batch normalisation in inference mode."
    )


class Auxiliary(Section):
    """Rotation as a task beside the labels: all images, with labels or without, are also asked for their angle."""

    weight: PositiveFloat = Field(1.0, description="Of its loss, beside that of the classes.")
    batch: int | None = Field(
        None, ge=1, description="Images, of all there are, beside every batch of labelled ones; as many if not given."
    )
    angles: list[int] = Field([0, 90, 180, 270], min_length=2, description="Multiples of 90.")

    @model_validator(mode="after")
    def _angles_are_distinct_right_ones(self) -> "Auxiliary":
        if len(set(self.angles)) != len(self.angles) or not set(self.angles) <= {0, 90, 180, 270}:
            raise ValueError(f"angles: expected distinct multiples of 90 from 0 to 270, got {self.angles}")
        return self


class ClassifyRecipe(RunRecipe):
    """Learn to classify images from labels, all layers: from scratch, or from a pretrained backbone."""

    kind: Literal["classify"]
    augment: Augment = Augment()
    backbone: Backbone | None = None
    pretrained: Pretrained | None = None
    head: Head = Head()
    auxiliary: Auxiliary | None = None
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    train: Train
    devices: Devices = Devices()


class ProbeRecipe(RunRecipe):
    """Measure the features of a backbone that is there already."""

    kind: Literal["probe"]
    backbone: Source
    augment: Augment = Augment()
    probe: list[Probe] = Field(min_length=1)
