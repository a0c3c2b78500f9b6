"""A plan in words: what a run or a study takes, and what that assumes."""

import math
from collections.abc import Iterator, Sequence

import psutil
from rich.filesize import decimal

from rotnet_keras.planning import roofline
from rotnet_keras.planning.costs import RunCost
from rotnet_keras.planning.hardware import Cluster
from rotnet_keras.reports.report import clock

Rows = tuple[list[str], list[list[str]]]

TRAININGS = ("pretraining", "training")
UNITS = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"))


def table(costs: Sequence[RunCost]) -> Rows:
    """The phases of one run, or the runs of a study, and their sum."""
    if len(costs) == 1 and costs[0].parts:
        (cost,) = costs
        rows = [
            [p.name, f"{p.steps:,}" if p.steps else "", f"{p.inputs:,}" if p.inputs else "", _flop(p.flop),
             f"{p.images:,.0f}", duration(p.seconds)]
            for p in cost.parts
        ]  # fmt: skip
        flop, images = sum(p.flop for p in cost.parts), sum(p.images for p in cost.parts)
        whole = ["all, with its start and end", "", "", _flop(flop), f"{images:,.0f}", duration(cost.seconds)]
        return ["part", "steps", "inputs each", "arithmetic", "images read", "time"], [*rows, whole]
    rows = [
        [c.name, _flop(sum(p.flop for p in c.parts)), "already finished" if c.finished else duration(c.seconds)]
        for c in costs
    ]
    flop, seconds = sum(p.flop for c in costs for p in c.parts), sum(c.seconds for c in costs)
    return ["run", "arithmetic", "time"], [*rows, ["all", _flop(flop), duration(seconds)]]


def notes(costs: Sequence[RunCost], cluster: Cluster | None, cores: int | None = None) -> Iterator[str]:
    """What else there is to know, one line each."""
    where = f"for {cluster}" if cluster else "from a short trial on this machine"
    yield f"Times are estimates, {where}."
    if any(cost.on_paper for cost in costs):
        how = "" if cluster else "; the trial was on noise, and decoded nothing"
        yield f"The images are not there: numbers and sizes are those that the data set is published with{how}."
    todo = [cost for cost in costs if cost.parts]
    yield from _reading(todo)
    yield from _memory(todo, cluster)
    if not cluster:
        return
    decoded = any(cost.read_bytes is None or cost.read_bytes for cost in todo)
    if decoded and not cores:
        yield _feeding(todo, cluster)
    if cluster.total > 1 and any(part.name not in TRAININGS for cost in todo for part in cost.parts):
        yield "Trainings run on all devices, the other parts on one."
    yield "Assumed:"
    for assumption in roofline.assumptions(cluster, decoded):
        yield f"  {assumption}"


def duration(seconds: float) -> str:
    """In the two largest of days, hours, minutes and seconds."""
    if seconds < 24 * 3600:
        return clock(seconds)
    days, rest = divmod(round(seconds / 3600), 24)
    return f"{days} d {rest:02d} h"


def _flop(flop: float) -> str:
    size, unit = next(((size, unit) for size, unit in UNITS if flop >= size), UNITS[-1])
    return f"{flop / size:.3g} {unit}" if flop else ""


def _reading(costs: Sequence[RunCost]) -> Iterator[str]:
    known = [cost.read_bytes for cost in costs if cost.read_bytes is not None]
    if sum(known):
        yield f"Read from disk: {decimal(round(sum(known)))} in all, because images are decoded at each use."


def _memory(costs: Sequence[RunCost], cluster: Cluster | None) -> Iterator[str]:
    needed = max((cost.memory_bytes for cost in costs if cost.memory_bytes), default=0.0) / 1e9
    if not needed:
        return
    there = cluster.device.memory if cluster else psutil.virtual_memory().total / 1e9
    where = "A device" if cluster else "The training"
    yield f"{where} needs about {needed:.1f} GB of memory" + (f"; there are {there:.0f}." if there else ".")
    if there and needed > there:
        parts = math.ceil(needed / there)
        yield f"That is too much: train.accumulate={parts} computes each batch in {parts} parts."


def _feeding(costs: Sequence[RunCost], cluster: Cluster) -> str:
    fastest = max(cost.parts[0].images / max(cost.parts[0].seconds, 1e-9) for cost in costs)
    cores = math.ceil(fastest / roofline.IMAGES_PER_CORE_SECOND / cluster.machines)
    a_machine = " a machine" if cluster.machines > 1 else ""
    return f"The first part reads {fastest:,.0f} images/s: {cores} cores{a_machine} to decode them (--cores)."
