"""Sections that recipes of several kinds share: each key with its type, range, default and meaning.

Every section is a frozen pydantic model that refuses unknown keys. The descriptions are what users read: in the
reference of recipes, in the JSON schema and in the terminal UI's form.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rotnet_keras.config.architectures import ARCHITECTURES, BackboneName
from rotnet_keras.config.shapes import CropShape, Shape

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# Step events of the longest run; they take some 20 MB.
MAX_STEP_EVENTS = 100_000


class Section(BaseModel):
    """A table of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Splits(Section):
    """The splits to use: "train", "train[:90%]" in TensorFlow Datasets' notation, or the lists of a VOC folder."""

    train: str | None = Field(None, description="Images to train on; the split `train` by default.")
    validation: str | None = Field(None, description="Images for the validation accuracy during training.")
    test: str | None = Field(None, description="Images for the final accuracy; never trained on.")


class Data(Section):
    """The images: where they are, and the size that they are resized to."""

    name: str = Field(
        description="A folder of images, tar files ('shards/*.tar'), an .npz file, the name of a TensorFlow Datasets "
        "data set, or 'fashion_mini'."
    )
    data_dir: str | None = Field(
        None, description="Folder of prepared TensorFlow Datasets; the environment's TFDS_DATA_DIR by default."
    )
    download: bool = Field(False, description="Let TensorFlow Datasets download a data set that is missing.")
    size: Shape = Field(
        None,
        description="Side of the images in pixels: the short side is resized to it and the central square is kept. "
        "[height, width] for images that are no squares, with rotation.angles = [0, 180].",
    )
    fit: Literal["crop", "stretch", "letterbox"] = Field(
        "crop",
        description="How images become as large as `size`: resized to cover it, of which the central part is kept "
        "(crop); both sides resized (stretch); or resized to lie within it, between bars (letterbox).",
    )
    shown: list[Annotated[int, Field(ge=0)]] | None = Field(
        None,
        min_length=1,
        max_length=3,
        description="Channels, from 0 on, that reports show as red, green and blue, or one as grey; the first three by "
        "default.",
    )
    channels: Literal[1, 3] | None = Field(
        None, description="1 for grey images, 3 for RGB; as the files are by default, with any number of channels."
    )
    validation: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="Share of the training images held out for validation where the data have no such split."
    )
    only: list[str] | None = Field(
        None,
        min_length=1,
        description="Classes to pretrain on, by name; all by default. The run ends by scoring how "
        "well the predicted rotations separate test images of these classes from those of the others.",
    )
    whole: bool = Field(
        False,
        description="Take crops from anywhere in an image, not only from its central square. Decoded images are then "
        "not kept.",
    )
    cache: Literal["auto", "memory", "disk", "none"] = Field(
        "auto", description="Where decoded images are kept; 'none' decodes an image each time it is used."
    )
    mean: list[float] | None = Field(
        None,
        description="Mean of each channel, 0 to 255; published for CIFAR-10 and ImageNet, else measured, by default. "
        "In the numbers of the files for images with more than 8 bits.",
    )
    std: list[PositiveFloat] | None = Field(
        None, description="Standard deviation of each channel on the scale of `mean`; defaults as for `mean`."
    )
    splits: Splits = Splits()


VOC_CLASSES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]


class AnnotatedData(Section):
    """Images that are annotated with objects or masks, in the format of PASCAL VOC."""

    name: str = Field(
        description="A folder in the layout of VOC's development kit (.../VOC2007), or 'voc/2007' of TensorFlow "
        "Datasets."
    )
    data_dir: str | None = Field(
        None, description="Folder of prepared TensorFlow Datasets; the environment's TFDS_DATA_DIR by default."
    )
    download: bool = Field(False, description="Let TensorFlow Datasets download a data set that is missing.")
    splits: Splits = Splits()
    classes: list[str] = Field(
        VOC_CLASSES, min_length=1, description="Names of the classes in the order of their numbers, without background."
    )
    broken: Literal["refuse", "skip"] = Field(
        "refuse", description="What to do if an image's annotation is missing or invalid: stop, or skip the image."
    )
    size: int = Field(
        256, ge=8, le=2048, description="Length in pixels that an image's short side is resized to before cropping."
    )


