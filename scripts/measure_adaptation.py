"""Measures `rotnet-keras predict --adapt` on corrupted test images: the accuracy without and with each adaptation.

The corruptions are the 15 of Hendrycks and Dietterich (2019), by the package `imagecorruptions`, which is installed
beside rotnet-keras: pip install imagecorruptions. Their strengths are those of its ImageNet-C, so for images of 32
pixels they are harder than those of CIFAR-10-C. The test images are those of the run's recipe. A repeated command goes
on where it was:

    rotnet-keras run cifar_labels_and_rotations data.data_dir=DIR --name both
    python scripts/measure_adaptation.py runs/both --work adaptation --severity 5 --severity 3
"""

import json
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import click
import numpy as np
from PIL import Image

from rotnet_keras.config.loading import load_recipe
from rotnet_keras.data.datasets import load
from rotnet_keras.data.values.ranges import known_range
from rotnet_keras.host import python_command
from rotnet_keras.runs.folder import RunFolder

ADAPTATIONS = ("none", "statistics", "rotations")


def corruptions():
    """The function of `imagecorruptions` that corrupts an image, and the names of the 15 corruptions."""
    try:
        import imagecorruptions
        import skimage.filters
        from imagecorruptions import corruptions as module
    except ImportError as error:
        sys.exit(f"{error}: install the package with: pip install imagecorruptions")

    # The package is of 2020; NumPy and scikit-image have renamed two things since then.
    def gaussian(image, sigma, multichannel=False, **options):
        return skimage.filters.gaussian(image, sigma, channel_axis=-1 if multichannel else None, **options)

    module.gaussian = gaussian
    if not hasattr(np, "float_"):
        np.float_ = np.float64
    return imagecorruptions.corrupt, imagecorruptions.get_corruption_names("common")


def write_images(folder, images, labels, classes, change):
    """Write images as PNG files, in a folder for each class; a folder that is there is complete."""
    if folder.exists():
        return
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (part / classes[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(change(image, number)).save(part / classes[label] / f"{number:05}.png")
    part.rename(folder)


def predicted_accuracy(run, folder, table, how):
    """The accuracy of `predict` on a folder, in percent, and what it says of the adaptation."""
    said = table.with_suffix(".txt")
    if not table.exists():
        command = [*python_command("-m", "rotnet_keras", "predict"), run, folder, "--to", table, "--adapt", how]
        result = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
        if result.returncode:
            sys.exit(result.stderr)
        said.write_text("".join(line + "\n" for line in result.stdout.splitlines() if line.startswith("Adapted")))
    rows = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
    correct = [row["label"] == Path(row["file"]).parent.name for row in rows]
    return 100 * float(np.mean(correct)), said.read_text().strip()


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option("--work", type=click.Path(path_type=Path), default=Path("adaptation"), help="Folder of the results.")
@click.option("--severity", "severities", type=click.IntRange(1, 5), multiple=True, default=(5,))
@click.option("--images", "count", type=int, default=10_000, help="Test images, at most.")
def main(run, work, severities, count):
    """Print a table of accuracies for each severity."""
    corrupt, names = corruptions()
    folder = RunFolder(run)
    dataset = load(load_recipe(str(folder.recipe)).data, values=known_range(folder.facts()))
    rows = np.arange(min(count, len(dataset.test)))
    images, labels = dataset.test.images(rows), np.asarray(dataset.test.labels)[rows]
    work.mkdir(exist_ok=True)

    def change_by(name, severity):
        def change(image, number):
            # The corruptions draw from NumPy's global generator.
            np.random.seed(zlib.crc32(f"{name} {severity} {number}".encode()))
            return corrupt(image, corruption_name=name, severity=severity)

        return change

    print(f"{run}: {len(rows):,} test images; accuracy in %\n")
    for severity in (0, *severities):
        found = {}
        print(f"| severity {severity} | {' | '.join(ADAPTATIONS)} |\n| --- |{' ---: |' * len(ADAPTATIONS)}")
        for name in names if severity else ["as they are"]:
            key = f"{name.replace(' ', '_')}-{severity}"
            change = change_by(name, severity) if severity else lambda image, number: image
            write_images(work / key, images, labels, dataset.class_names, change)
            measured = [predicted_accuracy(run, work / key, work / f"{key}-{how}.jsonl", how) for how in ADAPTATIONS]
            found[name] = [accuracy for accuracy, _ in measured]
            print(f"| {name.replace('_', ' ')} | {' | '.join(f'{each:.1f}' for each in found[name])} |", flush=True)
        if severity:
            print(f"| mean | {' | '.join(f'{each:.1f}' for each in np.mean(list(found.values()), axis=0))} |")
        print("\n" + "\n".join(said for _, said in measured if said) + "\n", flush=True)


if __name__ == "__main__":
    main()
