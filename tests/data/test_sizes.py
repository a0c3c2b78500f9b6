import struct
import zipfile

import numpy as np
import pytest
from PIL import Image
from support.tiny import shared_data, upright_images

from rotnet_keras.config.sections import Data, Splits
from rotnet_keras.data.datasets import load
from rotnet_keras.data.sizes import count_training_images
from rotnet_keras.errors import DataError


def arrays(**counts):
    """Images of these counts by the name of their array; labels where the name says so."""
    return {
        name: upright_images(count, size=8)["labels" in name or name.startswith("y")] for name, count in counts.items()
    }


def save_images(folder, count):
    folder.mkdir(parents=True)
    for n, pixels in enumerate(upright_images(count, size=8)[0]):
        Image.fromarray(pixels).save(folder / f"{n}.png")


@pytest.mark.parametrize(
    ("counts", "left"),
    [
        ({"x_train": 50}, 40),
        ({"x_train": 50, "y_train": 50}, 30),
        ({"x_train": 50, "y_train": 50, "x_test": 9, "y_test": 9}, 40),
        ({"images": 50, "labels": 50, "x_val": 9, "y_val": 9}, 40),
        ({"train_images": 50, "train_labels": 50, "x_val": 9, "y_val": 9, "x_test": 9, "y_test": 9}, 50),
        ({"x_train": 50, "y_train": 50, "x": 20}, 30),
    ],
)
def test_arrays_are_counted_as_they_are_read(tmp_path, counts, left):
    np.savez(tmp_path / "a.npz", **arrays(**counts))
    data = Data(name=str(tmp_path / "a.npz"), validation=0.2)
    assert count_training_images(data) == left == len(load(data).train)


def test_the_data_that_come_with_the_package():
    assert count_training_images(Data(name="fashion_mini")) == 4500


@pytest.mark.parametrize(("folders", "left"), [(("a", "b"), 12), (("train/a", "train/b", "test/a"), 16), (("a",), 8)])
def test_folders_are_counted_as_they_are_read(tmp_path, folders, left):
    for folder in folders:
        save_images(tmp_path / "photos" / folder, 10)
    data = Data(name=str(tmp_path / "photos"), size=8, validation=0.2)
    assert count_training_images(data) == left == len(load(data).train)


def test_tfds_is_counted_from_what_it_states():
    assert count_training_images(Data(name="cifar10", data_dir=str(shared_data("tfds")), validation=0.04)) == 48_000


def test_a_slice_of_a_tfds_split_is_not_guessed_at():
    data = Data(name="cifar10", data_dir=str(shared_data("tfds")), splits=Splits(train="train[:90%]"))
    assert count_training_images(data) is None


def test_what_cannot_be_counted(tmp_path):
    np.savez(tmp_path / "a.npz", photos=np.zeros((3, 8, 8)))
    assert count_training_images(Data(name=str(tmp_path / "a.npz"))) is None
    with pytest.raises(DataError, match="no file"):
        count_training_images(Data(name=str(tmp_path / "none.npz")))


@pytest.mark.parametrize(
    "header",
    ["-" * 50_000 + "1", "-" * 9_000 + "1", "(" * 9_000, "{'shape': 5}", "{'shape': ()}", "[]", "{'descr': [], 'x': 1}"]
    + [f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}" for shape in ("5", "()", "'ab'", "(-2, -4)")],
    ids=lambda header: header[:60],
)
def test_an_array_of_a_stranger_whose_header_makes_no_sense_is_not_counted(tmp_path, header):
    content = np.lib.format.magic(2, 0) + struct.pack("<I", len(header)) + header.encode()
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x_train.npy", content)
    assert not count_training_images(Data(name=str(tmp_path / "a.npz")))


def test_an_archive_that_zip_files_may_be_and_cannot_be_read_is_not_counted(tmp_path):
    """Marked as encrypted, and as packed by a method that nobody has."""
    np.savez(tmp_path / "a.npz", **arrays(x_train=5))
    whole = (tmp_path / "a.npz").read_bytes()
    entry = whole.index(b"PK\x01\x02")
    for offset in (8, 10):
        content = bytearray(whole)
        # In the list of contents, and before the array.
        content[entry + offset] |= 77 if offset == 10 else 1
        content[offset - 2] |= 77 if offset == 10 else 1
        (tmp_path / "a.npz").write_bytes(content)
        assert count_training_images(Data(name=str(tmp_path / "a.npz"))) is None
