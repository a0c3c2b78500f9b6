#!/usr/bin/env python3
"""Measure what a folder of very many image files costs, for the table in results/scaling.md.

    python scripts/measure_many_files.py FOLDER [--files 1000000]

Makes the files as hard links to a few hundred small ones, once as class folders (`train/CLASS/FILE.jpg`) and once as a
tree without classes, and the same images in tar files of 1,000, and runs commands on them, each in a process of its
own: the seconds it took, the seconds of processor time, and the most memory it had, in bytes for each file above what
the same command takes for few files.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

# Ext4 allows 65,000 links to a file.
SOURCES, FILES_PER_FOLDER = 256, 1000
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


def make_files(folder: Path, count: int) -> dict[str, Path]:
    """Make all layouts with so many images each, where they do not exist yet."""
    layouts = {"class folders": folder / f"classes-{count}", "tree": folder / f"tree-{count}"}
    shards = folder / f"shards-{count}"
    sources = folder / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(SOURCES):
        if not (file := sources / f"{number}.jpg").exists():
            pixels = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((6, 6, 1))).astype(np.uint8)
            Image.fromarray(pixels).save(file, quality=80)
    for name, root in layouts.items():
        for start in range(0, count, FILES_PER_FOLDER):
            number = start // FILES_PER_FOLDER
            parts = (
                ("train", f"class{number:05d}") if name == "class folders" else (f"{number // 30:03d}", f"{number:05d}")
            )
            target = root.joinpath(*parts)
            if target.is_dir():
                continue
            target.mkdir(parents=True)
            for index in range(start, min(count, start + FILES_PER_FOLDER)):
                os.link(sources / f"{index % SOURCES}.jpg", target / f"{index:07d}.jpg")
    shards.mkdir(exist_ok=True)
    for start in range(0, count, FILES_PER_FOLDER):
        target = shards / f"train-{start // FILES_PER_FOLDER:05d}.tar"
        if target.is_file():
            continue
        with tarfile.open(target, "w") as archive:
            for index in range(start, min(count, start + FILES_PER_FOLDER)):
                archive.add(sources / f"{index % SOURCES}.jpg", f"{index:07d}.jpg")
                label = tarfile.TarInfo(f"{index:07d}.cls")
                content = str(start // FILES_PER_FOLDER % CLASSES).encode()
                label.size = len(content)
                archive.addfile(label, io.BytesIO(content))
    return layouts | {"shards": shards / "*.tar"}


def measured(words: list[str], cwd: Path) -> dict[str, float]:
    """Run a command to its end; its seconds, its seconds of processor time, and its most memory in bytes."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "rotnet_keras", *words], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, 143):
        raise SystemExit(said.decode()[-3000:])
    seconds = time.monotonic() - began
    return {"seconds": seconds, "processor": used.ru_utime + used.ru_stime, "bytes": 1024 * used.ru_maxrss}


def first_step(run: Path, since: float) -> float:
    """The seconds from a time of day to the first step after it that a run has logged."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return min(e["time"] for e in events if e["kind"] == "step" and e["time"] > since) - since


def measure(images: Path, work: Path, wanted: list[str] | None) -> dict[str, dict[str, float]]:
    """Run all commands, or those that are wanted, on one folder of images."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name, steps in (("first", 2), ("longer", 4)):
        (work / f"{name}.toml").write_text(RECIPE.format(images=images, steps=steps))
    commands = {
        "init": ["init", str(images), "--output", "made.toml"],
        "run --dry-run": ["run", "first.toml", "--dry-run"],
        "run, first time": ["run", "first.toml", "--name", "first"],
        "run, second time": ["run", "longer.toml", "--name", "longer"],
    }
    found = {}
    for what, words in commands.items():
        if wanted and what not in wanted:
            continue
        began = time.time()
        found[what] = measured(words, work)
        if "--name" in words:
            found[what]["first step"] = first_step(work / "runs" / words[-1], began)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder for the files; a disk with as many free inodes")
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--layout", choices=["class folders", "tree", "shards"], help="only this one")
    parser.add_argument("--commands", nargs="+", help="only these, as they are called in the table")
    options = parser.parse_args()
    folder = options.folder.absolute()
    began = time.monotonic()
    layouts = make_files(folder, options.files)
    few = make_files(folder, FILES_PER_FOLDER)
    print(f"made the files in {time.monotonic() - began:.0f} s", flush=True)
    os.environ["ROTNET_CACHE_DIR"] = str(folder / "cache")
    print("| layout | command | seconds | to the first step | of processor time | memory | bytes a file |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for layout in [options.layout] if options.layout else list(layouts):
        base = measure(few[layout], folder / "work", options.commands)
        shutil.rmtree(folder / "cache", ignore_errors=True)
        for command, row in measure(layouts[layout], folder / "work", options.commands).items():
            each = (row["bytes"] - base[command]["bytes"]) / (options.files - FILES_PER_FOLDER)
            first = f"{row['first step']:.0f}" if "first step" in row else ""
            print(
                f"| {layout} | `{command}` | {row['seconds']:.0f} | {first} | {row['processor']:.0f} "
                f"| {row['bytes'] / 1e6:.0f} MB | {each:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
