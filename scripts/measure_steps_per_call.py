#!/usr/bin/env python3
"""Measure what calling the device once for several training steps would save, for results/performance.md.

    python scripts/measure_steps_per_call.py [--steps 8] [--rounds 9]

The network has next to no arithmetic (images of 8 x 8 pixels, two narrow blocks), so that what remains is the fixed
cost of a step. Steps are called one by one, as training does, and so many in one graph, in turn.
"""

import argparse
import statistics
import time

from rotnet_keras import engine
from rotnet_keras.config.loading import load_recipe
from rotnet_keras.config.schema import PretrainRecipe
from rotnet_keras.engine import keras, tf
from rotnet_keras.host import processor
from rotnet_keras.models.rotnet import RotNet
from rotnet_keras.training.trainer import compile_model

CALLS = 400


def tiny_model() -> RotNet:
    """A network of two blocks with two channels, compiled with the optimizer of the quickstart."""
    image = keras.Input((8, 8, 1))
    x = image
    for block in range(2):
        x = keras.layers.Conv2D(2, 3, padding="same", use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU(name=f"conv{block + 1}")(x)
    model = RotNet(keras.Model(image, x), angles=[0, 90, 180, 270])
    recipe = load_recipe("quickstart")
    assert isinstance(recipe, PretrainRecipe)
    compile_model(model, recipe)
    model.build_as_compiled()
    return model


def main() -> None:
    """Print the milliseconds of a step, called alone and with others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8, help="in one call")
    parser.add_argument("--rounds", type=int, default=9)
    chosen = parser.parse_args()
    engine.configure(0, "float32")
    model, batch = tiny_model(), tf.zeros((4, 8, 8, 1), tf.uint8)
    signature = tf.TensorSpec((None, 8, 8, 1), tf.uint8)
    one = tf.function(model.train_step, input_signature=[signature], autograph=False, jit_compile=model.jit_compile)

    @tf.function(input_signature=[signature] * chosen.steps, autograph=False)
    def several(*batches: tf.Tensor) -> dict[str, tf.Tensor]:
        return [one(each) for each in batches][-1]

    def milliseconds(call, calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            found = call()
        float(found["loss"])
        return (time.perf_counter() - began) * 1000

    ways = {
        "one by one": lambda: milliseconds(lambda: one(batch), CALLS) / CALLS,
        f"{chosen.steps} in a call": lambda: (
            milliseconds(lambda: several(*[batch] * chosen.steps), CALLS // chosen.steps)
            / (CALLS // chosen.steps * chosen.steps)
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for measure in ways.values():
        measure()
    for _ in range(chosen.rounds):
        for name, measure in ways.items():
            times[name].append(measure())
    print(f"{processor()}, TensorFlow {tf.__version__}")
    for name, found in times.items():
        print(f"{name}: median {statistics.median(found):.2f} ms a step, {min(found):.2f} to {max(found):.2f}")


if __name__ == "__main__":
    main()
