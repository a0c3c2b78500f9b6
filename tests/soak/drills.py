"""The drills, and how they are shared out over the machine."""

import multiprocessing
import random
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from soak import inputs, kills, load, queues, strangers
from soak.tally import Tally

# What each drill is called, what does it, and how many tries are made. These keep one core busy each, longest first;
FILES = {
    "run folders": (strangers.run_folders, 5000),
    "models": (strangers.models, 5000),
    "tfds": (strangers.tfds_folders, 5000),
    "images": (inputs.images, 10_000),
    "recipes": (inputs.recipes, 10_000),
    "lists": (strangers.lists, 5000),
    "xml": (strangers.annotations, 5000),
}
# these need the whole machine.
RUNS = {
    "kills": (kills.kills, 200),
    "slow": (kills.slow, 16),
    "signals": (kills.signals, 40),
    "studies": (kills.studies, 10),
    "checkpoints": (kills.damage, 10),
    "queues": (queues.drained, 100),
    "folders": (load.folders, 5000),
    "events": (load.events, 5_000_000),
}
DRILLS = FILES | RUNS
# Drills of files that are done at the same time.
JOBS = 2
SEED = 0


def tallies_of(names: list[str], share: float) -> Iterator[Tally]:
    """How the drills went, as each ends."""
    with ProcessPoolExecutor(JOBS, multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(_drill, name, share) for name in names if name in FILES]):
            yield from done.result()
    for name in names:
        if name in RUNS:
            yield from _drill(name, share)


def _drill(name: str, share: float) -> list[Tally]:
    drill, count = DRILLS[name]
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        return list(drill(Path(folder), random.Random(SEED), max(1, round(share * count))))
