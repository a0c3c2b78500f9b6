#!/usr/bin/env python3
"""Gather the photos that `compact5_photos` learned from, in one flat folder:

    python scripts/make_photos.py --tfds DIR --scenes DIR/scenes15 --to photos

From tfds's folder the training part of `imagenet2012` and both halves of `voc/2007`'s trainval, their JPEG files
unchanged, and the training part of 15-Scene (`train/CLASS/*.jpg`). A scene whose pixels are also in the test part
(`test/CLASS/*.jpg`) is left out, so that the test part stays unseen.
"""

import argparse
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


def jpegs(name: str, split: str, folder: Path) -> Iterator[tuple[str, bytes]]:
    """The names and the contents of a data set's files."""
    images = tfds.load(
        name, split=split, data_dir=folder, download=False, decoders={"image": tfds.decode.SkipDecoding()}
    )
    for example in tfds.as_numpy(images):
        file = example["file_name"] if "file_name" in example else example["image/filename"]
        yield file.decode(), example["image"]


def pixels_of(file: Path) -> str:
    with Image.open(file) as image:
        return hashlib.sha256(np.asarray(image).tobytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tfds", type=Path, required=True, help="tfds's folder")
    parser.add_argument("--scenes", type=Path, required=True, help="the folder of 15-Scene's train and test")
    parser.add_argument("--to", type=Path, required=True, help="a new folder")
    chosen = parser.parse_args()
    chosen.to.mkdir()
    for name, split in (("imagenet2012", "train"), ("voc/2007", "train+validation")):
        for file, content in jpegs(name, split, chosen.tfds):
            (chosen.to / f"{name.split('/')[0]}_{Path(file).name}").with_suffix(".jpg").write_bytes(content)
    unseen = {pixels_of(file) for file in chosen.scenes.glob("test/*/*.jpg")}
    for file in sorted(chosen.scenes.glob("train/*/*.jpg")):
        if pixels_of(file) not in unseen:
            shutil.copyfile(file, chosen.to / f"scene_{file.parent.name}_{file.name}")
    print(f"{chosen.to}: {len(list(chosen.to.iterdir())):,} photos")


if __name__ == "__main__":
    main()
