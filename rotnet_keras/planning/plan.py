"""A cost estimate as a table and notes for people: what a run or a study takes, and what the estimate assumes."""

import math
from collections.abc import Iterator, Sequence

import psutil
from rich.filesize import decimal

from rotnet_keras.planning import roofline
from rotnet_keras.planning.costs import RunCost
from rotnet_keras.planning.hardware import Cluster
from rotnet_keras.text import duration

# The columns and the rows of a table.
Rows = tuple[list[str], list[list[str]]]

# The phases that several devices share.
TRAINING_PHASES = ("pretraining", "training")
FLOP_UNITS = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"))


def cost_table(costs: Sequence[RunCost]) -> Rows:
    """Return a table of the phases of one run, or of the runs of a study, with their sum in the last row."""
    if len(costs) == 1 and costs[0].parts:
        (cost,) = costs
        rows = [
            [p.name, f"{p.steps:,}" if p.steps else "", f"{p.inputs:,}" if p.inputs else "", _flop(p.flop),
             f"{p.images:,.0f}", duration(p.seconds)]
            for p in cost.parts
        ]  # fmt: skip
        flop, images = sum(p.flop for p in cost.parts), sum(p.images for p in cost.parts)
        total = ["total, with start and end", "", "", _flop(flop), f"{images:,.0f}", duration(cost.seconds)]
        return ["phase", "steps", "inputs per step", "arithmetic", "images read", "time"], [*rows, total]
    rows = [
        [c.name, _flop(sum(p.flop for p in c.parts)), "already finished" if c.finished else duration(c.seconds)]
        for c in costs
    ]
    flop, seconds = sum(p.flop for c in costs for p in c.parts), sum(c.seconds for c in costs)
    return ["run", "arithmetic", "time"], [*rows, ["total", _flop(flop), duration(seconds)]]


def plan_notes(costs: Sequence[RunCost], cluster: Cluster | None, cores: int | None = None) -> Iterator[str]:
    """Yield lines about the estimate: its source, disk reads, memory, decoding and assumptions."""
    where = f"for {cluster}" if cluster else "from a short trial on this machine"
    yield f"Times are estimates, {where}."
    if any(cost.on_paper for cost in costs):
        how = "" if cluster else "; the trial used random pixels and decoded no files"
        yield f"The images are not on this machine: their number and size are the published ones of the data set{how}."
    unfinished = [cost for cost in costs if cost.parts]
    yield from _disk_reads(unfinished)
    yield from _memory_needs(unfinished, cluster)
    if not cluster:
        return
    decoded = any(cost.read_bytes is None or cost.read_bytes for cost in unfinished)
    if decoded and not cores:
        yield _decoding(unfinished, cluster)
    if cluster.total > 1 and any(part.name not in TRAINING_PHASES for cost in unfinished for part in cost.parts):
        yield "Training uses all devices, the other phases one."
    yield "Assumed:"
    for assumption in roofline.assumptions(cluster, decoded):
        yield f"  {assumption}"


def _flop(flop: float) -> str:
    size, unit = next(((size, unit) for size, unit in FLOP_UNITS if flop >= size), FLOP_UNITS[-1])
    return f"{flop / size:.3g} {unit}" if flop else ""


def _disk_reads(costs: Sequence[RunCost]) -> Iterator[str]:
    known = [cost.read_bytes for cost in costs if cost.read_bytes is not None]
    if sum(known):
        yield f"Read from disk: {decimal(round(sum(known)))} in total, because images are decoded at each use."


def _memory_needs(costs: Sequence[RunCost], cluster: Cluster | None) -> Iterator[str]:
    needed = max((cost.memory_bytes for cost in costs if cost.memory_bytes), default=0.0) / 1e9
    if not needed:
        return
    available = cluster.device.memory_gb if cluster else psutil.virtual_memory().total / 1e9
    on, which = (" on each device", "a device") if cluster else ("", "this machine")
    has = f"; {which} has {available:.0f} GB" if available else ""
    yield f"The training needs about {needed:.1f} GB of memory{on}{has}."
    if available and needed > available:
        parts = math.ceil(needed / available)
        yield f"This is too much. Set train.accumulate={parts} to compute each batch in {parts} parts."


def _decoding(costs: Sequence[RunCost], cluster: Cluster) -> str:
    fastest = max(cost.parts[0].images / max(cost.parts[0].seconds, 1e-9) for cost in costs)
    cores = math.ceil(fastest / roofline.IMAGES_PER_CORE_SECOND / cluster.machines)
    per_machine = " per machine" if cluster.machines > 1 else ""
    return (
        f"The first phase reads {fastest:,.0f} images/s. Decoding them takes {cores} CPU cores{per_machine}; "
        "--cores plans with fewer."
    )
