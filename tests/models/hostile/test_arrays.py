"""Files of arrays of strangers that unpack to far more than their size."""

import tracemalloc
import zipfile

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from support.command_line import invoke

from rotnet_keras import host
from rotnet_keras.config.sections import Data
from rotnet_keras.data.audit import audit_images
from rotnet_keras.data.sizes import count_training_images
from rotnet_keras.errors import DataError
from rotnet_keras.inference.embeddings import Features, load_features


def test_a_checkpoint_of_other_sizes_is_not_unpacked(tmp_path):
    """The array of 64 MB takes 64 kB in the file."""
    from rotnet_keras.engine import keras
    from rotnet_keras.training.checkpoints import restore_checkpoint

    with zipfile.ZipFile(tmp_path / "step-00000001.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, shape in (("0000", (2**26,)), ("progress", (2,))):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
                for _ in range(max(1, shape[0] // 2**20)):
                    file.write(bytes(min(shape[0], 2**20)))
    variables = [keras.Variable(np.ones(4, np.float32))]
    tracemalloc.start()
    _, damaged = restore_checkpoint(tmp_path, variables)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24
    assert damaged == [
        "checkpoint step-00000001.npz cannot be used (its arrays have other shapes than the model's variables); "
        "trying the previous one"
    ]


@pytest.mark.parametrize("read", [audit_images, lambda name: count_training_images(Data(name=name))])
def test_an_archive_does_not_unpack_to_far_more_than_its_size_justifies(tmp_path, monkeypatch, read):
    monkeypatch.setattr(host, "FREE_BYTES", 2**20)
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x_train=np.zeros((2**13, 16, 16), np.uint8))
    with pytest.raises(DataError, match=r"unpacks from 0\.0 to 2 MB, more than 50 times .* set .* ROTNET_LIMITS=off"):
        read(str(path))
    monkeypatch.setenv("ROTNET_LIMITS", "off")
    assert count_training_images(Data(name=str(path))) > 7000


FILES = 2**13


def zeros_as_npz(path):
    names = np.array(["a.jpg"] * FILES)
    about = {"backbone": np.array("b"), "tap": np.array("conv2")}
    np.savez_compressed(path, features=np.zeros((FILES, 64), np.float32), files=names, paths=names, **about)


def zeros_as_parquet(path):
    names = ["a.jpg"] * FILES
    Features("b", "conv2", names, np.zeros((FILES, 64), np.float32), names).save(path)


def one_long_name():
    """A column of words: a name of 8 kB is there once, and 8,192 rows refer to it."""
    return pyarrow.DictionaryArray.from_arrays(np.zeros(FILES, np.int32), ["x" * 2**13])


def long_names_as_parquet(path):
    rows = pyarrow.table({"file": one_long_name(), "path": one_long_name(), "feature_0": np.zeros(FILES, np.float32)})
    about = {"rotnet_keras": '{"backbone": "b", "tap": "conv2"}'}
    parquet.write_table(rows.replace_schema_metadata(about), path, store_schema=False)


@pytest.mark.parametrize("make", [zeros_as_npz, zeros_as_parquet, long_names_as_parquet])
@pytest.mark.parametrize(
    "words", ["alike {features} a.jpg", "plot {features} --to a.png", "select {features} --count 2 --to a.csv"]
)
def test_a_file_of_features_does_not_unpack_to_far_more_than_its_size_justifies(tmp_path, monkeypatch, make, words):
    monkeypatch.setattr(host, "FREE_BYTES", 2**20)
    path = tmp_path / f"features.{make.__name__.rpartition('_')[2]}"
    make(path)
    before = pyarrow.default_memory_pool().max_memory()
    result = invoke(*words.format(features=path).split(), cwd=tmp_path)
    assert result.returncode == 3, result.stderr
    assert "features" in result.stderr and "more than 50 times its size" in result.stderr
    assert len(result.stderr.splitlines()) == 1 and [each.name for each in tmp_path.iterdir()] == [path.name]
    assert pyarrow.default_memory_pool().max_memory() - before < 2**24


def test_a_table_of_predictions_does_not_unpack_to_far_more_than_its_size_justifies(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "FREE_BYTES", 2**20)
    features = Features("b", "conv2", ["a.jpg", "b.jpg"], np.ones((2, 2), np.float32), ["/a.jpg", "/b.jpg"])
    features.save(tmp_path / "features.npz")
    rows = {"file": one_long_name(), "probability_1": np.zeros(FILES), "error": one_long_name()}
    parquet.write_table(pyarrow.table(rows), tmp_path / "classes.parquet", store_schema=False)
    words = ("select", "features.npz", "--count", "1", "--to", "a.csv", "--predictions", "classes.parquet")
    result = invoke(*words, cwd=tmp_path)
    assert result.returncode == 3 and "more than 50 times its size" in result.stderr, result.stderr


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_features_larger_than_the_free_size_are_read(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(host, "FREE_BYTES", 2**16)
    names = [f"folder/{number}.jpg" for number in range(20_001)]
    values = np.random.default_rng(0).random((len(names), 8), np.float32)
    # A unit of the layer that never answers.
    values[:, 3] = 0
    Features("b", "conv2", names, values, names, side=64).save(tmp_path / f"features{suffix}")
    found = load_features(tmp_path / f"features{suffix}")
    assert found.files == names == found.paths and (found.backbone, found.tap, found.side) == ("b", "conv2", 64)
    np.testing.assert_array_equal(found.values, values)
