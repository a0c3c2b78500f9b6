"""Arrays of images: values, axes and labels of every split are looked at before anything starts."""

import numpy as np
import pytest
from support.command_line import invoke

from rotnet_keras.config.probes import Labels
from rotnet_keras.config.sections import Data
from rotnet_keras.data.datasets import labelled_subset, load
from rotnet_keras.errors import DataError


def images(count=20, shape=(16, 16, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def write(path, **arrays):
    np.savez(path / "a.npz", **arrays)
    return Data(name=str(path / "a.npz"), validation=0.0)


@pytest.mark.parametrize(("train", "test"), [("bytes", "fractions"), ("fractions", "bytes"), ("floats", "fractions")])
def test_fractions_and_bytes_in_one_file_are_the_same_pixels(tmp_path, train, test):
    forms = {"bytes": lambda x: x, "fractions": lambda x: np.float32(x / 255), "floats": np.float32}
    data = load(write(tmp_path, x_train=forms[train](images()), x_test=forms[test](images(seed=1))))
    np.testing.assert_array_equal(data.train.images(slice(None)), images())
    np.testing.assert_array_equal(data.test.images(slice(None)), images(seed=1))
    assert "test images from" in data.notes[0]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (np.float32(images() / 64 - 2), images()),
        (np.float32(images() / 64 - 2), np.float32(images()) / 255),
        (images(), np.float32(images() / 64 - 2)),
        (images().astype(np.uint16) * 16, np.float32(images()) / 255),
        (images(), images().astype(np.int16) * 16 - 1000),
        (images(), images() // 200),
    ],
)
def test_splits_on_other_scales_are_refused_before_anything_starts(tmp_path, train, test):
    test = test.astype(np.int64) if test.max() == 1 and test.dtype == np.uint8 else test
    write(tmp_path, x_train=train, x_test=test)
    result = invoke("run", "folder", f"data.name={tmp_path}/a.npz", "--dry-run", cwd=tmp_path)
    assert result.returncode == 3 and "on one scale" in result.stderr and "the test images from" in result.stderr


@pytest.mark.parametrize(
    ("shape", "transpose"),
    [
        ((20, 3, 32, 32), "x.transpose(0, 2, 3, 1)"),
        ((20, 1, 28, 40), "x.transpose(0, 2, 3, 1)"),
        ((20, 13, 64, 64), "x.transpose(0, 2, 3, 1)"),
        ((32, 32, 3, 50), "x.transpose(3, 0, 1, 2)"),
        ((8, 8, 5000), "x.transpose(2, 0, 1)"),
    ],
)
def test_axes_in_another_order_are_refused_with_the_transpose(tmp_path, shape, transpose):
    data = write(tmp_path, x_train=np.zeros(shape, np.uint8))
    with pytest.raises(DataError) as error:
        load(data)
    assert transpose in str(error.value)
    result = invoke("init", tmp_path / "a.npz", cwd=tmp_path)
    assert result.returncode == 3 and transpose in result.stderr
    axes = tuple(int(axis) for axis in transpose[12:-1].split(","))
    fixed = write(tmp_path, x_train=np.zeros(shape, np.uint8).transpose(axes))
    assert len(load(fixed.model_copy(update={"size": 8})).train)


def test_twelve_bits_are_kept(tmp_path):
    pixels = np.linspace(0, 4095, 20 * 64, dtype=np.uint16).reshape(20, 8, 8, 1)
    data = load(write(tmp_path, x_train=pixels))
    np.testing.assert_array_equal(data.train.images(slice(None)), pixels)
    assert "from 0 to 4095 are kept" in data.notes[0] and data.displayed(pixels).dtype == np.uint8


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_counted_before_anything_starts(tmp_path, bad):
    pixels = images().astype(np.float32) / 100
    pixels[3, 4, 5:7] = bad
    data = write(tmp_path, x_train=pixels)
    with pytest.raises(DataError, match="6 of 15,360 values are no finite numbers"):
        load(data)
    result = invoke("run", "folder", f"data.name={tmp_path}/a.npz", "--dry-run", cwd=tmp_path)
    assert result.returncode == 3 and "no finite numbers" in result.stderr


def test_fractions_that_are_no_bytes_are_kept(tmp_path):
    pixels = np.random.default_rng(0).random((20, 16, 16, 3)).astype(np.float32)
    data = load(write(tmp_path, x_train=pixels, x_test=images(seed=1)))
    np.testing.assert_array_equal(data.train.images(slice(None)), pixels)
    np.testing.assert_allclose(data.test.images(slice(None)), images(seed=1) / 255, rtol=1e-6)


def test_labels_of_minus_one_are_unknown_classes(tmp_path):
    labels = np.array([0, 1, -1, -1] * 5)
    data = load(write(tmp_path, x_train=images(), y_train=labels, x_test=images(4), y_test=labels[:4]))
    assert len(data.train) == 20 and data.class_names == ["0", "1"]
    assert "10 of 20 train images have the label -1" in " ".join(data.notes) and "classes have no" not in str(
        data.notes
    )
    wanted = Labels.model_construct(labels_per_class=None, label_choice="random")
    assert labelled_subset(data, wanted, (0, 0)).tolist() == np.flatnonzero(labels >= 0).tolist()
    assert data.test.labelled().labels.tolist() == [0, 1]
    none = load(write(tmp_path, x_train=images(), y_train=np.full(20, -1)))
    assert none.train.labels is None and none.class_names == []
    with pytest.raises(DataError, match="-1 where the class is unknown"):
        load(write(tmp_path, x_train=images(), y_train=np.full(20, -2)))


def test_a_dry_run_prints_what_was_understood(tmp_path):
    write(tmp_path, x_train=images() / 255, y_train=np.arange(20) % 4, x_test=images(4), z=np.zeros(3))
    result = invoke("run", "folder", f"data.name={tmp_path}/a.npz", "--dry-run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    printed = " ".join(result.stdout.split())
    for words in ("20 train, 4 test", "classes 4", "channels 3", "scaled from [0, 1], those of the test", "names: z"):
        assert words in printed
