"""Measures the training step as a run executes it: `fit` on batches of the pipeline, with the callbacks of a run."""

import json
import resource
import shlex
import subprocess
import time
from typing import Any

import numpy as np

from rotnet_keras import engine
from rotnet_keras.config.sections import Augment, Length, Optimizer, Schedule
from rotnet_keras.data.batches import training_batches
from rotnet_keras.data.stores import Split
from rotnet_keras.engine import keras
from rotnet_keras.errors import RotnetError
from rotnet_keras.models.backbones.registry import build_backbone
from rotnet_keras.models.flops import forward_gflop
from rotnet_keras.models.fused_batch_norm import with_fused_batch_norm
from rotnet_keras.models.rotnet import RotNet, softmax_loss
from rotnet_keras.planning.bench import machine
from rotnet_keras.planning.bench.registry import Measurement, Progress, Settings, measurement
from rotnet_keras.training.callbacks import LearningRate, StepEvents
from rotnet_keras.training.optimizers import build_optimizer

# The number of images, or fewer if they would take more than this many bytes.
MAX_IMAGES = 10_000
MAX_BYTES = 2**28
AUGMENT = Augment(pad=4, flip=True)
PIXEL_MEAN = (127.5,) * 3


def measure(settings: Settings, progress: Progress) -> list[Measurement]:
    """Measure rotated images/s, GFLOP/s and the share of the peak, also with Keras's own batch normalisation."""
    progress.note("building the model; its first steps take longer, because they trace the graph")
    precision = engine.resolve_precision(settings.precision)
    engine.configure(0, precision)
    compute = keras.config.dtype_policy().compute_dtype
    backbone = build_backbone(settings.spec, (settings.size, settings.size, 3), PIXEL_MEAN, PIXEL_MEAN)
    gflop = 3 * forward_gflop(backbone)
    fused, stock = _Training(with_fused_batch_norm(backbone), settings), _Training(backbone, settings)
    rates, stock_rates, peaks, waits, others, ratios = [], [], [], [], [], []
    product, own, unit = f"matrix product in {compute}", "step with Keras's own batch normalisation", "rotated images/s"
    blocks = f" with {settings.spec.blocks} blocks" if settings.spec.blocks else ""
    size = f" on {settings.size} pixels" if settings.size != 32 else ""
    name = f"{settings.backbone}{blocks}{size}, batch {settings.batch}, {precision}"
    for _ in range(settings.rounds):
        progress.next_round()
        peaks.append(progress.value(product, machine.matrix_product_gflops(compute), "GFLOP/s"))
        rate, wait = fused.round()
        rates.append(progress.value(f"step of {name}", rate, unit))
        waits.append(wait)
        stock_rates.append(progress.value(own, stock.round()[0], unit))
        if settings.against:
            others.append(progress.value(f"step of: {settings.against}", _rate_of_command(settings.against), unit))
            ratios.append(rate / others[-1])
    found = [
        measurement("training", f"step of {name}", rates, unit),
        measurement("training", "forward and backward, counted from the layers", [gflop], "GFLOP per image"),
        measurement("training", "arithmetic", [gflop * rate for rate in rates], "GFLOP/s"),
        measurement("training", product, peaks, "GFLOP/s"),
        measurement(
            "training", "share of the matrix product", [gflop * r / p for r, p in zip(rates, peaks, strict=True)], "x"
        ),
        measurement("training", "waiting for data", waits, "%", 100),
        measurement("training", own, stock_rates, unit),
        measurement(
            "training", "fused relative to Keras's own", [a / b for a, b in zip(rates, stock_rates, strict=True)], "x"
        ),
        measurement("training", "peak memory", [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10], "MiB"),
    ]
    if settings.against:
        found.append(measurement("training", f"step of: {settings.against}", others, unit))
        found.append(measurement("training", "rotnet-keras relative to that command", ratios, "x"))
    return found


class _Training:
    """A model in training, round by round."""

    def __init__(self, network: keras.Model, settings: Settings) -> None:
        self.batch = settings.batch
        shape = network.input.shape[1:]
        self.count = max(settings.batch, min(MAX_IMAGES, MAX_BYTES // int(np.prod(shape))))
        images = np.random.default_rng(0).integers(0, 256, (self.count, *shape), np.uint8)
        self.split = Split(images, np.arange(self.count), None)
        self.model = RotNet(network)
        self.model.compile(
            build_optimizer(Optimizer()),
            loss=softmax_loss(),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        )
        self.done = 0
        self._fit(2)
        self.steps = max(3, round(settings.round_seconds / self._fit(2)["seconds"] * 2))

    def round(self) -> tuple[float, float]:
        """Train a round; return rotated images per second and the share of the time spent waiting for images."""
        took = self._fit(self.steps)
        return 4 * self.batch * self.steps / took["seconds"], took["wait"]

    def _fit(self, steps: int) -> dict[str, float]:
        batches = training_batches(
            self.split, AUGMENT, batch=self.batch, seed=0, first=self.done, last=self.done + steps + 1
        )
        length = Length(steps=1_000_000, batch=self.batch)
        rate = LearningRate(Optimizer(learning_rate=1e-3), Schedule(), length, self.count, self.done)
        clock = _Clock()
        events = StepEvents(_ignore_event, self.done, 10, self.batch)
        self.model.fit(batches, verbose=0, shuffle=False, callbacks=[rate, events, clock])
        self.done += steps + 1
        return {"seconds": clock.seconds, "wait": clock.waited / clock.seconds}


class _Clock(keras.callbacks.Callback):
    """Measures the time from the end of the first step to the end of the last, and the waiting in between."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the time of this step."""
        now = time.perf_counter()
        if batch == 0:
            self._since, self._waited = now, self.model.input_wait
        self.seconds, self.waited = now - self._since, self.model.input_wait - self._waited


def _ignore_event(**values: float) -> None:
    """Ignore an event, which a run would write."""


def _rate_of_command(command: str) -> float:
    result = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    try:
        return float(json.loads(result.stdout.splitlines()[-1])["rotated_images_per_s"])
    except (IndexError, ValueError, KeyError, TypeError):
        output = (result.stderr or result.stdout).strip().splitlines()[-1:]
        raise RotnetError(
            f"--against: expected a last line of JSON with rotated_images_per_s from: {command}\n{''.join(output)}"
        ) from None
