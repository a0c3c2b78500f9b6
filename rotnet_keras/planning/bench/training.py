"""The training step, as a run executes it: `fit` on the pipeline's batches, with a run's own callbacks."""

import json
import resource
import shlex
import subprocess
import time
from typing import Any

import numpy as np

from rotnet_keras import engine
from rotnet_keras.config.sections import Augment, Length, Optimizer, Schedule
from rotnet_keras.data.batches import training_images
from rotnet_keras.data.stores import Split
from rotnet_keras.engine import keras
from rotnet_keras.errors import RotnetError
from rotnet_keras.models.backbones.registry import build
from rotnet_keras.models.flops import forward_gflop
from rotnet_keras.models.fused_batch_norm import with_fused_batch_norm
from rotnet_keras.models.rotnet import RotNet, softmax_loss
from rotnet_keras.planning.bench import machine
from rotnet_keras.planning.bench.registry import Measurement, Settings, measured
from rotnet_keras.training.callbacks import LearningRate, StepEvents
from rotnet_keras.training.optimizers import build_optimizer

# So many images, or as many as this many bytes hold.
IMAGES, BYTES = 10_000, 2**28
# So long a round trains, at least.
SECONDS = 8.0
AUGMENT = Augment(pad=4, flip=True)
PIXEL_MEAN = (127.5,) * 3


def measure(settings: Settings) -> list[Measurement]:
    """Rotated images/s, GFLOP/s and the share of the peak; the same with Keras's batch normalisation."""
    precision = engine.resolve_precision(settings.precision)
    engine.configure(0, precision)
    compute = keras.config.dtype_policy().compute_dtype
    base = build(settings.spec, (settings.size, settings.size, 3), PIXEL_MEAN, PIXEL_MEAN)
    gflop = 3 * forward_gflop(base)
    ours, stock = _Training(with_fused_batch_norm(base), settings), _Training(base, settings)
    rates, stock_rates, peaks, waits, others, ratios = [], [], [], [], [], []
    for _ in range(settings.rounds):
        peaks.append(machine.matmul_gflops(compute))
        rate, wait = ours.round()
        rates.append(rate)
        waits.append(wait)
        stock_rates.append(stock.round()[0])
        if settings.against:
            others.append(_rate_of(settings.against))
            ratios.append(rate / others[-1])
    blocks = f" with {settings.spec.blocks} blocks" if settings.spec.blocks else ""
    size = f" on {settings.size} pixels" if settings.size != 32 else ""
    name = f"{settings.backbone}{blocks}{size}, batch {settings.batch}, {precision}"
    found = [
        measured("training", f"step of {name}", rates, "rotated images/s"),
        measured("training", "forward and backward, counted from the layers", [gflop], "GFLOP an image"),
        measured("training", "arithmetic", [gflop * rate for rate in rates], "GFLOP/s"),
        measured("training", f"matrix product in {compute}", peaks, "GFLOP/s"),
        measured(
            "training", "share of the matrix product", [gflop * r / p for r, p in zip(rates, peaks, strict=True)], "x"
        ),
        measured("training", "waiting for data", waits, "%", 100),
        measured("training", "step with Keras's own batch normalisation", stock_rates, "rotated images/s"),
        measured(
            "training", "fused against Keras's own", [a / b for a, b in zip(rates, stock_rates, strict=True)], "x"
        ),
        measured("training", "peak memory", [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10], "MiB"),
    ]
    if settings.against:
        found.append(measured("training", f"step of: {settings.against}", others, "rotated images/s"))
        found.append(measured("training", "ours against that", ratios, "x"))
    return found


class _Training:
    """A model that goes on training, round by round."""

    def __init__(self, network: keras.Model, settings: Settings) -> None:
        self.batch = settings.batch
        shape = network.input.shape[1:]
        self.count = max(settings.batch, min(IMAGES, BYTES // int(np.prod(shape))))
        images = np.random.default_rng(0).integers(0, 256, (self.count, *shape), np.uint8)
        self.split = Split(images, np.arange(self.count), None)
        self.model = RotNet(network)
        self.model.compile(
            build_optimizer(Optimizer()),
            loss=softmax_loss(4),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        )
        self.done = 0
        self._fit(2)
        self.steps = max(3, round(SECONDS / self._fit(2)["seconds"] * 2))

    def round(self) -> tuple[float, float]:
        """Rotated images/s, and the share of the time that was spent waiting for images."""
        took = self._fit(self.steps)
        return 4 * self.batch * self.steps / took["seconds"], took["wait"]

    def _fit(self, steps: int) -> dict[str, float]:
        batches = training_images(
            self.split, AUGMENT, batch=self.batch, seed=0, first=self.done, last=self.done + steps + 1
        )
        length = Length(steps=1_000_000, batch=self.batch)
        rate = LearningRate(Optimizer(learning_rate=1e-3), Schedule(), length, self.count, self.done)
        clock = _Clock()
        events = StepEvents(_forget, self.done, 10, self.batch)
        self.model.fit(batches, verbose=0, shuffle=False, callbacks=[rate, events, clock])
        self.done += steps + 1
        return {"seconds": clock.seconds, "wait": clock.waited / clock.seconds}


class _Clock(keras.callbacks.Callback):
    """The time from the end of the first step to the end of the last, and the waiting within it."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Read the clock."""
        now = time.perf_counter()
        if batch == 0:
            self._since, self._waited = now, self.model.input_wait
        self.seconds, self.waited = now - self._since, self.model.input_wait - self._waited


def _forget(**values: float) -> None:
    """Where a run writes its events."""


def _rate_of(command: str) -> float:
    result = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    try:
        return float(json.loads(result.stdout.splitlines()[-1])["rotated_images_per_s"])
    except (IndexError, ValueError, KeyError, TypeError):
        said = (result.stderr or result.stdout).strip().splitlines()[-1:]
        raise RotnetError(
            f"--against: expected a last line of JSON with rotated_images_per_s from: {command}\n{''.join(said)}"
        ) from None
