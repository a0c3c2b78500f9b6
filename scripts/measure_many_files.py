#!/usr/bin/env python3
"""Measure what a folder of very many image files costs, for the table in results/scaling.md.

    python scripts/measure_many_files.py FOLDER [--files 1000000]

Makes the files as hard links to a few hundred small ones, once as class folders (`train/CLASS/FILE.jpg`) and once as a
tree without classes, and the same images in tar files of 1,000, and runs commands on them, each in a process of its
own: the seconds it took, the seconds of processor time, and the most memory it had, in bytes for each file above what
the same command takes for few files. "reading" is what a run does before it loads TensorFlow, whose memory hides that
of the files.
"""

import argparse
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from rotnet_keras.config.sections import Data
from rotnet_keras.data.audit import understand
from rotnet_keras.data.folders import read_folder
from rotnet_keras.data.listing.sources import ListedSource
from rotnet_keras.data.sources import find_source
from rotnet_keras.host import python_command

# Ext4 allows 65,000 links to a file.
SOURCES, FILES_PER_FOLDER = 256, 1000
LAYOUTS = ["class folders", "tree", "shards"]
# Of the images in tar files.
CLASSES = 100
RECIPE = """\
kind = "pretrain"
title = "very many files"
[data]
name = "{images}"
size = 32
validation = 0.001
cache = "none"
[backbone]
name = "compact"
blocks = 2
width = 0.25
[train]
steps = {steps}
batch = 64
log_every = 1
"""


def make_files(folder: Path, count: int, layout: str) -> Path:
    """Make a layout with so many images, where it does not exist yet; returns the recipe's `data.name` of it."""
    sources = folder / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(SOURCES):
        if not (file := sources / f"{number}.jpg").exists():
            pixels = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((6, 6, 1))).astype(np.uint8)
            Image.fromarray(pixels).save(file, quality=80)
    if layout == "shards":
        return make_shards(folder / f"shards-{count}", sources, count) / "*.tar"
    root = folder / f"{layout.split()[0]}-{count}"
    for start in range(0, count, FILES_PER_FOLDER):
        number = start // FILES_PER_FOLDER
        in_class = layout == "class folders"
        parts = ("train", f"class{number:05d}") if in_class else (f"{number // 30:03d}", f"{number:05d}")
        target = root.joinpath(*parts)
        if target.is_dir():
            continue
        target.mkdir(parents=True)
        for index in range(start, min(count, start + FILES_PER_FOLDER)):
            os.link(sources / f"{index % SOURCES}.jpg", target / f"{index:07d}.jpg")
    return root


