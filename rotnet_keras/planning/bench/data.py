"""What the input pipeline delivers: cached arrays, and JPEG files decoded at each use."""

import itertools
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from rotnet_keras.config.sections import Augment, Data
from rotnet_keras.data.batches import training_images
from rotnet_keras.data.datasets import load
from rotnet_keras.data.sources import FolderSource, find_source
from rotnet_keras.data.stores import Split
from rotnet_keras.planning.bench.registry import Measurement, Settings, measured

ARRAYS = 50_000
BATCH = 128
SECONDS = 3.0
FILES = 200
PHOTO = (375, 500)
# The paper's ImageNet pipeline: short side 256, a random crop of 224, mirrored or not.
RESIZED, CROP = 256, 224
# Shares of an image that crops of random size cover.
AREA = [0.08, 1.0]


def measure(settings: Settings) -> list[Measurement]:
    """Images/s of both, and of a plain loop of Pillow over the same files on the same cores."""
    pixels = np.random.default_rng(0).integers(0, 256, (ARRAYS, 32, 32, 3), np.uint8)
    arrays = Split(pixels, np.arange(ARRAYS), None)
    cached = [_delivered(arrays, Augment(pad=4, flip=True))[1] for _ in range(settings.rounds)]
    ours, a_core, parts, plain = [], [], [], []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(settings.images or made)
        if not settings.images:
            make_photos(folder, FILES)
        data = Data(name=str(folder), size=RESIZED, validation=0.0, cache="none", mean=[127.5] * 3, std=[127.5] * 3)
        dataset, whole = load(data), load(data.model_copy(update={"whole": True}))
        source = find_source(data)
        assert isinstance(source, FolderSource)
        files = list(source.splits["train"])
        sizes = float(np.mean([file.stat().st_size for file in files])) / 1e3
        for _ in range(settings.rounds):
            rate, by_processor = _delivered(dataset.train, Augment(crop=CROP, flip=True))
            ours.append(rate)
            a_core.append(by_processor)
            parts.append(_delivered(whole.train, Augment(crop=CROP, area=AREA, flip=True))[1])
            plain.append(_plain_loop(files))
    what = f"{len(files)} image files: decode, resize to {RESIZED}, crop {CROP}, flip"
    return [
        measured("data", "cached 32 x 32 images: pad, crop, flip", cached, "images/s a core"),
        measured("data", what, ours, "images/s"),
        measured("data", "the same by processor time", a_core, "images/s a core"),
        measured("data", f"crops of random size to {CROP}, flip, by processor time", parts, "images/s a core"),
        measured("data", "size of a file, on average", [sizes], "kB"),
        measured("data", "a plain loop of Pillow, same files, same cores", plain, "images/s"),
        measured("data", "the pipeline against the loop", [a / b for a, b in zip(ours, plain, strict=True)], "x"),
    ]


def make_photos(folder: Path, count: int, size: tuple[int, int] = PHOTO) -> None:
    """Write JPEG files that cost as much to decode as photographs: noise of the spectrum that those have."""
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


def _delivered(split: Split, augment: Augment) -> tuple[float, float]:
    """Images that the training pipeline delivers in a second, and in a second of processor time."""
    batches = training_images(split, augment, batch=BATCH, seed=0, first=0, last=1_000_000)
    iterator = iter(batches)
    next(iterator)
    start, used = time.perf_counter(), time.process_time()
    images = 0
    while time.perf_counter() - start < SECONDS:
        images += len(next(iterator))
    return images / (time.perf_counter() - start), images / (time.process_time() - used)


def _plain_loop(files: list[Path]) -> float:
    """Images/s of what anyone would write with Pillow, on all cores."""
    rng = np.random.default_rng(0)

    def read(path: Path) -> np.ndarray:
        image = Image.open(path).convert("RGB")
        scale = RESIZED / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (int(rng.integers(0, side - CROP + 1)) for side in image.size)
        image = image.crop((left, top, left + CROP, top + CROP))
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(image)

    endless = itertools.cycle(files)
    start, images = time.perf_counter(), 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while time.perf_counter() - start < SECONDS:
            images += len(np.stack(list(pool.map(read, itertools.islice(endless, BATCH)))))
    return images / (time.perf_counter() - start)
