"""Proposes a recipe that fits a user's images and this machine, for `rotnet-keras init`."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import tomlkit

from rotnet_keras.config.schema import BackboneSource
from rotnet_keras.data.audit import ImageAudit
from rotnet_keras.planning.costs import RunCost, costs_in_subprocess
from rotnet_keras.runs.exports.backbone_file import read_backbone, sizes_of_maker
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.launch import find_backbone, load_for_run
from rotnet_keras.runs.zoo import list_pretrained, load_card
from rotnet_keras.text import printable

# Images whose short side has at most this many pixels are used whole. Larger ones are resized and cropped, to the sizes
# of the recipe `folder`.
SMALL_SIDE = 48
RESIZED_SIDE = 72
CROP_SIDE = 64
# The share of an image's area that a random-size crop covers. A model pretrained for 39 epochs on 5,002 photos
# reached a rotation accuracy of 81.6 % on 556 others (88.3 % in training), without such crops 78.8 % (98.5 %).
CROP_AREA = [0.35, 1.0]
# The most images held out for validation.
MAX_VALIDATION_IMAGES = 5000
BATCH = 64
# From random weights, and from those of a pretrained model: of 0.003, 0.01 and 0.03, the last led to the lowest loss on
# 600 photos that were held out, after 6 epochs on 600 others (0.950, 0.914, 0.905).
LEARNING_RATE, LEARNING_RATE_FROM_WEIGHTS = 0.1, 0.03
# The epochs if the trial fails.
DEFAULT_EPOCHS = 30
MAX_EPOCHS = 300
# The pretrained models for photos and for small colour images.
PHOTOS_MODEL, SMALL_MODEL = "airbench4_photos", "compact4_cifar10"
# The share of the free memory that the training may take.
MEMORY_SHARE = 0.5
# The phases whose time grows with the epochs.
EPOCH_PHASES = ("pretraining", "validation and test")

TEXT = """\
# RotNet on {images} of {path}.
#
#   rotnet-keras run {file}
#
{timing}

kind = "pretrain"
title = {title}
seed = 0

[data]
name = {name}
{size}# The share of the training images held out to measure the accuracy during training.
validation = {validation}

[augment]
{crop}# Mirror images at random. Set to false if mirrored images look wrong, as text does.
flip = true

# The angles to tell apart. Use [0, 90] if your images look the same upside down.
[rotation]
angles = [0, 90, 180, 270]

{backbone}
[optimizer]
name = "sgd"
learning_rate = {rate}
momentum = 0.9
nesterov = true
weight_decay = 5e-4

[schedule]
name = "one_cycle"

