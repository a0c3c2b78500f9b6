"""What a workload takes on devices that are not here: time, and memory. Estimates, with what they assume.

A layer takes as long as its products or its traffic with the memory do, whichever is longer (a roofline), both at a
share of the device's peak. Those two shares give the rates that NVIDIA publishes for training ResNet-50 v1.5
with TensorFlow and XLA to within 18 %: V100 412 images/s in float32 and 1,270 in mixed precision, A100 909 and 2,375
(DeepLearningExamples, TensorFlow/Classification/ConvNets/resnet50v1.5).
"""

import math
from collections.abc import Iterator

from rotnet_keras.planning.hardware import Cluster, Device
from rotnet_keras.planning.workload import TRAINING_FORWARD_PASSES, Memory, Pass, Phase

BANDWIDTH_SHARE = 0.75
# What is left of the rate of one device on each of several: 0.92 to 0.94 on eight in the same publication.
MULTI_DEVICE_EFFICIENCY = 0.92
# Numbers that an update with momentum reads and writes for each weight.
UPDATE_NUMBERS_PER_WEIGHT = 5
# Between machines, in GB/s: 100 Gbit/s.
NETWORK_GB_PER_SECOND = 12.5
# A step of next to no network here, in seconds: what Python and TensorFlow take around the arithmetic.
HOST_SECONDS_PER_STEP = 3.5e-3
# TensorFlow with its libraries, in bytes.
FRAMEWORK_BYTES = 0.8e9
# Crops of random size to 224 pixels from photographs of 500 x 375 pixels and 120 kB: images/s of one core
# (results/scaling.md).
IMAGES_PER_CORE_SECOND = 500.0


def assumptions(cluster: Cluster, decoded: bool) -> Iterator[str]:
    """What times on a cluster go by, one line each.

    Args:
        decoded: whether images are decoded at each use.
    """
    device = cluster.device
    if math.isfinite(device.bandwidth):
        yield f"{device.share:.0%} of a device's peak for products, {BANDWIDTH_SHARE:.0%} of its memory's for what layers move"
    yield f"{1000 * HOST_SECONDS_PER_STEP:g} ms a step at least"
    if decoded:
        yield f"{IMAGES_PER_CORE_SECOND:,.0f} images decoded a second and core"
    if cluster.total > 1:
        yield f"{MULTI_DEVICE_EFFICIENCY:.0%} of one device's rate on each of several"
        yield f"gradients summed after each step, over {_link(cluster):g} GB/s"


def seconds(phase: Phase, cluster: Cluster, cores: int | None = None, decoded: bool = False) -> float:
    """How long a phase takes.

    Args:
        cores: of each machine, which decode its images; enough of them by default.
        decoded: whether images are decoded at each use.
    """
    device = cluster.device
    count, machines = (cluster.total, cluster.machines) if phase.shared else (1, 1)
    took = sum(_computing(part, device) for part in phase.passes) / count
    took += phase.steps * UPDATE_NUMBERS_PER_WEIGHT * 4 * phase.parameters / (BANDWIDTH_SHARE * device.bandwidth * 1e9)
    if count > 1:
        gradients = 2 * (count - 1) / count * 4 * phase.parameters
        took = took / MULTI_DEVICE_EFFICIENCY + phase.steps * gradients / (_link(cluster) * 1e9)
    feeding = phase.images / (cores * machines * IMAGES_PER_CORE_SECOND) if cores and decoded else 0.0
    return max(took, phase.steps * HOST_SECONDS_PER_STEP, feeding)


def memory_bytes(memory: Memory, devices: int, half: bool) -> float:
    """What a training takes on each of some devices.

    Args:
        half: whether it computes in 16 bits, with a copy of the weights beside them.
    """
    width = 2 if half else 4
    return FRAMEWORK_BYTES + memory.state + memory.numbers * width * memory.inputs / devices


def uses_16_bits(precision: str) -> bool:
    """Whether a recipe's precision comes to 16 bits on devices that are fast in them."""
    return precision != "float32"


def _link(cluster: Cluster) -> float:
    """What gradients are summed over, in GB/s."""
    return cluster.device.link if cluster.machines == 1 else min(cluster.device.link, NETWORK_GB_PER_SECOND)


def _computing(part: Pass, device: Device) -> float:
    half = uses_16_bits(part.precision)
    products = device.share * (device.half if half else device.full) * 1e12
    traffic = BANDWIDTH_SHARE * device.bandwidth * 1e9 / (2 if half else 4)
    forward = sum(max(work.flop / products, work.moved / traffic) for work in part.layers)
    return part.inputs * forward * (TRAINING_FORWARD_PASSES if part.training else 1)
