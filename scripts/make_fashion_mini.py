#!/usr/bin/env python3
"""Write `rotnet_keras/data/fashion_mini.npz` from the Fashion-MNIST IDX files.

The files come with Debian's package `dataset-fashion-mnist`:

    apt-get install dataset-fashion-mnist
    python scripts/make_fashion_mini.py

The result is class-balanced (500 training and 100 test images for each of the 10 classes: the first of
each class in file order, kept in file order) and the same to the byte on every machine with the same zlib.
"""

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np

SOURCE = Path("/usr/share/datasets/fashion-mnist")
TARGET = Path(__file__).parent.parent / "rotnet_keras" / "data" / "fashion_mini.npz"
CLASS_NAMES = [
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
]
PER_CLASS = {"train": 500, "t10k": 100}


def read_idx(path: Path) -> np.ndarray:
    """The array in a gzipped IDX file of unsigned bytes."""
    raw = gzip.decompress(path.read_bytes())
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", count=rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def subset(part: str) -> tuple[np.ndarray, np.ndarray]:
    """The first images of every class: (N, 28, 28, 1) uint8 and (N,) uint8."""
    images = read_idx(SOURCE / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(SOURCE / f"{part}-labels-idx1-ubyte.gz")
    first = [np.flatnonzero(labels == c)[: PER_CLASS[part]] for c in range(10)]
    keep = np.sort(np.concatenate(first))
    return images[keep][..., None], labels[keep]


def main() -> None:
    x_train, y_train = subset("train")
    x_test, y_test = subset("t10k")
    arrays = {
        "x_train": x_train,
        "y_train": y_train,
        "x_test": x_test,
        "y_test": y_test,
        "class_names": np.array(CLASS_NAMES),
    }
    # np.savez stamps each member with the time of day; a fixed date keeps the file reproducible.
    with zipfile.ZipFile(TARGET, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, np.ascontiguousarray(array), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.getvalue(), compresslevel=9)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes, {len(x_train)} + {len(x_test)} images")


if __name__ == "__main__":
    main()