# Each step takes `batch` images, each at every angle: {inputs} inputs to the model.
[train]
epochs = {epochs}
batch = {batch}
{probe}"""

BACKBONE = """\
# More blocks, or a larger `width`, learn better features and take longer.
[backbone]
name = "compact"
blocks = {blocks}
"""

PRETRAINED = """\
# Goes on from the weights of this model, with a new head for the rotations, and scales pixels by the mean and standard
# deviation that it was trained with. For those of these images, set statistics = "images".
[pretrained]
{key} = {value}
"""

SIZED = """\
# The central square of each image is resized to this many pixels, as where the model was trained.
size = {side}
"""

RESIZED = """\
# The short sides of the images have {extent} pixels. The central square of each is resized to this many.
size = {side}
"""

CROPPED = """\
# The model sees crops of this many pixels. Raise `size` and `crop` for fine detail; training then takes longer.
crop = {side}
# Each crop covers a random share of the image's area, in this range. This reduces overfitting.
area = {area}
"""

PROBE = """
# After the training, measure the accuracy of a linear classifier on the features of each layer. Its baselines are the
# same backbone with random weights, and raw pixels.
[[probe]]
head = "linear"
tap = "all"
epochs = 20
baselines = ["random", "pixels"]
"""


@dataclass(frozen=True)
class Proposal:
    """A proposed recipe.

    Attributes:
        text: the recipe, TOML with comments.
        epochs: its epochs.
        batch: its images per step.
        cost: the cost of one epoch on this machine; None if the trial failed.
        advice: what is better than so short a training; empty where it is long enough.
        pretrained: the name of a pretrained model for such images to go on from; empty without one.
    """

    text: str
    epochs: int
    batch: int
    cost: RunCost | None
    advice: str = ""
    pretrained: str = ""


def propose_recipe(
    found: ImageAudit, file: Path, minutes: float, source: BackboneSource | None = None, runs_dir: Path = Path("runs")
) -> Proposal:
    """Propose a recipe for images, with as many epochs as fit into the time on this machine.

    A short trial measures the time of an epoch and the memory.

    Args:
        found: the audit of the images.
        file: where the recipe will be written; its first comment names it.
        minutes: how long the run may take.
        source: a pretrained backbone to go on from; by default the training is from scratch.
        runs_dir: the folder in which its run is looked for.

    Raises:
        RotnetError: there is no such pretrained backbone, or it does not take such images.
    """
    batch = trial_batch = min(BATCH, max(1, found.images["train"] // 2))
    start = find_backbone(source, runs_dir) if source else None
    cost = _run_trial(_recipe_text(found, file, 1, trial_batch, "", source, start), runs_dir)
    free = MEMORY_SHARE * psutil.virtual_memory().available
    while cost and cost.memory_bytes and batch > 1 and cost.memory_bytes * batch / trial_batch > free:
        batch //= 2
    if cost is None:
        timing = "# The trial run failed, so the number of epochs is a default and the time is unknown."
        text = _recipe_text(found, file, DEFAULT_EPOCHS, batch, timing, source, start)
        return Proposal(text, DEFAULT_EPOCHS, batch, None)
    epoch = sum(part.seconds for part in cost.parts if part.name in EPOCH_PHASES)
    rest = cost.seconds - epoch
    epochs = min(MAX_EPOCHS, max(1, math.floor((60 * minutes - rest) / max(epoch, 1e-3))))
    takes = (rest + epochs * epoch) / 60
    timing = f"# Takes about {takes:.0f} minutes on the machine where it was written, estimated from a short trial."
    text = _recipe_text(found, file, epochs, batch, timing, source, start)
    model = None if source else _model_for(found)
    advice = _advice(found, epochs, epoch, rest, model) if model else ""
    return Proposal(text, epochs, batch, cost, advice, model.name if model else "")


def _model_for(found: ImageAudit) -> RunFolder | None:
    """Return the pretrained model for images of this size, if they are in colour."""
    name = PHOTOS_MODEL if found.short_sides[1] > SMALL_SIDE else SMALL_MODEL
    return list_pretrained().get(name) if found.channels == 3 else None


def _advice(found: ImageAudit, epochs: int, epoch_seconds: float, other_seconds: float, model: RunFolder) -> str:
    """Say what is better than a training that sees fewer images than that of the pretrained model for such images.

    Args:
        epochs: of the proposed training.
        epoch_seconds: the time of each.
        other_seconds: the time of the rest of the run.
        model: the pretrained model.
    """
    card, count = load_card(model), found.images["train"]
    seen = card["made"]["steps"] * card["made"]["inputs_per_step"] // len(card["rotation"]["angles"])
    if epochs * count >= seen:
        return ""
    enough = math.ceil(seen / count)
    minutes = math.ceil((other_seconds + enough * epoch_seconds) / 60)
    longer = f" As many take --minutes {minutes}." if enough <= MAX_EPOCHS else ""
    return (
        f"This training sees {epochs * count:,} images. {model.name}, which ships with the package, saw {seen:,}: its "
        f"features may well be better. Compare both: rotnet-keras probe {model.name} --labels LABELS.{longer}"
    )


def _run_trial(text: str, runs_dir: Path) -> RunCost | None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.toml"
        file.write_text(text, encoding="utf-8")
        load_for_run(str(file), {}, runs_dir)
        found = costs_in_subprocess(file, runs_dir)
    return found[0] if found else None


def _recipe_text(
    found: ImageAudit,
    file: Path,
    epochs: int,
    batch: int,
    timing: str,
    source: BackboneSource | None,
    start: Path | None,
) -> str:
    count, short = found.images["train"], found.short_sides[1]
    backbone, rate = BACKBONE.format(blocks=4 if short <= SMALL_SIDE else 5), LEARNING_RATE
    if source and start:
        key, value = ("run", source.run) if source.run else ("file", str(start.absolute()))
        backbone, rate = PRETRAINED.format(key=key, value=_quoted(str(value))), LEARNING_RATE_FROM_WEIGHTS
        resized, cropped = sizes_of_maker(start)
        height, width, _ = read_backbone(start).shape
        shape = (height, width) if height and width else cropped or (CROP_SIDE, CROP_SIDE)
        whole = tuple(map(max, resized or shape, shape))
        size, crop = SIZED.format(side=_short(whole)), CROPPED.format(side=_short(shape), area=CROP_AREA)
    elif short > SMALL_SIDE:
        size = RESIZED.format(extent=found.side_range, side=RESIZED_SIDE)
        crop = CROPPED.format(side=CROP_SIDE, area=CROP_AREA)
    else:
        side = max(16, short // 4 * 4)
        size = "" if found.square and found.short_sides[0] == found.short_sides[2] == side else f"size = {side}\n"
        crop = f"pad = {max(1, side // 8)}\n"
    return TEXT.format(
        images=f"{count:,} images",
        path=_one_line(found.path),
        file=_one_line(file),
        timing=timing,
        title=_quoted(f"RotNet on {found.path.stem}"),
        name=_quoted(str(found.path.absolute())),
        size=size,
        crop=crop,
        validation=0.1 if count <= 10 * MAX_VALIDATION_IMAGES else round(MAX_VALIDATION_IMAGES / count, 4),
        backbone=backbone,
        rate=rate,
        inputs=4 * batch,
        epochs=epochs,
        batch=batch,
        probe=PROBE if len(found.classes) > 1 else "",
    )


def _short(shape: Sequence[int]) -> int | list[int]:
    """Return the side of a square, or height and width, as a recipe has them."""
    return shape[0] if shape[0] == shape[1] else list(shape)


def _one_line(path: Path) -> str:
    return printable(str(path)).replace("\n", " ")


def _quoted(text: str) -> str:
    return tomlkit.item(text).as_string()
