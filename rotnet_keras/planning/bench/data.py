"""Measures the input pipeline: images from cached arrays, and from JPEG files decoded at each use."""

import itertools
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from rotnet_keras.config.sections import Augment, Data
from rotnet_keras.data.batches import training_batches
from rotnet_keras.data.datasets import load
from rotnet_keras.data.image_files import FORMATS
from rotnet_keras.data.listing.sources import FolderSource
from rotnet_keras.data.sources import find_source
from rotnet_keras.data.stores import Split
from rotnet_keras.planning.bench.registry import Measurement, Progress, Settings, measurement

CACHED_IMAGES = 50_000
BATCH = 128
# How long each round reads.
ROUND_SECONDS = 3.0
JPEG_FILES = 200
# Height and width of the generated JPEG files, in pixels.
PHOTO_SIZE = (375, 500)
# The paper's ImageNet pipeline: short side 256, a random crop of 224, mirrored or not.
RESIZED_SIDE = 256
CROP_SIDE = 224
# The share of an image's area that crops of random size cover.
CROP_AREA = [0.08, 1.0]


def measure(settings: Settings, progress: Progress) -> list[Measurement]:
    """Measure the images per second of both, and of a plain Pillow loop over the same files on the same cores."""
    pixels = np.random.default_rng(0).integers(0, 256, (CACHED_IMAGES, 32, 32, 3), np.uint8)
    arrays = Split(pixels, np.arange(CACHED_IMAGES), None)
    cached = [_pipeline_rate(arrays, Augment(pad=4, flip=True))[1] for _ in range(settings.rounds)]
    pipeline, per_core, random_crops, pillow = [], [], [], []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(settings.images or made)
        if not settings.images:
            make_photos(folder, JPEG_FILES)
        data = Data(
            name=str(folder), size=RESIZED_SIDE, validation=0.0, cache="none", mean=[127.5] * 3, std=[127.5] * 3
        )
        dataset, whole = load(data), load(data.model_copy(update={"whole": True}))
        source = find_source(data)
        assert isinstance(source, FolderSource)
        files = list(source.splits["train"])
        sizes = float(np.mean([file.stat().st_size for file in files])) / 1e3
        for _ in range(settings.rounds):
            progress.next_round()
            rate, by_processor_time = _pipeline_rate(dataset.train, Augment(crop=CROP_SIDE, flip=True))
            pipeline.append(progress.value("image files", rate, "images/s"))
            per_core.append(by_processor_time)
            random_crops.append(_pipeline_rate(whole.train, Augment(crop=CROP_SIDE, area=CROP_AREA, flip=True))[1])
            pillow.append(_pillow_rate(files))
    name = f"{len(files)} image files: decode, resize to {RESIZED_SIDE}, crop {CROP_SIDE}, flip"
    return [
        measurement("data", "cached 32 x 32 images: pad, crop, flip", cached, "images/s per core"),
        measurement("data", name, pipeline, "images/s"),
        measurement("data", "the same by processor time", per_core, "images/s per core"),
        measurement(
            "data", f"crops of random size to {CROP_SIDE}, flip, by processor time", random_crops, "images/s per core"
        ),
        measurement("data", "mean size of a file", [sizes], "kB"),
        measurement("data", "a plain Pillow loop, same files, same cores", pillow, "images/s"),
        measurement(
            "data", "pipeline relative to the Pillow loop", [a / b for a, b in zip(pipeline, pillow, strict=True)], "x"
        ),
    ]


def make_photos(folder: Path, count: int, size: tuple[int, int] = PHOTO_SIZE) -> None:
    """Write JPEG files that take as long to decode as photographs: noise with a spectrum of 1/frequency, as theirs."""
    rng = np.random.default_rng(0)
    height, width = size
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequencies[0, 0] = 1
    for number in range(count):
        spectrum = np.fft.rfft2(rng.normal(size=(3, height, width))) / frequencies
        planes = np.fft.irfft2(spectrum, (height, width))
        planes = 127 + 50 * planes / planes.std(axis=(1, 2), keepdims=True)
        pixels = np.clip(planes, 0, 255).astype(np.uint8).transpose(1, 2, 0)
        Image.fromarray(pixels).save(folder / f"{number:04d}.jpg", quality=90)


def _pipeline_rate(split: Split, augment: Augment) -> tuple[float, float]:
    """Return the images that the training pipeline delivers per second, and per second of processor time."""
    batches = training_batches(split, augment, batch=BATCH, seed=0, first=0, last=1_000_000)
    iterator = iter(batches)
    next(iterator)
    start, used = time.perf_counter(), time.process_time()
    images = 0
    while time.perf_counter() - start < ROUND_SECONDS:
        images += len(next(iterator))
    return images / (time.perf_counter() - start), images / (time.process_time() - used)


def _pillow_rate(files: list[Path]) -> float:
    """Return the images per second of a simple loop with Pillow, on all cores."""
    rng = np.random.default_rng(0)

    def read(path: Path) -> np.ndarray:
        image = Image.open(path, formats=FORMATS).convert("RGB")
        scale = RESIZED_SIDE / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (int(rng.integers(0, side - CROP_SIDE + 1)) for side in image.size)
        image = image.crop((left, top, left + CROP_SIDE, top + CROP_SIDE))
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(image)

    endless = itertools.cycle(files)
    start, images = time.perf_counter(), 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while time.perf_counter() - start < ROUND_SECONDS:
            images += len(np.stack(list(pool.map(read, itertools.islice(endless, BATCH)))))
    return images / (time.perf_counter() - start)
