"""Measures `rotnet-keras duplicates` on copies of photos, each with one change, beside a perceptual hash.

For each change apart: recall, the share of the copies that are found with their original, and how many pairs of images
that do not belong together are reported. The perceptual hash is imagehash's `phash` of 64 bits, and needs imagehash:

    python scripts/measure_duplicates.py photos --count 300 --to copies

How many images of one folder the hash finds in another, and with how many pairs, beside `duplicates --between`:

    rotnet-keras duplicates --between cifar10/train cifar10/test --to leaks.csv --page leaks.html
    python scripts/measure_duplicates.py --leaks leaks.csv cifar10/train cifar10/test
"""

import argparse
import csv
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from rotnet_keras.inference.duplicates import describe_files, near_pairs, read_descriptions
from rotnet_keras.inference.loading import list_image_files
from rotnet_keras.inference.partial_results import PartialResults
from rotnet_keras.models.export import load
from rotnet_keras.runs.exports.backbone_file import default_tap
from rotnet_keras.runs.zoo import find_pretrained

MODEL = "airbench4_photos"
# Bits of the hash in which duplicates may differ; 10 is what its documentation and users name most.
BITS = (4, 10)


def cropped(image, share, rng):
    """A crop of the same shape at a random place."""
    width, height = (int(length * share) for length in image.size)
    left, top = int(rng.integers(0, image.width - width + 1)), int(rng.integers(0, image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


CHANGES = {
    "half the size": lambda image, rng: image.resize((image.width // 2, image.height // 2)),
    "JPEG of quality 30": lambda image, rng: image,
    "30 % brighter": lambda image, rng: ImageEnhance.Brightness(image).enhance(1.3),
    "30 % darker": lambda image, rng: ImageEnhance.Brightness(image).enhance(0.7),
    "crop of 95 %": lambda image, rng: cropped(image, 0.95, rng),
    "crop of 90 %": lambda image, rng: cropped(image, 0.9, rng),
    "crop of 80 %": lambda image, rng: cropped(image, 0.8, rng),
    "mirrored": lambda image, rng: ImageOps.mirror(image),
    "rotated by 90 degrees": lambda image, rng: image.transpose(Image.Transpose.ROTATE_90),
    "rotated by 180 degrees": lambda image, rng: image.transpose(Image.Transpose.ROTATE_180),
}


def main():
    """Print a table with a row for each change."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--leaks", type=Path, help="what `duplicates --between` wrote")
    parser.add_argument("--count", type=int, default=300, help="photos to copy")
    parser.add_argument("--reported", type=int, help="report the last of them only; others chose the thresholds")
    parser.add_argument("--to", type=Path, help="an empty folder for the copies")
    options = parser.parse_args()
    if options.leaks:
        compare_leaks(options.leaks, *options.photos)
        return
    rng = np.random.default_rng(0)
    files = list_image_files(options.photos)
    files = [files[row] for row in np.sort(rng.permutation(len(files))[: options.count])]
    copies = {}
    for change, function in CHANGES.items():
        folder = options.to / change.replace(" ", "_").replace("%", "percent")
        folder.mkdir(parents=True, exist_ok=True)
        copies[change] = [folder / f"{number:04}.jpg" for number in range(len(files))]
        for file, copy in zip(files, copies[change], strict=True):
            if copy.exists():
                continue
            image = function(Image.open(file).convert("RGB"), rng)
            image.save(copy, quality=30 if "JPEG" in change else 90)
    every = [*files, *(copy for each in copies.values() for copy in each)]
    backbone, path = load(MODEL), find_pretrained(MODEL).backbone
    tap = default_tap(path, [layer.name for layer in backbone.layers])
    with PartialResults(options.to / "measured.csv", {"command": "measure"}) as kept:
        describe_files(backbone, tap, kept.remaining(every), kept, lambda what, done, total: print(done, end=" "))
        rows, vectors, greys, _ = read_descriptions(kept)
    hashes = {file: imagehash.phash(Image.open(file)).hash.ravel() for file in every}
    if options.reported:
        files = files[-options.reported :]
        copies = {change: each[-options.reported :] for change, each in copies.items()}
    count = len(files)
    originals = [rows[str(file)] for file in files]
    print(f"\n\n{count} photos of {options.photos[0]}, tap {tap}\n")
    print("| change | ours: found, % | false pairs | precision, % |", end="")
    print("".join(f" phash, {bits} bits: found, % | false pairs | precision, % |" for bits in BITS))
    print("| --- |" + " ---: | ---: | ---: |" * (1 + len(BITS)))
    for change, made in copies.items():
        part = np.array([*originals, *(rows[str(copy)] for copy in made)])
        pairs = [(first, second) for first, second, _ in near_pairs(vectors[part], greys[part])]
        found = [counted(pairs, count)]
        bits = np.stack([hashes[file] for file in [*files, *made]]).astype(np.float32)
        different = bits @ (1 - bits).T + (1 - bits) @ bits.T
        for least in BITS:
            first, second = np.nonzero(np.triu(different <= least, 1))
            found.append(counted(zip(first.tolist(), second.tolist(), strict=True), count))
        print(f"| {change} | " + " | ".join(found) + " |", flush=True)


def compare_leaks(leaks, train, test):
    """Print how many test images ours and the hash find in the training images, and what they share."""
    with leaks.open(newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["part"] == "test"]
    ours = {row["file"] for row in rows}
    hashes, names = {}, {}
    for part, folder in (("train", train), ("test", test)):
        files = list_image_files([folder])
        hashes[part] = np.stack([imagehash.phash(Image.open(file)).hash.ravel() for file in files]).astype(np.float32)
        names[part] = np.array([str(file) for file in files])
    print(f"ours: {len(ours)} test images")
    found, pairs = {bits: set() for bits in BITS}, dict.fromkeys(BITS, 0)
    for start in range(0, len(names["test"]), 500):
        part = hashes["test"][start : start + 500]
        different = part @ (1 - hashes["train"]).T + (1 - part) @ hashes["train"].T
        for bits in BITS:
            near = different <= bits
            pairs[bits] += int(near.sum())
            found[bits] |= set(names["test"][start : start + 500][near.any(axis=1)])
    for bits in BITS:
        shared = len(ours & found[bits])
        print(f"phash, {bits} bits: {len(found[bits])} test images in {pairs[bits]} pairs, {shared} of them also ours")


def counted(pairs, count):
    """The share of the originals that are paired with their copy, the other pairs, and the precision."""
    pairs = list(pairs)
    right = sum(second - first == count for first, second in pairs)
    precision = f"{100 * right / len(pairs):.1f}" if pairs else "none found"
    return f"{100 * right / count:.1f} | {len(pairs) - right} | {precision}"


if __name__ == "__main__":
    main()
