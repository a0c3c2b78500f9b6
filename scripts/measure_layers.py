#!/usr/bin/env python3
"""Measure where the time of a training step goes, layer by layer, for the table in results/performance.md.

    python scripts/measure_layers.py --backbone airbench --blocks 3 --width 1.5 --precision mixed_bfloat16

Trains as `rotnet-keras bench training` does, with TensorFlow's profiler. Of each convolution: the time of its forward
pass and of the gradients of its input and of its kernel, and their rate, by the arithmetic counted from the layer. Then
the time of everything else by kind. One operation runs at a time, so that their times add up to the step's; a run
computes both gradients of a layer at once, which takes as long.
"""

import argparse
import os
import re
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rotnet_keras import engine
from rotnet_keras.engine import keras, tf
from rotnet_keras.models.backbones.registry import build_backbone
from rotnet_keras.models.fused_batch_norm import with_fused_batch_norm
from rotnet_keras.planning.bench import training
from rotnet_keras.planning.bench.registry import Settings

PASSES = {"Conv2DBackpropInput": "input", "Conv2DBackpropFilter": "kernel", "Conv2D": "forward"}
# The kinds of other operations, by what their names contain; the first that fits.
KINDS = {
    "batch normalisation": ("BatchNorm", "/bn"),
    "activation": ("Relu", "Gelu", "Silu", "Erf", "Sigmoid"),
    "pooling": ("Pool",),
    "optimizer": ("sgd", "muon", "adam"),
    "rotation and normalisation of the images": ("Reverse", "transpose", "normalization", "ConcatV2"),
}


def operation_times(steps: int, model: "training._Training") -> dict[str, float]:
    """The milliseconds of each operation of a step, by its name and its type."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        model._fit(steps)
        tf.profiler.experimental.stop()
        (file,) = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(file.read_bytes())
    times: dict[str, float] = defaultdict(float)
    for plane in space.planes:
        for line in plane.lines if plane.name == "/host:CPU" else []:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                # Only operations of the graph have a name with a type.
                if re.fullmatch(r"[\w./-]+:_?[A-Z]\w+", name):
                    times[name] += event.duration_ps / 1e9 / (steps + 1)
    return times


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--backbone", default="nin")
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--steps", type=int, default=8)
    given = parser.parse_args()
    tf.config.threading.set_inter_op_parallelism_threads(1)
    precision = engine.resolve_precision(given.precision)
    engine.configure(0, precision)
    settings = Settings(given.backbone, given.blocks, given.width, batch=given.batch, round_seconds=2)
    backbone = build_backbone(settings.spec, (32, 32, 3), training.PIXEL_MEAN, training.PIXEL_MEAN)
    times = operation_times(given.steps, training._Training(with_fused_batch_norm(backbone), settings))
    total = sum(times.values())
    print(f"{given.backbone}, {given.blocks} blocks, width {given.width:g}, batch {given.batch}, {precision}")
    print(f"{total:.0f} ms of operations a step\n")
    print("| layer | GFLOP a pass | forward: ms | GFLOP/s | input's gradient: ms | GFLOP/s | kernel's: ms | GFLOP/s |")
    print("| --- |" + " ---: |" * 7)
    convolutions = [layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D)]
    rest = dict(times)
    sums: dict[str, float] = defaultdict(float)
    for layer in convolutions:
        name, cells = layer.name, []
        # Multiplications and additions, of four rotations of each image.
        gflop = 8 * given.batch * float(np.prod(layer.kernel.shape[:-1])) * float(np.prod(layer.output.shape[1:])) / 1e9
        for kind in ("forward", "input", "kernel"):
            of_pass = [each for each in times if f"/{name}_1/" in each or f"/{name}/" in each]
            took = sum(rest.pop(each, 0.0) for each in of_pass if pass_of(each) == kind)
            sums[kind] += took
            cells.append(f"{took:.1f} | {1e3 * gflop / took:,.0f}" if took else " | ")
        print(f"| {name} | {gflop:.1f} | " + " | ".join(cells) + " |")
    print("\n| operations | ms a step | share, % |\n| --- | ---: | ---: |")
    for kind, words in {
        "forward": "forward",
        "input": "gradient of the input",
        "kernel": "gradient of the kernel",
    }.items():
        print(f"| convolutions, {words} | {sums[kind]:.1f} | {100 * sums[kind] / total:.1f} |")
    others: dict[str, float] = defaultdict(float)
    for each, took in rest.items():
        others[next((kind for kind, words in KINDS.items() if any(word in each for word in words)), "other")] += took
    for kind, took in sorted(others.items(), key=lambda item: -item[1]):
        print(f"| {kind} | {took:.1f} | {100 * took / total:.1f} |")


def pass_of(operation: str) -> str | None:
    """Which pass of a convolution an operation is; None if it is none."""
    kind = operation.rsplit(":", 1)[1]
    return next((name for word, name in PASSES.items() if word in kind), None)


if __name__ == "__main__":
    main()
