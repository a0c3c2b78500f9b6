#!/usr/bin/env python3
"""Measures how well classifiers find images unlike those of their training: AUROC by score, over several runs.

Each run is a classifier of CIFAR-10 that learned rotations beside its labels. 2,000 test images of CIFAR-10 are the
usual ones. The unusual ones are textures (tfds's `dtd`), photos (tfds's `imagenet2012`, its validation images), scenes
(a folder) and the clothes that ship with the package, as RGB images. A repeated command goes on where it was:

    for seed in 0 1 2; do
      rotnet-keras run cifar_labels_and_rotations seed=$seed data.data_dir=DIR --name both-$seed
    done
    python scripts/measure_anomalies.py runs/both-0 runs/both-1 runs/both-2 --data-dir DIR --scenes scenes15/test
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from rotnet_keras.config.sections import Data
from rotnet_keras.data.datasets import load
from rotnet_keras.host import python_command

USUAL, MOST_PHOTOS = 2000, 2000
# Of `rotnet-keras anomalies`; that of the classes is one minus the highest probability.
SCORES = ("classes", "rotations", "both")


def write_images(folder, images):
    """Write images as PNG files into a new folder; one that is there is complete."""
    if folder.exists():
        return
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(part / f"{number:05}.png")
    part.rename(folder)


def tfds_images(name, split, data_dir):
    """The images of a data set of TensorFlow Datasets."""
    found = tfds.load(name, split=split, data_dir=data_dir, download=False, try_gcs=False)
    return (record["image"] for record in tfds.as_numpy(found))


def clothes():
    """The test images of `fashion_mini` in three equal channels."""
    images = load(Data(name="fashion_mini")).test
    return np.repeat(images.images(np.arange(len(images))), 3, axis=3)


def auroc(run, usual, unusual, score, file):
    """The AUROC of `rotnet-keras anomalies`."""
    if not file.exists():
        options = ["--against", unusual, "--score", score, "--json"]
        command = [*python_command("-m", "rotnet_keras", "anomalies"), run, usual, *options]
        result = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
        if result.returncode:
            sys.exit(result.stderr)
        file.write_text(json.dumps(json.loads(result.stdout)["auroc"]))
    return float(json.loads(file.read_text()))


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--data-dir", required=True, help="Folder of prepared TensorFlow Datasets.")
@click.option("--scenes", required=True, type=click.Path(exists=True, path_type=Path), help="Folder of scenes.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("anomalies"), help="Folder of the results.")
def main(runs, data_dir, scenes, work):
    """Print a table of AUROC: a row for each kind of unusual images, a column for each score."""
    work.mkdir(exist_ok=True)
    write_images(work / "cifar10", tfds_images("cifar10", f"test[:{USUAL}]", data_dir))
    write_images(work / "textures", tfds_images("dtd", "test", data_dir))
    write_images(work / "photos", tfds_images("imagenet2012", f"validation[:{MOST_PHOTOS}]", data_dir))
    write_images(work / "clothes", clothes())
    kinds = {"textures": work / "textures", "photos": work / "photos", "scenes": scenes, "clothes": work / "clothes"}
    print(f"{len(runs)} runs; mean and standard deviation of the AUROC\n")
    print(f"| unusual | {' | '.join(SCORES)} |\n| --- |{' ---: |' * len(SCORES)}")
    for kind, folder in kinds.items():
        cells = []
        for score in SCORES:
            found = [
                auroc(run, work / "cifar10", folder, score, work / f"{run.name}-{kind}-{score}.json") for run in runs
            ]
            spread = f" ± {np.std(found, ddof=1):.3f}" if len(found) > 1 else ""
            cells.append(f"{np.mean(found):.3f}{spread}")
        print(f"| {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
