"""A recipe that fits a folder or file of images and this machine."""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil
import tomlkit

from rotnet_keras.data.audit import Survey
from rotnet_keras.planning.costs import RunCost, costs_in_subprocess
from rotnet_keras.text import printable

# Up to this short side, in pixels, images are seen whole; larger ones are resized and cropped as recipe `folder` does.
SMALL = 48
LARGE, CROP = 72, 64
# With it a network of 5,002 photos told 81.6 % of the turns of 556 other ones after 39 epochs (in training 88.3 %),
# without it 78.8 % (98.5 %).
AREA = [0.35, 1.0]
# Most images that are held out to follow the training with.
VALIDATION = 5000
BATCH = 64
EPOCHS = 30
MOST_EPOCHS = 300
# The share of the memory that is free which a training may take.
MEMORY = 0.5
TRAININGS = ("pretraining", "validation and test")

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
{size}# Images that are held out to follow the training with.
validation = {validation}

[augment]
{crop}# Mirroring at random: leave it out for text, or whatever else is wrong mirrored.
flip = true

# Where a half turn changes nothing in your images, take half of the angles: [0, 90].
[rotation]
angles = [0, 90, 180, 270]

# More blocks or a larger width know more and take longer.
[backbone]
name = "compact"
blocks = {blocks}

[optimizer]
name = "sgd"
learning_rate = 0.1
momentum = 0.9
nesterov = true
weight_decay = 5e-4

[schedule]
name = "one_cycle"

# Every image is shown in all its turns: a step computes {inputs} of them.
[train]
epochs = {epochs}
batch = {batch}
{probe}"""

PROBE = """
# How much a linear classifier finds in each layer, beside random weights and raw pixels.
[[probe]]
head = "linear"
tap = "all"
epochs = 20
baselines = ["random", "pixels"]
"""


@dataclass(frozen=True)
class Proposal:
    """A recipe, and what was measured for it.

    Attributes:
        text: TOML with comments.
        cost: of the whole run on this machine; None where the trial failed.
    """

    text: str
    epochs: int
    batch: int
    cost: RunCost | None


def propose_recipe(found: Survey, file: Path, minutes: float) -> Proposal:
    """A recipe for these images that takes about so long on this machine, timed by a short trial.

    Args:
        file: where it will be written, for its own words.
    """
    batch = tried = min(BATCH, max(1, found.images["train"] // 2))
    cost = _timed(_text(found, file, 1, tried, ""))
    free = MEMORY * psutil.virtual_memory().available
    while cost and cost.memory_bytes and batch > 1 and cost.memory_bytes * batch / tried > free:
        batch //= 2
    if cost is None:
        timing = "# The trial that times a few steps failed: the number of epochs is a guess."
        return Proposal(_text(found, file, EPOCHS, batch, timing), EPOCHS, batch, None)
    epoch = sum(part.seconds for part in cost.parts if part.name in TRAININGS)
    rest = cost.seconds - epoch
    epochs = min(MOST_EPOCHS, max(1, math.floor((60 * minutes - rest) / max(epoch, 1e-3))))
    takes = (rest + epochs * epoch) / 60
    timing = f"# About {takes:.0f} minutes on the machine that it was written on, by a short trial."
    return Proposal(_text(found, file, epochs, batch, timing), epochs, batch, cost)


def _timed(text: str) -> RunCost | None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.toml"
        file.write_text(text, encoding="utf-8")
        found = costs_in_subprocess(file, Path(folder))
    return found[0] if found else None


def _text(found: Survey, file: Path, epochs: int, batch: int, timing: str) -> str:
    count, short = found.images["train"], found.sides[1]
    if short > SMALL:
        size = f"# Central squares, resized to so many pixels from {found.extent}.\nsize = {LARGE}\n"
        crop = f"# What the network sees of them. Raise both for fine detail; time grows with it.\ncrop = {CROP}\n"
        crop += f"# It is shown parts of so much of their area, or it learns a small set by heart.\narea = {AREA}\n"
    else:
        side = max(16, short // 4 * 4)
        size = "" if found.square and found.sides[0] == found.sides[2] == side else f"size = {side}\n"
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
        validation=0.1 if count <= 10 * VALIDATION else round(VALIDATION / count, 4),
        blocks=4 if short <= SMALL else 5,
        inputs=4 * batch,
        epochs=epochs,
        batch=batch,
        probe=PROBE if len(found.classes) > 1 else "",
    )


def _one_line(path: Path) -> str:
    return printable(str(path)).replace("\n", " ")


def _quoted(text: str) -> str:
    return tomlkit.item(text).as_string()
