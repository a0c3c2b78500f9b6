#!/usr/bin/env python3
"""Measure the commands on folders of images with many of them, for the table in results/scaling.md.

    python scripts/measure_image_commands.py FOLDER [--files 100000]

Makes as many different JPEG files of 48 x 48 pixels, and copies of one in a hundred of them, mirrored and encoded anew.
`embed`, `predict`, `select` and `duplicates` run on them, each in a process of its own: the seconds, the most memory,
and what each image adds to it beyond that of 1,000 images. A command that takes more than a minute is stopped with
Ctrl-C after a minute and repeated; its two parts stand apart.
"""

import argparse
import csv
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from rotnet_keras.host import python_command

FEW, FILES_PER_FOLDER, COPIES = 1000, 1000, 100
STOPPED_AFTER = 60.0
MODEL = "airbench4_photos"
# A classifier of any origin: `predict` takes as long for one of ours with the same layers.
CLASSIFIER = """
import keras
layers = keras.layers
keras.utils.set_random_seed(0)
keras.Sequential([
    keras.Input((32, 32, 3)), layers.Rescaling(1 / 255), layers.Conv2D(16, 3, 2, activation="relu"),
    layers.GlobalAveragePooling2D(), layers.Dense(10, activation="softmax"),
]).save("classifier.keras")
"""


@dataclass(frozen=True)
class Ended:
    """What a command took: its exit status, its seconds, those of processor time, and its most memory in bytes."""

    status: int
    seconds: float
    processor: float
    memory: int


def make_files(root: Path, count: int) -> Path:
    """Make so many files where they do not exist yet; images of smooth random colours."""
    for first in range(0, count, FILES_PER_FOLDER):
        target = root / f"{first // FILES_PER_FOLDER:03d}"
        if target.is_dir():
            continue
        target.mkdir(parents=True)
        for number in range(first, min(count, first + FILES_PER_FOLDER)):
            small = np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)
            image = Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC)
            image.save(target / f"{number:07d}.jpg", quality=90)
            if number % COPIES == 0:
                image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(target / f"{number:07d}-copy.jpg", quality=70)
    return root


def ended(words: list[str], cwd: Path, stop_after: float | None = None) -> Ended:
    """Run a command to its end, or stop it with Ctrl-C after some seconds."""
    began = time.monotonic()
    with (cwd / "said.txt").open("wb") as said:
        process = subprocess.Popen(python_command("-m", "rotnet_keras", *words), cwd=cwd, stdout=said, stderr=said)
    stopped = False
    while not (ending := os.wait4(process.pid, os.WNOHANG))[0]:
        if not stopped and stop_after and time.monotonic() - began > stop_after:
            process.send_signal(signal.SIGINT)
            stopped = True
        time.sleep(0.05)
    _, status, used = ending
    code = os.waitstatus_to_exitcode(status)
    if code and not stopped:
        raise SystemExit((cwd / "said.txt").read_text()[-3000:])
    seconds, processor = time.monotonic() - began, used.ru_utime + used.ru_stime
    return Ended(code, seconds, processor, 1024 * used.ru_maxrss)


def commands(images: Path) -> dict[str, tuple[list[str], str]]:
    """The words of each command, and the file that it writes."""
    classes = ["--classes", "classes.txt"]
    return {
        "embed": (["embed", MODEL, str(images), "--to", "features.npz"], "features.npz"),
        "predict": (
            ["predict", "classifier.keras", str(images), *classes, "--to", "predictions.csv"],
            "predictions.csv",
        ),
        "select": (["select", "features.npz", "--count", "100", "--to", "labels.csv"], "labels.csv"),
        "duplicates": (["duplicates", str(images), "--to", "duplicates.csv"], "duplicates.csv"),
    }


def main() -> None:
    """Print a row of the table for each command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder for the files")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--commands", nargs="+", help="only these; `select` needs the file of `embed`")
    options = parser.parse_args()
    folder = options.folder.absolute()
    few, many = (make_files(folder / f"images-{count}", count) for count in (FEW, options.files))
    (folder / "classes.txt").write_text("".join(f"class {number}\n" for number in range(10)))
    subprocess.run(python_command("-c", CLASSIFIER), cwd=folder, check=True)
    print("| command | seconds | of processor time | memory | bytes an image |")
    print("| --- | ---: | ---: | ---: | ---: |", flush=True)
    base = {}
    for images in (few, many):
        for name, (words, written) in commands(images).items():
            if options.commands and name not in options.commands:
                continue
            (folder / written).unlink(missing_ok=True)
            parts = [ended(words, folder, STOPPED_AFTER)]
            if parts[0].status:
                parts.append(ended(words, folder))
            memory = max(part.memory for part in parts)
            if images is few:
                base[name] = memory
                continue
            seconds, processor = (
                " + ".join(f"{getattr(part, each):.0f}" for part in parts) for each in ("seconds", "processor")
            )
            each = (memory - base[name]) / (options.files - FEW)
            print(f"| `{name}` | {seconds} | {processor} | {memory / 1e6:.0f} MB | {each:.0f} |", flush=True)
    if (folder / "duplicates.csv").exists():
        rows = list(csv.DictReader((folder / "duplicates.csv").open()))
        wrong = sum(len({Path(row["file"]).name[:7] for row in rows if row["group"] == group}) > 1
                    for group in {row["group"] for row in rows})  # fmt: skip
        print(f"{len({row['group'] for row in rows}):,} groups of duplicates, {wrong} of them wrong")


if __name__ == "__main__":
    main()
