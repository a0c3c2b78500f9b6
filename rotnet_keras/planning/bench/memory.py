"""Measures the memory that data takes, in a process for each case, without a model."""

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import psutil

from rotnet_keras.config.sections import Augment, Data
from rotnet_keras.data.batches import training_batches
from rotnet_keras.data.datasets import load
from rotnet_keras.data.stores import Split
from rotnet_keras.host import python_command
from rotnet_keras.planning.bench.data import make_photos
from rotnet_keras.planning.bench.registry import Measurement, Progress, Settings, measurement

# Image files in the two folders that are compared.
FEW_FILES = 1_000
MANY_FILES = 100_000
# Height and width to which they are resized, in pixels.
SIZE = 64
BATCH = 128
BATCHES = 200


def measure(settings: Settings, progress: Progress) -> list[Measurement]:
    """Measure the memory of arrays as large as CIFAR-10, and how much more 100,000 files take than 1,000."""
    progress.note(f"making {MANY_FILES:,} image files")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pixels = np.random.default_rng(0).integers(0, 256, (60_000, 32, 32, 3), np.uint8)
        np.savez(folder / "arrays.npz", x_train=pixels[:50_000], x_test=pixels[50_000:])
        used = _peak_in_subprocess(folder / "arrays.npz", "memory")
        found = [measurement("memory", "60,000 cached images of 32 x 32", [used], "MB")]
        few, many = (_folder_of_links(folder, count) for count in (FEW_FILES, MANY_FILES))
        for cache, where in (("none", "decoded at each use"), ("disk", "cached on disk")):
            more = _peak_in_subprocess(many, cache) - _peak_in_subprocess(few, cache)
            found.append(
                measurement("memory", f"growth from {FEW_FILES:,} to {MANY_FILES:,} image files, {where}", [more], "MB")
            )
    return found


def peak_megabytes(name: str, cache: Literal["none", "disk", "memory"]) -> float:
    """Return the peak memory that this process takes to load a data set and make batches of it, in MB."""
    pixels = np.zeros((BATCH, 8, 8, 3), np.uint8)
    _iterate(Split(pixels, np.arange(BATCH), None), 1)
    before = psutil.Process().memory_info().rss
    with _track_peak() as peak:
        dataset = load(Data(name=name, cache=cache, size=SIZE if Path(name).is_dir() else None, validation=0.02))
        _iterate(dataset.train, BATCHES)
    return (peak[0] - before) / 1e6


@contextmanager
def _track_peak() -> Iterator[list[int]]:
    """Yield a list whose only value is the peak memory of this process so far, in bytes.

    The peak that the system reports will not do, because it includes the imports.
    """
    process, peak, done = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def _iterate(split: Split, batches: int) -> None:
    for _ in training_batches(split, Augment(pad=4, flip=True), batch=BATCH, seed=0, first=0, last=batches):
        pass


def _peak_in_subprocess(data: Path, cache: str) -> float:
    code = "import sys; from rotnet_keras.planning.bench import memory; print(memory.peak_megabytes(*sys.argv[1:]))"
    environment = {**os.environ, "ROTNET_CACHE_DIR": str(data.parent / "cache")}
    command = python_command("-c", code, str(data), cache)
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(result.stdout.splitlines()[-1])


def _folder_of_links(folder: Path, count: int) -> Path:
    """Make a folder of `count` small JPEG files: hard links to ten different ones."""
    photos, links = folder / "photos", folder / f"{count}-files"
    photos.mkdir(exist_ok=True)
    links.mkdir()
    if not any(photos.iterdir()):
        make_photos(photos, 10, (72, 96))
    files = sorted(photos.iterdir())
    for number in range(count):
        (links / f"{number:06d}.jpg").hardlink_to(files[number % len(files)])
    return links
