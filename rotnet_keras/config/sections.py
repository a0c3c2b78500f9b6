"""The tables that recipes of several kinds have: every key, its type, its bounds and its default.

They are frozen pydantic models that refuse unknown keys.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rotnet_keras.config.architectures import ARCHITECTURES, Name

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# Of a run, however long: some 20 MB.
MOST_STEP_EVENTS = 100_000


class Section(BaseModel):
    """One table of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Splits(Section):
    """Which splits of a tfds data set to use, in tfds's own notation ("train", "train[:90%]")."""

    train: str | None = None
    validation: str | None = None
    test: str | None = None


class Data(Section):
    """Where the images come from and how they are brought to one size."""

    name: str = Field(description="'fashion_mini', a folder of images, an .npz file, or any tfds name.")
    data_dir: str | None = Field(None, description="Where tfds looks; TFDS_DATA_DIR when not given.")
    download: bool = Field(False, description="Let tfds download what is not there.")
    size: int | None = Field(
        None, ge=8, le=1024, description="Side in pixels; short side resized to it, centre square kept."
    )
    channels: Literal[1, 3] | None = Field(None, description="Grey or RGB; as the files are when not given.")
    validation: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="Share of the training images held out where there is no validation split."
    )
    whole: bool = Field(
        False, description="Crops may lie anywhere in a file's image, not only in its central square; nothing is kept."
    )
    cache: Literal["auto", "memory", "disk", "none"] = Field(
        "auto", description="Where decoded images are kept; none: a folder's files are decoded at each use."
    )
    mean: list[float] | None = Field(None, description="Per channel, 0-255; published or computed when not given.")
    std: list[PositiveFloat] | None = Field(None, description="Per channel, 0-255.")
    splits: Splits = Splits()


VOC_CLASSES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]


class AnnotatedData(Section):
    """Where pictures with objects or masks come from."""

    name: str = Field(description="A folder laid out as VOC's development kit (.../VOC2007), or tfds's 'voc/2007'.")
    data_dir: str | None = Field(None, description="Where tfds looks; TFDS_DATA_DIR when not given.")
    download: bool = Field(False, description="Let tfds download what is not there.")
    splits: Splits = Splits()
    classes: list[str] = Field(VOC_CLASSES, min_length=1, description="In the order of their numbers, no background.")
    broken: Literal["refuse", "skip"] = Field(
        "refuse", description="What to do about pictures whose annotation is missing or makes no sense."
    )
    size: int = Field(256, ge=8, le=2048, description="What the short sides of pictures are resized to for crops.")


class Augment(Section):
    """What happens to a training image before it is turned. Never after: a flip would swap 90 and 270."""

    pad: int = Field(0, ge=0, le=64, description="Zeros added on every side before the random crop.")
    crop: int | None = Field(None, ge=8, description="Side of the crop; the images' own size when not given.")
    area: list[float] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="Crops of random size: smallest and largest share of the image, [0.08, 1.0] as a rule.",
    )
    flip: bool = Field(False, description="Mirror left and right, with probability one half.")
    jitter: Fraction = Field(0.0, description="Strength of random brightness, contrast, saturation and hue.")
    greyscale: Fraction = Field(0.0, description="Share of the images that lose their colours.")

    @model_validator(mode="after")
    def _keys_of_crops_fit(self) -> "Augment":
        if self.area is not None and not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"area: expected two rising shares above 0 and up to 1, got {self.area}")
        if self.area is not None and self.pad:
            raise ValueError("pad: crops of random size (area) need no padding; leave it out")
        return self


class Rotation(Section):
    """The pretext task."""

    angles: list[int] = Field([0, 90, 180, 270], min_length=2, description="Counter-clockwise, multiples of 45.")
    copies: Literal["all", "one"] = Field("all", description="Every angle of each image, or one at random.")
    hidden: list[Annotated[int, Field(ge=1)]] = Field([], description="Units of layers before the angle classifier.")

    @model_validator(mode="after")
    def _angles_are_distinct_multiples_of_45(self) -> "Rotation":
        if len(set(self.angles)) != len(self.angles) or any(a % 45 or not 0 <= a < 360 for a in self.angles):
            raise ValueError(f"angles: expected distinct multiples of 45 from 0 to 315, got {self.angles}")
        return self


