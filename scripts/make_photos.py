#!/usr/bin/env python3
"""Gather the photos that `airbench4_photos` learned from, in one flat folder, and photos that it has not seen:

    python scripts/make_photos.py --tfds DIR --scenes DIR/scenes15 --voc2012 DIR/VOC2012 --to photos --unseen unseen

`photos` gets the training part of `imagenet2012`, both halves of `voc/2007`'s trainval, their JPEG files unchanged, and
the training part of 15-Scene (`train/CLASS/*.jpg`). Of ImageNet's classes that occur, every tenth is left out. A scene
whose pixels are also in the test part (`test/CLASS/*.jpg`) is left out, so that the test part stays unseen.

`unseen` gets folders of photos that are not learned from:

- `other_classes` and `same_classes`: the validation part of `imagenet2012`, of the classes left out and of the others,
- `voc2007`: the test part of `voc/2007`,
- `voc2012`: the photos of VOC 2012 that are in no part of `voc/2007`: no photo there has a grey thumbnail of 32 x 32
  pixels with a correlation of 0.9 or more.
"""

import argparse
import hashlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

# The side of thumbnails, and the correlation from which on two of them show one photo.
THUMBNAIL, SAME = 32, 0.9
# Of the classes of ImageNet that occur, in the order of their numbers, each of this many is left out.
HELD_OUT = 10


def jpegs(name: str, split: str, folder: Path) -> Iterator[tuple[str, bytes, int | None]]:
    """The names and the contents of a data set's files, with their classes if each has one."""
    images = tfds.load(
        name, split=split, data_dir=folder, download=False, decoders={"image": tfds.decode.SkipDecoding()}
    )
    for example in tfds.as_numpy(images):
        file = example["file_name"] if "file_name" in example else example["image/filename"]
        yield Path(file.decode()).name, example["image"], int(example["label"]) if "label" in example else None


def pixels_of(file: Path) -> str:
    with Image.open(file) as image:
        return hashlib.sha256(np.asarray(image).tobytes()).hexdigest()


def thumbnail(content: bytes) -> np.ndarray:
    """The grey levels of a small copy, of mean 0 and length 1."""
    with Image.open(io.BytesIO(content)) as image:
        levels = np.asarray(image.convert("L").resize((THUMBNAIL, THUMBNAIL)), np.float64).ravel()
    levels -= levels.mean()
    return levels / (np.linalg.norm(levels) or 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tfds", type=Path, required=True, help="tfds's folder")
    parser.add_argument("--scenes", type=Path, required=True, help="the folder of 15-Scene's train and test")
    parser.add_argument("--voc2012", type=Path, required=True, help="the folder of VOC 2012, with JPEGImages in it")
    parser.add_argument("--to", type=Path, required=True, help="a new folder, for the photos to learn from")
    parser.add_argument("--unseen", type=Path, required=True, help="a new folder, for photos that are not learned from")
    chosen = parser.parse_args()
    folders = {part: chosen.unseen / part for part in ("same_classes", "other_classes", "voc2007", "voc2012")}
    for folder in (chosen.to, chosen.unseen, *folders.values()):
        folder.mkdir()
    validation = list(jpegs("imagenet2012", "validation", chosen.tfds))
    held_out = set(sorted({label for _, _, label in validation if label is not None})[HELD_OUT - 1 :: HELD_OUT])
    for file, content, label in validation:
        folder = folders["other_classes" if label in held_out else "same_classes"]
        (folder / file).with_suffix(".jpg").write_bytes(content)
    for file, content, label in jpegs("imagenet2012", "train", chosen.tfds):
        if label not in held_out:
            (chosen.to / f"imagenet2012_{file}").with_suffix(".jpg").write_bytes(content)
    known = []
    for split in ("train", "validation", "test"):
        for file, content, _ in jpegs("voc/2007", split, chosen.tfds):
            place = folders["voc2007"] / file if split == "test" else chosen.to / f"voc_{file}"
            place.with_suffix(".jpg").write_bytes(content)
            known.append(thumbnail(content))
    for path in sorted((chosen.voc2012 / "JPEGImages").glob("*.jpg")):
        if (np.stack(known) @ thumbnail(path.read_bytes())).max() < SAME:
            shutil.copyfile(path, folders["voc2012"] / path.name)
    unseen = {pixels_of(file) for file in chosen.scenes.glob("test/*/*.jpg")}
    for file in sorted(chosen.scenes.glob("train/*/*.jpg")):
        if pixels_of(file) not in unseen:
            shutil.copyfile(file, chosen.to / f"scene_{file.parent.name}_{file.name}")
    for folder in (chosen.to, *folders.values()):
        print(f"{folder}: {len(list(folder.iterdir())):,} photos")


if __name__ == "__main__":
    main()
