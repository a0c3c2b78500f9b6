"""Tiny data that rotation can be learned from, a recipe for them, and the data sets that only developers have."""

from pathlib import Path

import numpy as np
import pytest

TINY_RECIPE = """\
kind = "pretrain"
title = "tiny"
seed = 3

[data]
name = "{data}"
validation = 0.2

[augment]
pad = 2
flip = true
jitter = 0.2
greyscale = 0.1

[rotation]
hidden = [16]

[backbone]
name = "compact"
blocks = 2
width = 0.25

[optimizer]
ema = 0.5

[schedule]
name = "one_cycle"

[train]
epochs = 3
batch = 16
log_every = 2
checkpoint_minutes = 0
"""

# Every kind of probe.
PROBES = """
[[probe]]
head = "linear"
baselines = ["random", "pixels"]
epochs = 2

[[probe]]
head = "mlp"
tap = "conv2"
steps = 4
labels_per_class = 5
repeats = 2

[[probe]]
head = "knn"
tap = ["conv1", "conv2"]

[[probe]]
head = "conv"
tap = "conv1"
epochs = 1
augment = true
"""


def upright_images(count, size=16, channels=3, seed=0):
    """Noise that is brighter towards the top, and brighter as a whole the higher its label, 0 to 3."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    ramp = np.linspace(1, 0, size)
    images = rng.random((count, size, size, channels)) * 0.3 + ramp[None, :, None, None] * 0.7
    images *= (0.4 + 0.2 * labels)[:, None, None, None]
    return np.round(images * 255 / images.max()).astype(np.uint8), labels.astype(np.uint8)


def shared_data(*names):
    """A data set of the neighbouring `shared` folder, which only developers have; skips without it."""
    path = Path(__file__).parents[3].joinpath("shared", *names)
    if not path.exists():
        pytest.skip("needs the developers' shared data sets")
    return path