class Backbone(Section):
    """The network below the head."""

    name: Name
    blocks: int | None = Field(None, ge=2, le=8, description="nin and compact only, which have 4 by default.")
    width: float = Field(1.0, gt=0, le=16, description="Multiplies every number of channels.")

    @model_validator(mode="before")
    @classmethod
    def _four_blocks_unless_said(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("name") in ("nin", "compact") and values.get("blocks") is None:
            return {**values, "blocks": 4}
        return values

    @model_validator(mode="after")
    def _keys_fit_the_name(self) -> "Backbone":
        architecture = ARCHITECTURES[self.name]
        if self.blocks is not None and architecture.taps is not None:
            raise ValueError(f"blocks: {self.name!r} has its own number of blocks; leave blocks out")
        if self.width != 1 and not architecture.width:
            raise ValueError(f"width: {self.name!r} comes in one width; leave width out")
        return self

    def taps(self) -> list[str]:
        """The layers whose features a probe of all taps reads."""
        return [f"conv{i}" for i in range(1, (ARCHITECTURES[self.name].taps or self.blocks or 0) + 1)]

    def readable(self) -> list[str]:
        """The taps, and other layers that features can be read from."""
        return [*self.taps(), *ARCHITECTURES[self.name].further]


class Optimizer(Section):
    """SGD decays weights as PyTorch does, within the gradient; AdamW beside it."""

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: PositiveFloat = 0.1
    momentum: Fraction = 0.9
    nesterov: bool = True
    weight_decay: NonNegativeFloat = 5e-4
    decay: Literal["all", "kernels"] = Field(
        "all", description="What sgd's weight_decay is for: as in the paper's code, or not biases and normalisations."
    )
    clip: PositiveFloat | None = Field(None, description="Scale gradients down to this norm, all of them together.")
    ema: Fraction = Field(
        0.0, description="Keep running averages of the weights, such a share of the old at each step; they count."
    )


class Schedule(Section):
    """How the learning rate changes; `optimizer.learning_rate` is its peak."""

    name: Literal["constant", "piecewise", "cosine", "one_cycle"] = "constant"
    unit: Literal["epochs", "steps"] = "epochs"
    warmup: NonNegativeFloat = Field(0.0, description="Linear rise from zero, in units.")
    boundaries: list[PositiveFloat] = Field([], description="piecewise: where the rate drops, in units.")
    factor: PositiveFloat = Field(0.2, description="piecewise: what each boundary multiplies the rate by.")
    peak: Fraction = Field(0.25, description="one_cycle: share of the run spent rising to the peak.")

    @model_validator(mode="after")
    def _keys_fit_the_name(self) -> "Schedule":
        if self.name == "piecewise" and (not self.boundaries or self.boundaries != sorted(self.boundaries)):
            raise ValueError(f"boundaries: expected rising positions for 'piecewise', got {self.boundaries}")
        if self.name != "piecewise" and self.boundaries:
            raise ValueError(f"boundaries: only 'piecewise' has them, and name is {self.name!r}")
        if self.name == "one_cycle" and self.warmup:
            raise ValueError("warmup: 'one_cycle' rises for the share `peak` of the run; leave warmup out")
        return self


Precision = Annotated[
    Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"],
    Field(description="auto: bfloat16 or float16 where this hardware is faster for it, else float32."),
]


class Length(Section):
    """How long something trains: whole epochs or steps, one of the two."""

    epochs: int | None = Field(None, ge=1)
    steps: int | None = Field(None, ge=1, description="Wins where both are given.")
    batch: int = Field(128, ge=1, description="Images; each gives one input per angle.")

    @model_validator(mode="after")
    def _one_length(self) -> "Length":
        if self.epochs is None and self.steps is None:
            raise ValueError("give epochs or steps")
        return self

    def total_steps(self, images: int) -> int:
        """Optimizer steps of the whole training; `steps` wins where both are given."""
        return self.steps if self.steps is not None else (self.epochs or 0) * self.steps_per_epoch(images)

    def steps_per_epoch(self, images: int) -> int:
        """Steps in which every image is seen once; the last batch may be smaller."""
        return -(-images // self.batch)


class Devices(Section):
    """What a training runs on. Its results do not depend on it, but for batch normalisation on parts of a batch."""

    strategy: Literal["auto", "one", "mirrored", "multi_worker", "tpu"] = Field(
        "auto",
        description="mirrored: all GPUs of a machine; multi_worker: the processes of TF_CONFIG or srun; auto: what is "
        "there.",
    )
    replicas: int | None = Field(
        None, ge=1, le=64, description="mirrored: so many GPUs, or so many parts of the processor where there is none."
    )
    sync_batch_norm: bool = Field(
        False, description="Normalise by the whole batch, not by each device's part of it; slower."
    )

    @model_validator(mode="after")
    def _replicas_are_of_one_machine(self) -> "Devices":
        if self.replicas is not None and self.strategy not in ("auto", "mirrored"):
            raise ValueError(f"replicas: only 'mirrored' has them, and strategy is {self.strategy!r}")
        return self


class Train(Length):
    """Training a network: how long, how much at once, how exactly."""

    accumulate: int = Field(
        1, ge=1, description="Parts that a batch is computed in, one after the other, where memory is short."
    )
    label_smoothing: Fraction = 0.0
    precision: Precision = "auto"
    checkpoint_minutes: NonNegativeFloat = Field(5.0, description="Besides the one after every epoch.")
    log_every: int = Field(
        10, ge=1, description="Steps that one step event averages; more in runs of over a million steps."
    )
    tensorboard: bool = Field(False, description="Also write TensorBoard files.")

    def steps_per_event(self, images: int) -> int:
        """Steps that one step event averages: more than `log_every` where a run would have too many events."""
        return max(self.log_every, -(-self.total_steps(images) // MOST_STEP_EVENTS))

    @model_validator(mode="after")
    def _no_more_parts_than_images(self) -> "Train":
        if self.accumulate > self.batch:
            raise ValueError(f"accumulate: {self.accumulate} parts of a batch of {self.batch} images; expected fewer")
        return self


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Labels(Section):
    """How many labels of each class a classifier is shown, and which."""

    labels_per_class: int | None = Field(None, ge=1, description="Use so many labels of each class.")
    label_choice: Literal["random", "first"] = Field(
        "random", description="labels_per_class: drawn by the seed, or the first in the order of the data set."
    )


# random: fresh weights, with the batch normalisations' statistics estimated on training images;
# random_identity: with mean 0 and variance 1, as the released code leaves them; pixels: no network at all.
Control = Literal["random", "random_identity", "pixels"]


class Probe(Length, Labels):
    """A classifier on frozen features: how good they are for telling objects apart."""

    head: Literal["linear", "mlp", "conv", "fc", "conv_fc", "knn"]
    tap: Annotated[list[str], BeforeValidator(_as_list)] = Field(
        ["all"], description="A tap, a list of them, or 'all'."
    )
    controls: list[Control] = Field(
        [], description="The same head on random weights, which have their own statistics or none, and on raw pixels."
    )
    repeats: int = Field(1, ge=1, le=100, description="Draws of the labels, and of the head's first weights.")
    augment: bool = Field(False, description="Crop and flip as in pretraining, anew in every epoch.")
    views: int | None = Field(
        None,
        ge=1,
        le=100,
        description="augment: compute so many crops of each image once, and use them in turn; far faster.",
    )
    every: int | None = Field(None, ge=1, description="Also after every so many epochs of pretraining.")
    precision: Precision = "auto"
    neighbours: int = Field(20, ge=1, description="knn: how many vote.")
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule(name="cosine")

    @model_validator(mode="before")
    @classmethod
    def _ten_epochs_unless_said(cls, values: Any) -> Any:
        if isinstance(values, dict) and not {"epochs", "steps"} & values.keys():
            return {**values, "epochs": 10}
        return values
