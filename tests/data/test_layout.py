"""How folders of images are understood: splits, classes, and what of them is not used."""

import unicodedata

import numpy as np
import pytest
from PIL import Image
from support.command_line import invoke

from rotnet_keras.config.sections import Data
from rotnet_keras.data.audit import understand
from rotnet_keras.data.datasets import load
from rotnet_keras.data.layout import split_of
from rotnet_keras.data.sources import find_source
from rotnet_keras.errors import DataError


def fill(root, **counts):
    """Write images: the number in each folder, `__` for a slash; each is of another shade."""
    shade = 0
    for folder, count in counts.items():
        for number in range(count):
            shade += 1
            path = root / folder.replace("__", "/") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(path)
    return root


def found(root):
    """Files of each split and the class names, as a source has them."""
    source = find_source(Data(name=str(root)))
    return {split: len(files) for split, files in source.splits.items()}, source.class_names


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "valid", "test"),
        ("Train", "Val", "Test"),
        ("TRAINING", "VALID", "TESTING"),
        ("seg_train", "seg_valid", "seg_test"),
        ("training_set", "validation_set", "test_set"),
        ("train-images", "dev-images", "test-images"),
        ("train2017", "val2017", "test2017"),
    ],
)
def test_splits_in_other_spellings_are_splits(tmp_path, train, validation, test):
    fill(tmp_path, **{f"{train}__a": 2, f"{train}__b": 3, f"{validation}__b": 4, f"{test}__a": 1, f"{test}__b": 1})
    assert found(tmp_path) == ({"train": 5, "validation": 4, "test": 2}, ["a", "b"])


def test_names_that_only_begin_like_a_split_are_none():
    assert [split_of(name) for name in ("trains", "trainer", "testimony", "valley", "contest", "device")] == [None] * 6


def test_a_folder_in_the_folder_of_a_split_that_is_called_alike_is_no_class(tmp_path):
    fill(tmp_path, seg_train__seg_train__a=2, seg_train__seg_train__b=3, seg_test__seg_test__b=1, seg_pred=4)
    assert found(tmp_path) == ({"train": 5, "test": 1}, ["a", "b"])
    assert "4 images in seg_pred are left out" in dict(understand(Data(name=str(tmp_path))))["left out"]


def test_splits_in_a_folder_around_them_are_found(tmp_path):
    fill(tmp_path, archive__train__a=2, archive__train__b=2, archive__val__a=1)
    (tmp_path / "__MACOSX").mkdir()
    assert found(tmp_path) == ({"train": 4, "validation": 1}, ["a", "b"])


@pytest.mark.parametrize("named", ["train", "test", "val"])
def test_a_class_may_be_called_like_a_split(tmp_path, named):
    fill(tmp_path, bus=6, car=6, **{named: 6})
    assert found(tmp_path) == ({"train": 18}, sorted(["bus", "car", named]))
    assert f"{named}: taken for a class" in dict(understand(Data(name=str(tmp_path))))["layout"]


def test_folders_beside_the_splits_are_left_out_and_counted(tmp_path):
    fill(tmp_path, train__a=2, train__b=2, test__a=1, extra=3)
    Image.new("RGB", (8, 8)).save(tmp_path / "cover.jpg")
    (tmp_path / "labels.csv").touch()
    (tmp_path / "train" / "a" / "x.heic").touch()
    (tmp_path / ".hidden").touch()
    data = load(Data(name=str(tmp_path), size=8, validation=0.25))
    assert len(data.train) + len(data.validation) == 4 and len(data.test) == 1
    left_out = dict(understand(Data(name=str(tmp_path))))["left out"]
    for words in ("3 images in extra", "1 images beside", "1 files have formats that are not read: 1 .heic", "1 .csv"):
        assert words in left_out
    assert "hidden files and folders: 1" in left_out
    assert sum("extra" in note or ".heic" in note for note in data.notes) == 2


def test_two_folders_for_one_split_are_an_error_that_names_both(tmp_path):
    fill(tmp_path, train2014__a=1, train2017__a=1)
    with pytest.raises(DataError, match="may be the train split: train2014, train2017"):
        found(tmp_path)


