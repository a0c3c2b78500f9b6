"""Run folders as real runs write them, made without training."""

import json
import math
import os

import numpy as np
import psutil
from PIL import Image

from rotnet_keras.config.loading import parse_override, to_toml
from rotnet_keras.reports.projections import IMAGES_FILE, Projection, write_projection, write_sample_images
from rotnet_keras.reports.samples import write_samples
from rotnet_keras.runs.events import lock
from rotnet_keras.runs.launch import create_run, load_for_run
from rotnet_keras.runs.processes import process_identity

ANGLES = (0, 90, 180, 270)
CLASSES = ("bag", "boot", "coat", "dress", "pullover", "sandal", "shirt", "sneaker")
# The time that the screens of the tests show.
NOW = 1_700_000_000.0
EPOCHS, PER_EPOCH, EVERY = 8, 60, 10


# Open files, whose locks are held as long as the tests run.
_HELD = []


def work_on(run):
    """Hold the lock of a run's events, as the process does that works on it."""
    file = run.events_file.open("ab")
    lock(file, run.events_file)
    _HELD.append(file)


def fake_run(runs_dir, name, *overrides, epochs=EPOCHS, age=3600.0, outcome=None, alive=False, message="", reach=0.95):
    """A run of the quickstart recipe that came so many epochs far.

    With an outcome it has ended; alive, the process of the test itself is taken for its own.
    """
    recipe, facts = load_for_run("quickstart", dict(map(parse_override, overrides)), runs_dir)
    started = NOW - age
    facts |= {
        "created": started,
        **(process_identity(psutil.Process()) if alive else {"pid": 2**22, "since_boot": 1.0}),
        "host": os.uname().nodename,
        "device": "CPU",
        "steps": EPOCHS * PER_EPOCH,
        "steps_per_epoch": PER_EPOCH,
        "inputs_per_step": 256,
    }
    run = create_run(runs_dir, name, to_toml(recipe), facts)
    events = [{"kind": "start", "time": started, "pid": 1}]
    rng = np.random.default_rng(0)
    for step in range(EVERY, epochs * PER_EPOCH + 1, EVERY):
        events += _step(run, step, started + step, reach, rng)
    if outcome == "finished":
        events += _probes(epochs * PER_EPOCH, events[-1]["time"])
    if outcome:
        end = {"kind": "end", "time": events[-1]["time"] + 1, "outcome": outcome, "exit_code": 0, "message": message}
        events.append(end)
    run.events_file.write_text("".join(json.dumps(e, separators=(",", ":")) + "\n" for e in events))
    if alive:
        work_on(run)
    run.log.write_text(
        "10:00:00 Starting TensorFlow; the first step takes longer.\n"
        "10:00:09 Warning: 1 of 900 train files cannot be read and are skipped: broken.jpg\n"
        "Traceback (most recent call last):\n"
        '  File "somewhere.py", line 1, in work\n'
        "ValueError: something went wrong\n"
        "10:00:30 pretraining: 60/480, loss 0.9, accuracy 60.0 %, ETA 3:20\n"
    )
    return run


