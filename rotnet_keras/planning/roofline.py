"""Estimates the time and memory of a workload on other devices, by a roofline model.

A layer takes as long as its matrix products or its memory traffic, whichever is longer, both at a share of the device's
peak. With these two shares, the estimates are within 18 % of the rates that NVIDIA publishes for training ResNet-50
v1.5 with TensorFlow and XLA: on V100 412 images/s in float32 and 1,270 in mixed precision, on A100 909 and 2,375
(DeepLearningExamples, TensorFlow/Classification/ConvNets/resnet50v1.5).
"""

import math
from collections.abc import Iterator

from rotnet_keras.planning.hardware import Cluster, Device
from rotnet_keras.planning.workload import TRAINING_FORWARD_PASSES, Memory, Pass, Phase
from rotnet_keras.text import percent

# The share of its memory bandwidth that a device reaches; fitted to the rates above, as `Device.peak_share` is.
BANDWIDTH_SHARE = 0.75
# The rate of each of several devices, relative to one device alone: 0.92 to 0.94 on eight in the same publication.
MULTI_DEVICE_EFFICIENCY = 0.92
# Numbers that an optimizer with momentum reads and writes for each weight: weight, gradient and momentum are read,
# weight and momentum are written.
UPDATE_NUMBERS_PER_WEIGHT = 5
# The link between machines: 100 Gbit/s.
NETWORK_GB_PER_SECOND = 12.5
# The time of a training step of a tiny model, in seconds: what Python and TensorFlow take around the arithmetic.
HOST_SECONDS_PER_STEP = 3.5e-3
# Device memory that TensorFlow and its libraries take before any model.
FRAMEWORK_BYTES = 0.8e9
# Images that one CPU core decodes in a second: random-size crops to 224 pixels from JPEG files of 500 x 375 pixels and
# 120 kB (measured in results/scaling.md).
IMAGES_PER_CORE_SECOND = 230.0


def assumptions(cluster: Cluster, decoded: bool) -> Iterator[str]:
    """Yield the assumptions behind the times on a cluster, one line each.

    Args:
        cluster: the devices.
        decoded: whether images are decoded at each use.
    """
    device = cluster.device
    if math.isfinite(device.bandwidth_gb_per_s):
        yield (
            f"{percent(device.peak_share, 0)} of a device's peak rate for matrix products, "
            f"{percent(BANDWIDTH_SHARE, 0)} of its memory bandwidth for layers that move data"
        )
    yield f"{1000 * HOST_SECONDS_PER_STEP:g} ms per step at least"
    if decoded:
        yield f"{IMAGES_PER_CORE_SECOND:,.0f} images decoded per second on each CPU core"
    if cluster.total > 1:
        yield f"{percent(MULTI_DEVICE_EFFICIENCY, 0)} of the rate of a single device on each of several"
        yield f"gradients summed after each step over links of {_link(cluster):g} GB/s"


def phase_seconds(phase: Phase, cluster: Cluster, cores: int | None = None, decoded: bool = False) -> float:
    """Return how long a phase takes, in seconds.

    Args:
        phase: the phase of a run.
        cluster: the devices.
        cores: CPU cores in each machine that decode images; by default as many as needed.
        decoded: whether images are decoded at each use.
    """
    device = cluster.device
    count, machines = (cluster.total, cluster.machines) if phase.shared else (1, 1)
    seconds = sum(_compute_seconds(work, device) for work in phase.passes) / count
    bandwidth = BANDWIDTH_SHARE * device.bandwidth_gb_per_s * 1e9
    seconds += phase.steps * UPDATE_NUMBERS_PER_WEIGHT * 4 * phase.parameters / bandwidth
    if count > 1:
        gradients = 2 * (count - 1) / count * 4 * phase.parameters
        seconds = seconds / MULTI_DEVICE_EFFICIENCY + phase.steps * gradients / (_link(cluster) * 1e9)
    decoding = phase.images / (cores * machines * IMAGES_PER_CORE_SECOND) if cores and decoded else 0.0
    return max(seconds, phase.steps * HOST_SECONDS_PER_STEP, decoding)


def memory_bytes(memory: Memory, devices: int, half: bool) -> float:
    """Return the memory that a training takes on each device, in bytes.

    Args:
        memory: what the training keeps.
        devices: the number of devices that share a batch.
        half: whether it computes in 16 bits.
    """
    width = 2 if half else 4
    return FRAMEWORK_BYTES + memory.state_bytes + memory.values_per_input * width * memory.inputs / devices


def uses_16_bits(precision: str) -> bool:
    """Return whether this precision of a recipe means 16 bits on devices that are faster in 16 bits."""
    return precision != "float32"


def _link(cluster: Cluster) -> float:
    """Return the bandwidth of the slowest link over which gradients are summed, in GB/s."""
    link = cluster.device.link_gb_per_s
    return link if cluster.machines == 1 else min(link, NETWORK_GB_PER_SECOND)


def _compute_seconds(work: Pass, device: Device) -> float:
    """Return how long a device computes, by the roofline of each layer."""
    half = uses_16_bits(work.precision)
    products = device.peak_share * (device.float16_tflops if half else device.float32_tflops) * 1e12
    traffic = BANDWIDTH_SHARE * device.bandwidth_gb_per_s * 1e9 / (2 if half else 4)
    forward = sum(max(layer.flop / products, layer.moved / traffic) for layer in work.layers)
    return work.inputs * forward * (TRAINING_FORWARD_PASSES if work.training else 1)
