"""Measures the extraction of frozen features and the training of heads on them."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras import engine
from rotnet_keras.config.sections import Augment, Optimizer
from rotnet_keras.data.stores import Split
from rotnet_keras.engine import keras, tf
from rotnet_keras.evaluation.features import extract_features, feature_extractor
from rotnet_keras.models.backbones.registry import build_backbone, taps
from rotnet_keras.models.fused_batch_norm import with_fused_batch_norm
from rotnet_keras.models.heads import build_head
from rotnet_keras.planning.bench.registry import Measurement, Progress, Settings, measurement
from rotnet_keras.training.optimizers import build_optimizer

EXTRACTED_IMAGES = 2_000
CLASSES = 10
BATCH = 128
# Steps of head training in a round.
STEPS = 20


def measure(settings: Settings, progress: Progress) -> list[Measurement]:
    """Measure the images per second through the frozen backbone, and in training non-linear probes on all taps."""
    engine.configure(0, "float32")
    shape = (settings.size, settings.size, 3)
    backbone = build_backbone(settings.spec, shape, (127.5,) * 3, (127.5,) * 3)
    pixels = np.random.default_rng(0).integers(0, 256, (EXTRACTED_IMAGES, *shape), np.uint8)
    split = Split(pixels, np.arange(EXTRACTED_IMAGES), None)
    extractor = feature_extractor(backbone, taps(backbone))
    extraction_rates: list[float] = []
    stored_rates: list[float] = []
    recomputed_rates: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for round_number in range(settings.rounds + 1):
            start = time.perf_counter()
            features = extract_features(extractor, split, Augment(), Path(folder) / str(round_number), _no_progress, "")
            extraction_rates.append(EXTRACTED_IMAGES / (time.perf_counter() - start))
    with engine.dtype_policy(engine.resolve_precision(settings.precision)):
        heads = {
            tap: with_fused_batch_norm(build_head("mlp", values.shape[1:], CLASSES, tap))
            for tap, values in features.items()
        }
        inputs = {tap: keras.Input(values.shape[1:], name=tap) for tap, values in features.items()}
        image = keras.Input(shape)
        stored = _compiled(inputs, {tap: head(inputs[tap]) for tap, head in heads.items()})
        recomputed = _compiled(image, {tap: heads[tap](value) for tap, value in extractor(image).items()})
    batch = {tap: tf.constant(values[:BATCH]) for tap, values in features.items()}
    labels = dict.fromkeys(heads, tf.constant(np.arange(BATCH) % CLASSES))
    for round_number in range(settings.rounds + 1):
        if round_number:
            progress.next_round()
        for model, x, rates in (
            (stored, batch, stored_rates),
            (recomputed, tf.constant(pixels[:BATCH]), recomputed_rates),
        ):
            steps = tf.data.Dataset.from_tensors((x, labels)).repeat(STEPS if round_number else 1)
            start = time.perf_counter()
            model.fit(steps, verbose=0, shuffle=False)
            rates.append(STEPS * BATCH / (time.perf_counter() - start))
    # The first round traces the graphs, so it is left out.
    return [
        measurement("probes", "features of all taps, computed and stored", extraction_rates[1:], "images/s"),
        measurement("probes", "non-linear probes on all taps, from stored features", stored_rates[1:], "images/s"),
        measurement("probes", "the same, computing the features at each step", recomputed_rates[1:], "images/s"),
    ]


def _compiled(inputs: Any, outputs: dict[str, keras.KerasTensor]) -> keras.Model:
    model = keras.Model(inputs, outputs)
    losses = {tap: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for tap in outputs}
    model.compile(build_optimizer(Optimizer()), loss=losses)
    return model


def _no_progress(what: str, done: int, total: int) -> None:
    """Ignore the progress of the extraction."""
