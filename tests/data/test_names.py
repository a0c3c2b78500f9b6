"""A name that is both a folder here and a data set of TensorFlow Datasets, and limits of image files."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from support.command_line import invoke

from rotnet_keras.config.sections import Data
from rotnet_keras.data import datasets
from rotnet_keras.data.datasets import load
from rotnet_keras.data.decoding import UnreadableImage, read_header, read_image
from rotnet_keras.data.sources import FolderSource, TfdsSource, find_annotated, find_source
from rotnet_keras.errors import DataError


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A current folder with a folder of images `cifar10`, and elsewhere a prepared data set `cifar10`."""
    for n in range(10):
        file = tmp_path / "here" / "cifar10" / f"class_{n % 2}" / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (20 * n, 0, 0)).save(file)
    info = tmp_path / "tfds" / "cifar10" / "3.0.2" / "dataset_info.json"
    info.parent.mkdir(parents=True)
    info.write_text("{}")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    return SimpleNamespace(tfds=str(tmp_path / "tfds"), empty=str(tmp_path / "none"))


def test_a_name_of_two_things_is_refused_and_each_can_be_named(place, monkeypatch):
    assert isinstance(find_source(Data(name="cifar10")), FolderSource)
    monkeypatch.setenv("TFDS_DATA_DIR", place.tfds)
    for find in (find_source, find_annotated):
        with pytest.raises(
            DataError, match=r"'cifar10' is a folder here.*data\.name=\./cifar10.*data\.data_dir=/.*tfds"
        ):
            find(Data(name="cifar10"))
    assert isinstance(find_source(Data(name="./cifar10")), FolderSource)
    assert isinstance(find_source(Data(name="cifar10", data_dir=place.tfds)), TfdsSource)
    assert isinstance(find_source(Data(name="cifar10:3.0.2")), TfdsSource)
    # Where the data sets are kept, the folder is the data set.
    monkeypatch.chdir(place.tfds)
    assert isinstance(find_source(Data(name="cifar10")), TfdsSource)


@pytest.mark.parametrize("asked", [{"download": True}, {"data_dir": "elsewhere"}])
def test_a_folder_is_not_taken_where_a_data_set_is_asked_for(place, asked):
    with pytest.raises(DataError, match=r"is asked for by data\.data_dir or data\.download.*data\.name=\./cifar10"):
        find_source(Data(name="cifar10", **asked))


def test_the_command_line_refuses_it_before_anything_starts(place):
    for words in (("run", "cifar_nin"), ("measure-weights", "compact4_cifar10")):
        result = invoke(*words, TFDS_DATA_DIR=place.tfds)
        assert result.returncode == 3 and "data.name=./cifar10" in result.stderr, (words, result.stderr)


def test_the_statistics_of_cifar10_are_not_those_of_a_folder_of_its_name(place):
    dataset = load(Data(name="cifar10", size=16, validation=0))
    assert dataset.mean == [90.0, 0.0, 0.0] and dataset.mean != datasets.PUBLISHED_STATISTICS["cifar10"][0]


def test_a_folder_called_fashion_mini_is_passed_over_with_a_word(place, tmp_path):
    (tmp_path / "here" / "fashion_mini").mkdir()
    assert load(Data(name="fashion_mini")).notes == [
        "data.name: 'fashion_mini' is the data set of this package; the folder here is ./fashion_mini"
    ]


def test_a_large_jpeg_is_read_at_a_fraction_of_its_size(tmp_path, monkeypatch):
    for suffix in ("jpg", "png"):
        Image.new("RGB", (60, 30), (200, 100, 50)).save(tmp_path / f"a.{suffix}")
    monkeypatch.setenv("ROTNET_MAX_PIXELS", "1000")
    header = read_header(tmp_path / "a.jpg")
    assert (header.width, header.height) == (60, 30)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg", 7, 3)[3, 3], [200, 100, 50], atol=3)
    with pytest.raises(UnreadableImage, match=r"it has 1,800 pixels, which is too many: .* make a smaller copy of it"):
        read_image(tmp_path / "a.png", 7, 3)


def test_a_tiff_of_many_bands_without_any_pixels_is_unreadable(tmp_path):
    file = tmp_path / "a.tif"
    entries = [(256, 4, 1, 4), (257, 4, 1, 4), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 9)]
    content = b"II*\0" + (8).to_bytes(4, "little") + len(entries).to_bytes(2, "little")
    content += b"".join(
        tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + n.to_bytes(4, "little") + value.to_bytes(4, "little")
        for tag, kind, n, value in entries
    )
    file.write_bytes(content + bytes(4) + bytes(144))
    assert read_header(file).channels == 9
    with pytest.raises(UnreadableImage, match="it should have 1 segments, and has 0"):
        read_image(file, 8, 9)
