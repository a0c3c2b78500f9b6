"""How fast the steps of a recipe are, as a run of it makes them; one line of JSON.

    python -m gpu_check.rates RECIPE [KEY=VALUE]... [--seconds N]

Images are random and in memory, and crops are of a fixed size: nothing is decoded. `devices.deterministic=false` also
lets XLA compile the step.
"""

import json
import sys
import time
from typing import Any

import numpy as np

from rotnet_keras import engine
from rotnet_keras.config.loading import load_recipe, parse_override
from rotnet_keras.config.schema import PretrainRecipe
from rotnet_keras.data.batches import crop_shape, training_batches
from rotnet_keras.data.datasets import Dataset
from rotnet_keras.data.stores import Split
from rotnet_keras.engine import keras
from rotnet_keras.models.flops import forward_gflop
from rotnet_keras.planning.bench.machine import matrix_product_gflops
from rotnet_keras.tasks.pretrain import build_rotnet
from rotnet_keras.training.callbacks import LearningRate, StepEvents
from rotnet_keras.training.trainer import compile_model

# The images that are drawn from, at least a batch, take about this many bytes.
POOL_BYTES = 2**27
WARM_UP_STEPS = 5


class Clock(keras.callbacks.Callback):
    """Reads the loss, and so waits for the device, at the first and the last step only."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start the clock."""
        self.since, self.waited = time.perf_counter(), self.model.input_wait

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Keep the metrics, unread."""
        self.logs = logs or {}

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Wait for the last step, and stop the clock."""
        self.loss = float(self.logs["loss"])
        self.seconds, self.waited = time.perf_counter() - self.since, self.model.input_wait - self.waited


def main() -> None:
    words = sys.argv[1:]
    seconds = float(words.pop(words.index("--seconds") + 1)) if "--seconds" in words else 8.0
    name, *overrides = [word for word in words if word != "--seconds"]
    recipe = load_recipe(name, dict(map(parse_override, overrides)))
    assert isinstance(recipe, PretrainRecipe)
    # Crops of random size are resampled one by one; the decoder's own rate is measured apart.
    augment = recipe.augment.model_copy(update={"area": None})
    recipe = recipe.model_copy(update={"augment": augment})
    precision = engine.resolve_precision(recipe.train.precision)
    engine.configure(recipe.seed, precision, recipe.devices.deterministic)
    side, batch = recipe.data.size or 32, recipe.train.batch
    assert isinstance(side, int)
    count = max(batch, POOL_BYTES // (3 * side * side))
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    dataset = Dataset("random", Split(images, np.arange(count), None), None, None, [], [127.5] * 3, [127.5] * 3, "")
    model = build_rotnet(recipe, dataset)
    compile_model(model, recipe)
    model.build_as_compiled()
    copies = len(recipe.rotation.angles) if recipe.rotation.copies == "all" else 1
    gflop = 3 * copies * forward_gflop(model.backbone)
    done = 0

    def fit(steps: int) -> Clock:
        nonlocal done
        batches = training_batches(dataset.train, augment, batch=batch, seed=0, first=done, last=done + steps)
        rate = LearningRate(recipe.optimizer, recipe.schedule, recipe.train, count, done)
        clock = Clock()
        events = StepEvents(lambda **values: None, done, recipe.train.log_every, batch)
        model.fit(batches, verbose=0, shuffle=False, callbacks=[rate, clock, events])
        done += steps
        return clock

    began = time.perf_counter()
    fit(1)
    first_step = time.perf_counter() - began
    warm = fit(WARM_UP_STEPS)
    steps = max(3, round(seconds * WARM_UP_STEPS / warm.seconds))
    clock = fit(steps)
    per_second = steps * batch / clock.seconds
    product = matrix_product_gflops(keras.config.dtype_policy().compute_dtype)
    print(
        json.dumps(
            {
                "recipe": name,
                "side": max(crop_shape(augment, (side, side))),
                "batch": batch,
                "copies": copies,
                "precision": precision,
                "deterministic": recipe.devices.deterministic,
                "xla": bool(model.jit_compile),
                "images_per_s": per_second,
                "ms_per_step": 1000 * clock.seconds / steps,
                "steps": steps,
                "first_step_s": first_step,
                "data_wait": clock.waited / clock.seconds,
                "gflop_per_image": gflop,
                "gflops": gflop * per_second,
                "product_gflops": product,
                "finite": bool(np.isfinite(clock.loss)),
                "device": engine.device_name(),
            }
        )
    )


if __name__ == "__main__":
    main()