class Augment(Section):
    """Random changes to a training image, made before it is rotated: a later flip would swap 90 and 270 degrees."""

    pad: int = Field(0, ge=0, le=64, description="Pixels of zeros added on every side before the random crop.")
    crop: CropShape = Field(
        None, description="Side of the random crop in pixels, or [height, width]; the images' own by default."
    )
    area: list[float] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="Smallest and largest share of an image that a random-resized crop covers, usually [0.08, 1.0].",
    )
    flip: bool = Field(False, description="Mirror an image left to right with a probability of one half.")
    jitter: Fraction = Field(
        0.0, description="Strength of the random changes to brightness, contrast, saturation and hue."
    )
    greyscale: Fraction = Field(0.0, description="Share of the images that are converted to grey.")

    @model_validator(mode="after")
    def _check_crop_keys(self) -> "Augment":
        if self.area is not None and not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"area: expected two rising shares above 0 and up to 1, got {self.area}")
        if self.area is not None and self.pad:
            raise ValueError("pad: random-resized crops (area) need no padding; leave pad out")
        return self


class Rotation(Section):
    """The pretext task: which rotation was applied to an image."""

    angles: list[int] = Field(
        [0, 90, 180, 270],
        min_length=2,
        description="Angles to predict: degrees counter-clockwise, distinct multiples of 45.",
    )
    copies: Literal["all", "one"] = Field(
        "all", description="Rotate every image of a batch by every angle, or by one angle drawn at random."
    )
    hidden: list[Annotated[int, Field(ge=1)]] = Field(
        [], description="Units of the hidden layers before the rotation classifier; none by default."
    )
    translation: Annotated[int, Field(ge=0, le=512)] = Field(
        0,
        description="Pixels by which each copy is shifted along both axes, or not, before it is rotated; a second head "
        "learns the directions, and `anomalies` scores by both. A quarter of the side is usual; 0 for none.",
    )

    @model_validator(mode="after")
    def _check_angles(self) -> "Rotation":
        if len(set(self.angles)) != len(self.angles) or any(a % 45 or not 0 <= a < 360 for a in self.angles):
            raise ValueError(f"angles: expected distinct multiples of 45 from 0 to 315, got {self.angles}")
        if self.translation and any(angle % 90 for angle in self.angles):
            raise ValueError(f"translation: needs right angles, got angles = {self.angles}")
        return self


class Backbone(Section):
    """The architecture of the backbone, which is the network without its head."""

    name: BackboneName = Field(description="Name of the architecture; `rotnet-keras backbones` lists them.")
    blocks: int | None = Field(
        None,
        ge=2,
        le=8,
        description="Number of blocks: of 'nin' and 'compact' 4 by default, of 'airbench' 3; not for the others.",
    )
    width: float = Field(1.0, gt=0, le=16, description="Factor that every number of channels is multiplied by.")
    stem: Literal["standard", "small"] = Field(
        "standard",
        description="First layers of 'alexnet', 'resnet50' and 'resnet50v2': for images of 224 pixels, or small ones "
        "for images of 32 to 64, with smaller kernels and strides and without the residual nets' first pool.",
    )
    activation: Literal["relu", "silu"] = Field("relu", description="Activation of 'airbench'; others have 'relu'.")

    @model_validator(mode="before")
    @classmethod
    def _default_number_of_blocks(cls, values: Any) -> Any:
        known = ARCHITECTURES.get(str(values.get("name"))) if isinstance(values, dict) else None
        if known and known.blocks and values.get("blocks") is None:
            return {**values, "blocks": known.blocks}
        return values

    @model_validator(mode="after")
    def _check_blocks_and_width(self) -> "Backbone":
        architecture = ARCHITECTURES[self.name]
        if self.blocks is not None and architecture.taps is not None:
            raise ValueError(f"blocks: {self.name!r} has a fixed number of blocks; leave blocks out")
        if self.width != 1 and not architecture.has_width:
            raise ValueError(f"width: {self.name!r} has a fixed width; leave width out")
        if self.stem == "small" and architecture.small_side is None:
            raise ValueError(f"stem: {self.name!r} has no other one; leave stem out")
        if self.activation not in architecture.activations:
            raise ValueError(f"activation: {self.name!r} has 'relu' only; leave activation out")
        return self

    def taps(self) -> list[str]:
        """Return the names of the layers that a probe of all taps reads."""
        return [f"conv{i}" for i in range(1, (ARCHITECTURES[self.name].taps or self.blocks or 0) + 1)]

    def feature_layers(self) -> list[str]:
        """Return the names of all layers whose features can be read: the taps and the architecture's extra layers."""
        return [*self.taps(), *ARCHITECTURES[self.name].extra_layers]