def test_classes_that_are_links_are_followed_once(tmp_path):
    fill(tmp_path / "elsewhere", dogs=4)
    root = fill(tmp_path / "photos", cats=3)
    (root / "dogs").symlink_to(tmp_path / "elsewhere" / "dogs")
    (root / "again").symlink_to(root / "cats")
    (root / "dogs2").symlink_to(tmp_path / "elsewhere" / "dogs")
    (root / "cats" / "loop").symlink_to(root)
    assert found(root) == ({"train": 7}, ["cats", "dogs"])
    left_out = dict(understand(Data(name=str(root))))["left out"]
    assert all(name in left_out for name in ("again", "dogs2", "cats/loop"))


def test_a_class_in_two_unicode_forms_is_one(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    fill(tmp_path, **{f"train__{composed}": 2, f"train__{decomposed}": 3, "train__tea": 1, f"test__{composed}": 1})
    counts, names = found(tmp_path)
    assert counts == {"train": 6, "test": 1} and [_plain(name) for name in names] == ["café", "tea"]
    source = find_source(Data(name=str(tmp_path)))
    assert sorted(source.labels["train"]) == [0] * 5 + [1] and list(source.labels["test"]) == [0]
    assert "two Unicode forms" in dict(understand(Data(name=str(tmp_path))))["left out"]


def _plain(name):
    return unicodedata.normalize("NFC", name)


def test_jfif_is_read(tmp_path):
    fill(tmp_path, a=1, b=1)
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "x.JFIF", "JPEG")
    assert found(tmp_path)[0] == {"train": 3}
    assert len(load(Data(name=str(tmp_path), size=8, validation=0.0)).train) == 3


def test_test_images_without_classes_do_not_end_a_pretraining(tmp_path):
    fill(tmp_path, train__a=5, train__b=5, test=7)
    data = load(Data(name=str(tmp_path), size=8))
    assert data.class_names == ["a", "b"] and len(data.test) == 1
    assert any(note.startswith("7 test images are left out") for note in data.notes)


def test_test_images_of_other_classes_are_left_out_and_named(tmp_path):
    fill(tmp_path, train__a=2, train__b=2, test__a=2, test__zebra=3)
    data = load(Data(name=str(tmp_path), size=8))
    assert list(data.test.labels) == [0, 0]
    assert any("3 test images are left out" in note and "zebra" in note for note in data.notes)


def test_an_image_beside_the_classes_ends_the_labels_with_a_word(tmp_path):
    fill(tmp_path, cats=2, dogs=2)
    Image.new("RGB", (8, 8)).save(tmp_path / "cover.png")
    assert found(tmp_path) == ({"train": 5}, [])
    said = dict(understand(Data(name=str(tmp_path))))["classes"]
    assert "1 images lie beside the 2 folders, for example cover.png" in said


def test_a_dry_run_prints_what_was_understood(tmp_path):
    fill(tmp_path / "photos", Train__a=2, Train__b=2, Test__a=1)
    result = invoke("run", "folder", f"data.name={tmp_path / 'photos'}", "--dry-run", cwd=tmp_path)
    printed = " ".join(result.stdout.split())
    assert result.returncode == 0, result.stderr
    for words in ("4 train (Train), 1 test (Test)", "2: a, b", "channels colour", "values 8 bits", "left out nothing"):
        assert words in printed


@pytest.mark.parametrize(("highest", "factor"), [(4095, 16), (1023, 64)])
def test_few_bits_in_sixteen_are_refused_among_images_of_8_before_anything_starts(tmp_path, highest, factor):
    (tmp_path / "photos").mkdir()
    for number in range(9):
        Image.new("L", (8, 8), 25 * number).save(tmp_path / "photos" / f"eight-{number}.png")
    for number in range(4):
        values = np.linspace(0, highest, 64, dtype=np.uint16).reshape(8, 8)
        Image.fromarray(values).save(tmp_path / "photos" / f"{number}.png")
    result = invoke("run", "folder", f"data.name={tmp_path / 'photos'}", "--dry-run", cwd=tmp_path)
    assert result.returncode == 3 and f"go up to {highest:,} of 65,535" in result.stderr
    assert f"Multiply them by {factor}," in result.stderr


def test_values_below_zero_are_no_image(tmp_path):
    Image.fromarray(np.full((8, 8), -1000, np.int32)).save(tmp_path / "ct.tif")
    Image.new("L", (8, 8)).save(tmp_path / "grey.png")
    data = load(Data(name=str(tmp_path), size=8, validation=0.0))
    why = "ct.tif (its values of 32 bits have no known range"
    assert len(data.train) == 1 and any(why in note for note in data.notes)