def make_shards(shards: Path, sources: Path, count: int) -> Path:
    """Make tar files of WebDataset with so many images."""
    shards.mkdir(exist_ok=True)
    images = [(sources / f"{number}.jpg").read_bytes() for number in range(SOURCES)]
    for start in range(0, count, FILES_PER_FOLDER):
        target = shards / f"train-{start // FILES_PER_FOLDER:05d}.tar"
        if target.is_file():
            continue
        with tarfile.open(target, "w") as archive:
            for index in range(start, min(count, start + FILES_PER_FOLDER)):
                label = str(start // FILES_PER_FOLDER % CLASSES).encode()
                # Not `TarFile.add`, which would store links, as the files have several names.
                for suffix, content in (("jpg", images[index % SOURCES]), ("cls", label)):
                    member = tarfile.TarInfo(f"{index:07d}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return shards


def measured(words: list[str], cwd: Path, stopped: Path | None = None) -> dict[str, float]:
    """Run a command to its end; its seconds, its seconds of processor time, and its most memory in bytes.

    Args:
        stopped: the folder of a run that is asked to stop after its first step in this process.
    """
    began, since = time.monotonic(), time.time()
    with (cwd / "said.txt").open("wb") as said:
        process = subprocess.Popen(python_command(*words), cwd=cwd, stdout=said, stderr=subprocess.STDOUT)
    while stopped and process.poll() is None and not step_times(stopped, since):
        time.sleep(0.1)
    if stopped:
        process.send_signal(signal.SIGTERM)
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 143):
        raise SystemExit((cwd / "said.txt").read_text()[-3000:])
    seconds = time.monotonic() - began
    return {"seconds": seconds, "processor": used.ru_utime + used.ru_stime, "bytes": 1024 * used.ru_maxrss}


def step_times(run: Path, since: float) -> list[float]:
    """The seconds from a time of day to each step after it that a run has logged."""
    if not (run / "events.jsonl").exists():
        return []
    lines = (run / "events.jsonl").read_text().splitlines(keepends=True)
    events = [json.loads(line) for line in lines if line.endswith("\n")]
    return [e["time"] - since for e in events if e["kind"] == "step" and e["time"] > since]


def measure(images: Path, work: Path, wanted: list[str] | None) -> dict[str, dict[str, float]]:
    """Run all commands, or those that are wanted, on one folder of images."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name, steps in (("first", 2), ("longer", 4), ("stopped", 10_000)):
        (work / f"{name}.toml").write_text(RECIPE.format(images=images, steps=steps))
    program = ["-m", "rotnet_keras"]
    # The last but one is stopped after its first step, and the last goes on with it until the next.
    commands = {
        "init": [*program, "init", str(images), "--output", "made.toml"],
        "run --dry-run": [*program, "run", "first.toml", "--dry-run"],
        "reading, first time": [__file__, str(images), "--read"],
        "reading, second time": [__file__, str(images), "--read"],
        "run, first time": [*program, "run", "first.toml", "--name", "first"],
        "run, second time": [*program, "run", "longer.toml", "--name", "longer"],
        "embed": [*program, "embed", "first", str(images), "--tap", "conv1", "--to", "features.npz"],
        "run, stopped": [*program, "run", "stopped.toml", "--name", "stopped"],
        "resume": [*program, "resume", "stopped"],
    }
    found = {}
    for what, words in commands.items():
        # `embed` reads folders and files of images, no tar files.
        if (wanted and what not in wanted) or (what == "embed" and images.suffix == ".tar"):
            continue
        run = work / "runs" / words[-1]
        began = time.time()
        found[what] = measured(words, work, run if words[-1] == "stopped" else None)
        if times := step_times(run, began):
            found[what]["first step"] = min(times)
    return found


def read(images: str) -> None:
    """Find images, identify them by their contents and read their headers, as the start of a run does."""
    data = Data(name=images, size=32, cache="none")
    source = find_source(data)
    assert isinstance(source, ListedSource)
    understand(data, source)
    read_folder(source, data, source.fingerprint(), {}, lambda what, done, total: None, [])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder for the files; a disk with as many free inodes")
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--layout", choices=LAYOUTS, help="only this one")
    parser.add_argument("--commands", nargs="+", help="only these, as they are called in the table")
    parser.add_argument("--read", action="store_true", help="read FOLDER as a run does, without TensorFlow")
    options = parser.parse_args()
    if options.read:
        read(str(options.folder))
        return
    folder = options.folder.absolute()
    began = time.monotonic()
    chosen = [options.layout] if options.layout else LAYOUTS
    many, few = (
        {layout: make_files(folder, n, layout) for layout in chosen} for n in (options.files, FILES_PER_FOLDER)
    )
    print(f"made the files in {time.monotonic() - began:.0f} s", flush=True)
    os.environ["ROTNET_CACHE_DIR"] = str(folder / "cache")
    print("| layout | command | seconds | to the first step | of processor time | memory | bytes a file |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for layout in chosen:
        base = measure(few[layout], folder / "work", options.commands)
        shutil.rmtree(folder / "cache", ignore_errors=True)
        for command, row in measure(many[layout], folder / "work", options.commands).items():
            each = (row["bytes"] - base[command]["bytes"]) / (options.files - FILES_PER_FOLDER)
            first = f"{row['first step']:.0f}" if "first step" in row else ""
            print(
                f"| {layout} | `{command}` | {row['seconds']:.0f} | {first} | {row['processor']:.0f} "
                f"| {row['bytes'] / 1e6:.0f} MB | {each:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