class Optimizer(Section):
    """The optimizer. SGD adds the weight decay to the gradient, as PyTorch does; AdamW decouples it.

    Muon makes the steps of the kernels of convolutions orthogonal, and leaves all other variables to SGD.
    """

    name: Literal["sgd", "adamw", "muon"] = Field("sgd", description="The optimizer's name.")
    learning_rate: PositiveFloat = Field(0.1, description="Peak learning rate; `schedule` says how it changes.")
    kernel_rate: PositiveFloat | None = Field(
        None,
        description="Peak learning rate of muon's kernels: the share of a kernel's norm that a step changes; 0.05 by "
        "default. It changes as `learning_rate` does.",
    )
    kernel_momentum: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Momentum of muon's kernels; 0.6 by default."
    )
    momentum: Fraction = Field(0.9, description="Momentum of sgd.")
    nesterov: bool = Field(True, description="Use Nesterov momentum with sgd.")
    weight_decay: NonNegativeFloat = Field(5e-4, description="Strength of the weight decay.")
    decay: Literal["all", "kernels"] = Field(
        "all",
        description="Which variables sgd decays: all of them, as the paper's code does, or all but biases and "
        "normalisation parameters.",
    )
    clip: PositiveFloat | None = Field(
        None, description="Largest global norm of the gradients, which are scaled down to it; no limit by default."
    )
    ema: Fraction = Field(
        0.0,
        description="Momentum of an exponential moving average (EMA) of the weights, which is what is evaluated and "
        "exported; 0 for none.",
    )

    @model_validator(mode="after")
    def _check_keys_of_muon(self) -> "Optimizer":
        kernels = [key for key in ("kernel_rate", "kernel_momentum") if getattr(self, key) is not None]
        if self.name != "muon" and kernels:
            raise ValueError(f"{' and '.join(kernels)}: for 'muon' only, not for {self.name!r}")
        if self.name == "muon" and not self.momentum:
            raise ValueError("momentum: muon needs one above 0")
        return self


class Schedule(Section):
    """How the learning rate changes during training."""

    name: Literal["constant", "piecewise", "cosine", "one_cycle"] = Field(
        "constant", description="Shape of the schedule; its peak is `optimizer.learning_rate`."
    )
    unit: Literal["epochs", "steps"] = Field("epochs", description="Unit of `warmup` and `boundaries`.")
    warmup: NonNegativeFloat = Field(0.0, description="Length of the linear rise from zero at the start, in `unit`.")
    boundaries: list[PositiveFloat] = Field(
        [], description="piecewise: when the learning rate changes, in `unit` since the start, rising."
    )
    factor: PositiveFloat = Field(
        0.2, description="piecewise: factor that the learning rate is multiplied by at each boundary."
    )
    peak: Fraction = Field(0.25, description="one_cycle: share of the training during which the learning rate rises.")

    @model_validator(mode="after")
    def _check_keys_of_schedule(self) -> "Schedule":
        if self.name == "piecewise" and (not self.boundaries or self.boundaries != sorted(self.boundaries)):
            raise ValueError(f"boundaries: expected rising positions for 'piecewise', got {self.boundaries}")
        if self.name != "piecewise" and self.boundaries:
            raise ValueError(f"boundaries: only 'piecewise' has boundaries, and name is {self.name!r}")
        if self.name == "one_cycle" and self.warmup:
            raise ValueError("warmup: 'one_cycle' has its own rise, for the share `peak` of the run; leave warmup out")
        return self


