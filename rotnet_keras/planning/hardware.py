"""Devices that a run may be planned for, by their makers' data sheets, and how many of them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from rotnet_keras.config.finder import did_you_mean
from rotnet_keras.errors import RecipeError

# [MACHINES x] DEVICES x NAME
PATTERN = re.compile(r"(?:(\d{1,5})x)?(\d{1,5})x([A-Za-z0-9.-]+)")
SUSTAINED = re.compile(r"(\d+(?:\.\d+)?)TFLOPS", re.IGNORECASE)


@dataclass(frozen=True)
class Device:
    """One accelerator.

    Attributes:
        full, half: peak of dense products in float32 (TF32 where the device has it, which TensorFlow then takes) and
            in 16 bits, in TFLOP/s.
        bandwidth: of its memory, in GB/s; infinite where `full` is what comes out of it in the end.
        memory: in GB; None where it is not known.
        link: between the devices of one machine, one way, in GB/s.
        share: of its peak that products come to.
    """

    name: str
    full: float
    half: float
    bandwidth: float = field(default=float("inf"))
    memory: float | None = None
    link: float = 16.0
    share: float = 0.95


# From NVIDIA's data sheets; a link of 16 GB/s is PCIe 4, twice that PCIe 5.
DEVICES: Mapping[str, Device] = {
    device.name: device
    for device in (
        Device("V100", 15.7, 125, bandwidth=900, memory=16, link=150),
        Device("T4", 8.1, 65, bandwidth=320, memory=16),
        Device("A100", 156, 312, bandwidth=1555, memory=40, link=300),
        Device("A100-80", 156, 312, bandwidth=2039, memory=80, link=300),
        Device("L4", 60, 121, bandwidth=300, memory=24),
        Device("RTX3090", 35.6, 71, bandwidth=936, memory=24),
        Device("RTX4090", 82.6, 165, bandwidth=1008, memory=24),
        Device("H100", 494.7, 989.4, bandwidth=3350, memory=80, link=450),
        Device("H200", 494.7, 989.4, bandwidth=4800, memory=141, link=450),
    )
}


@dataclass(frozen=True)
class Cluster:
    """Equal machines with equal devices."""

    machines: int
    devices: int
    device: Device

    @property
    def total(self) -> int:
        """All devices."""
        return self.machines * self.devices

    def __str__(self) -> str:
        machines = f"{self.machines} machines with " if self.machines > 1 else ""
        return f"{machines}{self.devices} x {self.device.name}"


def parse(text: str) -> Cluster:
    """What "8xH100", "4x8xA100" or "2x1.5TFLOPS" stands for.

    Raises:
        RecipeError: nothing.
    """
    match = PATTERN.fullmatch(text)
    machines, devices, name = match.groups() if match else (None, "1", text)
    if sustained := SUSTAINED.fullmatch(name):
        device = Device(name, float(sustained[1]), float(sustained[1]), share=1.0)
    else:
        known = {key.upper(): value for key, value in DEVICES.items()}
        if name.upper() not in known:
            raise RecipeError(
                f"--devices: expected for example 8xH100, 4x8xH100 (machines first) or 2x1.5TFLOPS (what one of yours "
                f"comes to), got {text!r}{did_you_mean(name.upper(), DEVICES)}. Known: {', '.join(DEVICES)}"
            )
        device = known[name.upper()]
    cluster = Cluster(int(machines or 1), int(devices), device)
    if not cluster.total or not device.full:
        raise RecipeError(f"--devices: expected at least one device that computes, got {text!r}")
    return cluster
