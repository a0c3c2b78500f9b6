"""The sections of recipes about probes: the images with labels, and the classifiers on frozen features."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from rotnet_keras.config.sections import Length, Optimizer, Precision, Schedule, Section


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Labels(Section):
    """The labelled images that a classifier learns from."""

    labels_per_class: int | None = Field(
        None, ge=1, description="Number of labelled images per class to train on; all by default."
    )
    label_choice: Literal["random", "first"] = Field(
        "random",
        description="How the images of `labels_per_class` are chosen: drawn with the seed, or the first of each class "
        "in the order of the data.",
    )


# random: fresh weights, with the batch normalisations' statistics estimated on training images;
# random_identity: fresh weights with mean 0 and variance 1, as the released code leaves them; pixels: no backbone.
Baseline = Literal["random", "random_identity", "pixels"]


# What an image's features or predictions are averaged over: nothing, its mirror image, or ten crops.
Averaging = Literal["none", "mirror", "crops"]


class Probe(Length, Labels):
    """A classifier on frozen features: its accuracy says how well they separate the classes."""

    head: Literal["linear", "mlp", "conv", "fc", "conv_fc", "knn"] = Field(
        description="The classifier: linear, with hidden layers (mlp, fc), convolutional (conv, conv_fc), or k-NN."
    )
    tap: Annotated[list[str], BeforeValidator(_as_list)] = Field(
        ["all"], description="Layer to read, 'conv2+conv3' for two side by side, a list of them, or 'all' taps."
    )
    baselines: list[Baseline] = Field(
        [],
        description="What the same head is also trained on for comparison: a backbone with random weights, with "
        "estimated or identity batch statistics, or raw pixels.",
    )
    repeats: int = Field(
        1, ge=1, le=100, description="Repetitions with newly drawn labels and newly initialised heads."
    )
    augment: bool = Field(
        False, description="Crop and flip the training images as in pretraining, anew in every epoch."
    )
    views: int | None = Field(
        None,
        ge=1,
        le=100,
        description="With `augment`: number of crops of each image whose features are computed once and then used in "
        "turn, which is far faster.",
    )
    average: Averaging = Field(
        "none",
        description="What the features of an image are averaged over: its mirror image, which takes twice the time, or "
        "five shifted crops and their mirror images, ten times. The exported classifier averages too.",
    )
    every: int | None = Field(
        None, ge=1, description="Epochs of pretraining between probes; only at the end by default."
    )
    precision: Precision = "auto"
    neighbours: int = Field(20, ge=1, description="knn: number of neighbours that vote.")
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule(name="cosine")

    @property
    def looks(self) -> int:
        """How often the backbone looks at an image whose features are averaged."""
        return {"none": 1, "mirror": 2, "crops": 10}[self.average]

    @property
    def draws(self) -> int:
        """The repetitions that can differ: one for k-NN if its labels are not drawn, else `repeats`."""
        labels_are_drawn = self.labels_per_class is not None and self.label_choice == "random"
        return self.repeats if self.head != "knn" or labels_are_drawn else 1

    @property
    def fills_batches(self) -> bool:
        """Whether every step has a whole batch: with few labels and a length in `steps`, as in the released code."""
        return self.labels_per_class is not None and self.steps is not None

    @model_validator(mode="before")
    @classmethod
    def _default_to_ten_epochs(cls, values: Any) -> Any:
        if isinstance(values, dict) and not {"epochs", "steps"} & values.keys():
            return {**values, "epochs": 10}
        return values
