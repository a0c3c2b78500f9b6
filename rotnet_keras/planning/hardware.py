"""Accelerators that a run can be planned for, with the figures of their data sheets."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from rotnet_keras.config.finder import did_you_mean
from rotnet_keras.errors import RecipeError

# [MACHINES x] DEVICES x NAME, for example 4x8xH100.
DEVICES_PATTERN = re.compile(r"(?:(\d{1,5})x)?(\d{1,5})x([A-Za-z0-9.-]+)")
# A device given by the rate that it sustains, for example 1.5TFLOPS.
TFLOPS_PATTERN = re.compile(r"(\d+(?:\.\d+)?)TFLOPS", re.IGNORECASE)


@dataclass(frozen=True)
class Device:
    """One accelerator.

    Attributes:
        float32_tflops: peak rate of dense matrix products in float32, in TFLOP/s; in TF32 if the device has it, because
            TensorFlow then uses it.
        float16_tflops: the same in 16 bits.
        bandwidth_gb_per_s: memory bandwidth in GB/s; infinite if the rates are rate rates of whole runs.
        memory_gb: size of its memory in GB; None if unknown.
        link_gb_per_s: one-way bandwidth between the devices of one machine, in GB/s.
        peak_share: the share of its peak rate that matrix products reach, from 0 to 1.
    """

    name: str
    float32_tflops: float
    float16_tflops: float
    bandwidth_gb_per_s: float = field(default=float("inf"))
    memory_gb: float | None = None
    link_gb_per_s: float = 16.0
    peak_share: float = 0.95


# From NVIDIA's data sheets. A link of 16 GB/s is PCIe 4; larger ones are NVLink.
DEVICES: Mapping[str, Device] = {
    device.name: device
    for device in (
        Device("V100", 15.7, 125, bandwidth_gb_per_s=900, memory_gb=16, link_gb_per_s=150),
        Device("T4", 8.1, 65, bandwidth_gb_per_s=320, memory_gb=16),
        Device("A100", 156, 312, bandwidth_gb_per_s=1555, memory_gb=40, link_gb_per_s=300),
        Device("A100-80", 156, 312, bandwidth_gb_per_s=2039, memory_gb=80, link_gb_per_s=300),
        Device("L4", 60, 121, bandwidth_gb_per_s=300, memory_gb=24),
        Device("RTX3090", 35.6, 71, bandwidth_gb_per_s=936, memory_gb=24),
        Device("RTX4090", 82.6, 165, bandwidth_gb_per_s=1008, memory_gb=24),
        Device("H100", 494.7, 989.4, bandwidth_gb_per_s=3350, memory_gb=80, link_gb_per_s=450),
        Device("H200", 494.7, 989.4, bandwidth_gb_per_s=4800, memory_gb=141, link_gb_per_s=450),
    )
}


@dataclass(frozen=True)
class Cluster:
    """Several equal machines, each with the same number of equal devices.

    Attributes:
        machines: number of machines.
        devices: number of devices in each machine.
        device: the kind of device.
    """

    machines: int
    devices: int
    device: Device

    @property
    def total(self) -> int:
        """The number of devices in all machines."""
        return self.machines * self.devices

    def __str__(self) -> str:
        machines = f"{self.machines} machines with " if self.machines > 1 else ""
        return f"{machines}{self.devices} x {self.device.name}"


def parse_devices(text: str) -> Cluster:
    """Parse the value of `--devices`: "8xH100", "4x8xA100" (machines first) or "2x1.5TFLOPS".

    Raises:
        RecipeError: the text has another form, or names an unknown device.
    """
    match = DEVICES_PATTERN.fullmatch(text)
    machines, devices, name = match.groups() if match else (None, "1", text)
    if rate := TFLOPS_PATTERN.fullmatch(name):
        device = Device(name, float(rate[1]), float(rate[1]), peak_share=1.0)
    else:
        known = {key.upper(): value for key, value in DEVICES.items()}
        if name.upper() not in known:
            raise RecipeError(
                f"--devices: expected for example 8xH100, 4x8xH100 (machines first) or 2x1.5TFLOPS (the measured rate "
                f"of a device), got {text!r}{did_you_mean(name.upper(), DEVICES)}. Known: {', '.join(DEVICES)}"
            )
        device = known[name.upper()]
    cluster = Cluster(int(machines or 1), int(devices), device)
    if not cluster.total or not device.float32_tflops:
        raise RecipeError(f"--devices: expected at least one device with a rate above 0, got {text!r}")
    return cluster