Precision = Annotated[
    Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"],
    Field(
        description="Precision of the computation; 'auto' takes bfloat16 or float16 where the hardware is faster with "
        "it, else float32."
    ),
]


class Length(Section):
    """The length of a training, in epochs or in steps."""

    epochs: int | None = Field(None, ge=1, description="Number of passes over the training images.")
    steps: int | None = Field(None, ge=1, description="Number of optimizer steps; takes precedence over `epochs`.")
    batch: int = Field(
        128, ge=1, description="Images in a batch, before rotation: each image gives one input per angle."
    )

    @model_validator(mode="after")
    def _check_length(self) -> "Length":
        if self.epochs is None and self.steps is None:
            raise ValueError("expected epochs or steps")
        return self

    def total_steps(self, images: int) -> int:
        """Return the optimizer steps of the whole training; `steps` takes precedence over `epochs`."""
        return self.steps if self.steps is not None else (self.epochs or 0) * self.steps_per_epoch(images)

    def steps_per_epoch(self, images: int) -> int:
        """Return the steps in which every image is seen once; the last batch may be smaller."""
        return -(-images // self.batch)


class Devices(Section):
    """The devices to train on.

    They do not change what is learned, except that batch normalisation may see only a part of a batch.
    """

    strategy: Literal["auto", "one", "mirrored", "multi_worker", "tpu"] = Field(
        "auto",
        description="How training is distributed. mirrored: all GPUs of this machine; multi_worker: the processes "
        "named in TF_CONFIG or started by srun; auto: everything that is available. tpu: every step is tested under "
        "XLA, and none has run on a TPU.",
    )
    replicas: int | None = Field(
        None, ge=1, le=64, description="mirrored: number of GPUs to use, or of parts of the CPU where there is no GPU."
    )
    sync_batch_norm: bool = Field(
        False, description="Normalise over the whole batch instead of each replica's share of it; this is slower."
    )
    deterministic: bool = Field(
        True,
        description="Let operations sum in a fixed order, so that a run repeats on the same device. false: a GPU may "
        "take its fastest kernels and compile steps with XLA, and runs differ in their last bits; never on a TPU.",
    )

    @model_validator(mode="after")
    def _check_replicas(self) -> "Devices":
        if self.replicas is not None and self.strategy not in ("auto", "mirrored"):
            raise ValueError(f"replicas: only 'mirrored' has replicas, and strategy is {self.strategy!r}")
        return self


class Train(Length):
    """The training: its length, batch size and precision, and how often it logs and saves."""

    accumulate: int = Field(
        1,
        ge=1,
        description="Parts that a batch is computed in, one after another; more parts need less memory.",
    )
    label_smoothing: Fraction = Field(0.0, description="Label smoothing of the cross-entropy.")
    precision: Precision = "auto"
    checkpoint_minutes: NonNegativeFloat = Field(
        5.0, description="Minutes between checkpoints; one more is saved after every epoch."
    )
    log_every: int = Field(
        10, ge=1, description="Steps that one logged step averages; more in runs of over a million steps."
    )
    tensorboard: bool = Field(False, description="Write TensorBoard files as well.")
    track: list[Literal["mlflow", "wandb"]] = Field(
        [], description="Experiment trackers that the run is mirrored to while it trains; the run needs none of them."
    )

    def steps_per_event(self, images: int) -> int:
        """Return the steps that one step event averages: more than `log_every` in runs with too many events."""
        return max(self.log_every, -(-self.total_steps(images) // MAX_STEP_EVENTS))

    @model_validator(mode="after")
    def _check_accumulate(self) -> "Train":
        if self.accumulate > self.batch:
            raise ValueError(
                f"accumulate: expected at most one part per image of the batch, {self.batch}, got {self.accumulate}"
            )
        return self

    @model_validator(mode="after")
    def _check_track(self) -> "Train":
        if len(set(self.track)) != len(self.track):
            raise ValueError(f"track: expected each tracker once, got {self.track}")
        return self
