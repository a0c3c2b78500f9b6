"""Frozen features, and training heads on them."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras import engine
from rotnet_keras.config.sections import Augment, Optimizer
from rotnet_keras.data.stores import Split
from rotnet_keras.engine import keras, tf
from rotnet_keras.evaluation.features import extract, feature_extractor
from rotnet_keras.models.backbones.registry import build, taps
from rotnet_keras.models.fused_batch_norm import with_fused_batch_norm
from rotnet_keras.models.heads import build_head
from rotnet_keras.planning.bench.registry import Measurement, Settings, measured
from rotnet_keras.training.optimizers import build_optimizer

IMAGES = 2_000
CLASSES = 10
BATCH = 128
STEPS = 20


def measure(settings: Settings) -> list[Measurement]:
    """Images/s through the frozen backbone, and of training the non-linear probe on all of its taps."""
    engine.configure(0, "float32")
    shape = (settings.size, settings.size, 3)
    base = build(settings.spec, shape, (127.5,) * 3, (127.5,) * 3)
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, *shape), np.uint8)
    split = Split(pixels, np.arange(IMAGES), None)
    trunk = feature_extractor(base, taps(base))
    extracted: list[float] = []
    trained: list[float] = []
    retrained: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(settings.rounds + 1):
            start = time.perf_counter()
            features = extract(trunk, split, Augment(), Path(folder) / str(number), _silent, "")
            extracted.append(IMAGES / (time.perf_counter() - start))
    with engine.dtype_policy(engine.resolve_precision(settings.precision)):
        heads = {tap: with_fused_batch_norm(build_head("mlp", values.shape[1:], CLASSES, tap)) for tap, values in features.items()}
        inputs = {tap: keras.Input(values.shape[1:], name=tap) for tap, values in features.items()}
        image = keras.Input(shape)
        stored = _compiled(inputs, {tap: head(inputs[tap]) for tap, head in heads.items()})
        recomputed = _compiled(image, {tap: heads[tap](value) for tap, value in trunk(image).items()})
    batch = {tap: tf.constant(values[:BATCH]) for tap, values in features.items()}
    labels = dict.fromkeys(heads, tf.constant(np.arange(BATCH) % CLASSES))
    for number in range(settings.rounds + 1):
        for model, x, rates in ((stored, batch, trained), (recomputed, tf.constant(pixels[:BATCH]), retrained)):
            steps = tf.data.Dataset.from_tensors((x, labels)).repeat(STEPS if number else 1)
            start = time.perf_counter()
            model.fit(steps, verbose=0, shuffle=False)
            rates.append(STEPS * BATCH / (time.perf_counter() - start))
    # The first of each round traces its graph.
    return [
        measured("probes", "features of all taps, computed and stored", extracted[1:], "images/s"),
        measured("probes", "non-linear probes on all taps, from stored features", trained[1:], "images/s"),
        measured("probes", "the same, features computed at each step", retrained[1:], "images/s"),
    ]


def _compiled(inputs: Any, outputs: dict[str, keras.KerasTensor]) -> keras.Model:
    model = keras.Model(inputs, outputs)
    losses = {tap: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for tap in outputs}
    model.compile(build_optimizer(Optimizer()), loss=losses)
    return model


def _silent(what: str, done: int, total: int) -> None:
    """Extraction tells how far it has come; nobody listens here."""