def _step(run, step, now, reach, rng):
    share = step / (EPOCHS * PER_EPOCH)
    accuracy = 0.25 + (reach - 0.25) * (1 - math.exp(-4 * share))
    loss = 1.45 - 1.3 * (1 - math.exp(-4 * share))
    noise = float(rng.normal(0, 0.02))
    rate = 0.1 * 0.1 ** int(3 * share)
    epoch = step / PER_EPOCH
    yield {
        **{"kind": "step", "time": now, "step": step, "epoch": epoch, "learning_rate": rate},
        **{"images_per_s": 640.0, "data_wait": 0.012, "loss": loss + noise, "accuracy": accuracy - noise},
    }
    if step % (PER_EPOCH // 2) == 0:
        yield _system(now, share)
    if step % PER_EPOCH:
        return
    yield {"kind": "features", "time": now, "step": step, "images": 512, "taps": _taps(share), "seconds": 0.2}
    confusion = [[round(250 * (accuracy if i == j else (1 - accuracy) / 3)) for j in range(4)] for i in range(4)]
    validation = {"loss": loss, "accuracy": accuracy, "confusion": confusion}
    yield {
        **{"kind": "epoch", "time": now, "step": step, "epoch": epoch, "loss": loss, "accuracy": accuracy},
        "validation": validation,
    }
    yield {"kind": "projection", "time": now, "step": step, **_projection(run, step, share)}
    yield {"kind": "samples", "time": now, "step": step, **_samples(run, step, accuracy)}
    yield {"kind": "checkpoint", "time": now, "step": step, "file": f"step-{step:08d}.npz", "best": True}


def _system(now, share):
    """The figures of a machine with one GPU, whose memory fills up as the run goes on."""
    gpu = {"index": 0, "load": 80.0 + 10 * share, "memory": 2**33, "temperature": 60, "power": 250.0}
    return {
        **{"kind": "system", "time": now, "seconds": 30.0, "cpu": 150.0 + 20 * share, "memory": 2**30 * (1 + share)},
        **{"machine_cpu": 90.0, "machine_memory": 2**32, "disk_free": 2**36, "gpus": [gpu]},
    }


def _taps(share):
    """Effective ranks that rise with the share of the run, each in its own way."""
    ranks = (20 + 4 * share, 40 + 25 * share, 45 + 30 * share, 30 + 6 * share)
    return [
        {"tap": f"conv{number}", "channels": 96, "rank": round(rank, 2), "dead": 0.01 * number}
        for number, rank in enumerate(ranks, 1)
    ]


def _images():
    """Images that are brighter towards their top, in 32 colours."""
    ramp = np.linspace(230, 20, 16)[:, None] * np.ones((16, 16))
    upright = np.stack([np.roll(ramp, n, 1) * np.linspace(0.6, 1, 16)[None, :] for n in range(32)])
    colours = np.array([[1.0, 0.5 + n / 64, 1 - n / 40] for n in range(32)])[:, None, None, :]
    return (upright[..., None] * colours).astype(np.uint8)


def _projection(run, step, share):
    """Points that move from the middle to a circle as the run goes on; every ninth image is taken for upside down."""
    angle = np.arange(32) * np.pi / 16
    points = share * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    probabilities = np.full((32, 4, 4), 0.02)
    predicted = np.where(np.arange(32)[:, None] % 9, np.arange(4), (np.arange(4) + 2) % 4)
    np.put_along_axis(probabilities, predicted[..., None], 0.94, axis=2)
    neighbours = (np.arange(32)[:, None] + [1, 31, 2, 30, 3]) % 32
    similarities = np.tile([0.99, 0.98, 0.9, 0.8, 0.7], (32, 1))
    labels = [CLASSES[n // 4] for n in range(32)]
    found = Projection(points, labels, list(ANGLES), probabilities, neighbours, similarities)
    light = np.linspace(0, 1, 64).reshape(8, 8).astype(np.float32)
    attention = np.stack([[np.rot90(light, k) for k in range(4)]] * 32)
    write_sample_images(run, _images())
    files = write_projection(run, step, found, attention)
    return {"tap": "conv2", "split": "validation", "count": 32, "images": IMAGES_FILE, **files, "seconds": 0.1}


def _samples(run, step, accuracy):
    """The images, rotated, with made-up answers."""
    images = _images()
    inputs = np.concatenate([np.rot90(images, k, (1, 2)) for k in range(4)])
    labels = np.repeat(np.arange(4), 32)
    probabilities = np.full((128, 4), (1 - accuracy) / 3)
    probabilities[np.arange(128), np.where(np.arange(128) % 9 == 0, (labels + 2) % 4, labels)] = accuracy
    event = write_samples(run, step, inputs, labels, probabilities, ANGLES)
    name = f"filters-{step:08d}.png"
    tiles = np.random.default_rng(1).integers(0, 255, (7, 63, 3)).astype(np.uint8)
    Image.fromarray(np.kron(tiles, np.ones((8, 8, 1), np.uint8))).save(run.samples / name)
    return event | {"filters": name}


def _probes(step, now):
    for tap, top1 in (("conv1", 0.71), ("conv2", 0.77), ("conv3", 0.75), ("conv4", 0.7)):
        for weights, less in (("rotnet", 0.0), ("random", 0.12)):
            yield {
                **{"kind": "probe", "time": now + 5, "probe": 0, "step": step, "weights": weights, "tap": tap},
                **{"head": "mlp", "labels_per_class": None, "top1": top1 - less, "validation_top1": top1 - less},
                **{"per_class": [top1] * 10, "confusion": [], "seconds": 2.0},
            }


def write_steps(run, count):
    """So many step events, an epoch every thousand, in place of the events the run has."""
    with run.events_file.open("w") as file:
        for step in range(1, count + 1):
            file.write(
                f'{{"kind":"step","time":{step / 10},"step":{step},"epoch":{step / 1000},"loss":{1 / step},'
                '"accuracy":0.5,"learning_rate":0.1,"images_per_s":10.0,"data_wait":0.0}\n'
            )
            if step % 1000 == 0:
                file.write(
                    f'{{"kind":"epoch","time":{step / 10},"step":{step},"epoch":{step / 1000},'
                    '"loss":1.0,"accuracy":0.5}\n'
                )
